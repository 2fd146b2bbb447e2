"""Statistics of results: pure functions on arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

REPLICATIONS = 20_000  # of one number; CURVE_REPLICATIONS of a whole curve
CURVE_REPLICATIONS = 2000


class Interval(NamedTuple):
    """A mean with its confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the interval's length: the number behind the plus-minus sign."""
        return (self.high - self.low) / 2


def mean_interval(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """Mean of ``values`` [n] with Student's t interval; of zero width if n is 1."""
    values = np.asarray(values, dtype=np.float64)
    mean = float(values.mean())
    if values.size < 2:
        return Interval(mean, mean, mean)
    from scipy import stats  # here: half of a second that most commands do not need

    half = stats.sem(values) * stats.t.ppf((1 + confidence) / 2, values.size - 1)
    return Interval(mean, float(mean - half), float(mean + half))


def rate_interval(successes: np.ndarray, confidence: float = 0.95) -> Interval:
    """Rate of the ``successes`` [n], true or false, with Wilson's score interval.

    Source: Wilson 1927, J. Am. Stat. Assoc. 22, p. 209. It stays within 0 and 1, and has a width
    where all or none have succeeded.
    """
    from scipy import stats

    found = stats.binomtest(int(np.sum(successes)), len(successes))
    low, high = found.proportion_ci(confidence, method="wilson")
    return Interval(float(found.statistic), float(low), float(high))


def rate_lead(successes: np.ndarray, others: np.ndarray, confidence: float = 0.95) -> Interval:
    """By how much the rate of ``successes`` [n] is above that of ``others`` [n], pair by pair.

    The interval is the adjusted Wald interval of Bonett and Price 2012, J. Educ. Behav. Stat. 37,
    p. 479: two pairs are added, in each of which another one of the two has succeeded alone.
    """
    from scipy import stats

    differences = np.asarray(successes, dtype=np.float64) - np.asarray(others, dtype=np.float64)
    adjusted = np.append(differences, [1.0, -1.0])
    half = stats.norm.ppf((1 + confidence) / 2) * adjusted.std() / adjusted.size**0.5
    low, high = np.clip(adjusted.mean() + np.array([-half, half]), -1, 1)
    return Interval(float(differences.mean()), float(low), float(high))


def normalised_score(value: Any, random: float, teacher: float) -> Any:
    """Return 0 for uniform random play and 1 for the teacher, linear between and beyond.

    It is not a number where the teacher is no better than random play.
    """
    if teacher <= random:
        return float("nan")
    return (value - random) / (teacher - random)


class Estimate(NamedTuple):
    """A statistic with its bootstrap interval: numbers, or arrays of one shape."""

    value: Any
    low: Any
    high: Any


def interquartile_mean(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of the middle half of the scores along ``axis``, runs and tasks pooled.

    A quarter of the ``n`` values, rounded down, is cut at either end (Agarwal et al. 2021,
    https://arxiv.org/abs/2108.13264, section 4.3).
    """
    from scipy import stats

    return stats.trim_mean(scores, 0.25, axis=axis)


def optimality_gap(scores: np.ndarray, target: float = 1.0, axis: int = -1) -> np.ndarray:
    """By how much the scores stay below ``target`` on average (arXiv 2108.13264, section 4.3)."""
    return target - np.minimum(scores, target).mean(axis)


def stratified_bootstrap(
    strata: Sequence[np.ndarray],
    statistic: Callable[..., np.ndarray],
    confidence: float = 0.95,
    replications: int = REPLICATIONS,
) -> Estimate:
    """Percentile interval of a statistic of all runs; runs are redrawn within each task.

    Source: Agarwal et al. 2021, https://arxiv.org/abs/2108.13264, section 4.1. The draws are the
    same in every call and do not depend on the order of a task's runs.

    Args:
        strata: one array [runs of the task, *shape] per task.
        statistic: called as ``statistic(pool, axis=n)``; reduces the axis of the pooled runs.
        confidence: the interval's coverage.
        replications: number of redrawn samples.

    Returns:
        The statistic [*shape]; its bounds are not a number where a task has a single run.
    """
    strata = [_sorted_runs(np.asarray(stratum, dtype=np.float64)) for stratum in strata]
    value = statistic(np.concatenate(strata), axis=0)
    draws = _draws()
    pool = np.concatenate([_redraw(draws, stratum, replications) for stratum in strata], axis=1)
    return _percentiles(value, statistic(pool, axis=1), strata, confidence)


def probability_of_improvement(
    x: Sequence[np.ndarray],
    y: Sequence[np.ndarray],
    confidence: float = 0.95,
    replications: int = REPLICATIONS,
) -> Estimate:
    """Probability that a run of X beats one of Y on the same task, averaged over the tasks.

    That is the Mann-Whitney U statistic over its maximum; ties count half (Agarwal et al. 2021,
    https://arxiv.org/abs/2108.13264, section 4.3).

    Args:
        x, y: one array [runs of the task] per task each, in the same order of tasks.
        confidence: the interval's coverage.
        replications: number of samples, redrawn for X and Y independently.
    """
    x, y = ([_sorted_runs(np.asarray(s, dtype=np.float64)) for s in side] for side in (x, y))
    value = np.mean([_wins(*pair) for pair in zip(x, y)])
    draws = _draws()
    samples = np.mean(
        [_wins(*(_redraw(draws, s, replications) for s in pair)) for pair in zip(x, y)], axis=0
    )
    return _percentiles(value, samples, [*x, *y], confidence)


def performance_profile(
    strata: Sequence[np.ndarray], thresholds: np.ndarray, confidence: float = 0.95
) -> Estimate:
    """Fraction of runs with a score above each threshold [n], with a pointwise interval.

    Source: Agarwal et al. 2021, https://arxiv.org/abs/2108.13264, section 4.2.
    """
    above = [np.asarray(stratum)[:, None] > thresholds for stratum in strata]
    return stratified_bootstrap(above, np.mean, confidence, CURVE_REPLICATIONS)


def first_reached(scores: np.ndarray, level: float) -> int | None:
    """Index of the first of the ``scores`` [n] that is at least ``level``."""
    reached = np.asarray(scores) >= level
    return int(reached.argmax()) if reached.any() else None


def held_from(scores: np.ndarray, level: float) -> int | None:
    """Index from which all later ``scores`` [n] are at least ``level``; None if the last is not."""
    below = np.flatnonzero(np.asarray(scores) < level)
    start = int(below[-1]) + 1 if below.size else 0
    return start if start < len(scores) else None


def _draws() -> np.random.RandomState:
    # NumPy has frozen the stream of RandomState, not that of Generator (NEP 19): tables stay
    # the same, byte for byte, in every version.
    return np.random.RandomState(0)


def _redraw(draws: np.random.RandomState, runs: np.ndarray, replications: int) -> np.ndarray:
    # [n, *shape] -> [replications, n, *shape]
    return runs[draws.randint(len(runs), size=(replications, len(runs)), dtype=np.int64)]


def _sorted_runs(runs: np.ndarray) -> np.ndarray:
    return runs[np.lexsort(runs.reshape(len(runs), -1).T[::-1])]


def _wins(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # [*B, n], [*B, m] -> [*B]
    x, y = x[..., :, None], y[..., None, :]
    return ((x > y) + 0.5 * (x == y)).mean((-2, -1))


def _percentiles(
    value: np.ndarray, samples: np.ndarray, strata: Sequence[np.ndarray], confidence: float
) -> Estimate:
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, [tail, 1 - tail], axis=0)
    if min(map(len, strata)) < 2:
        low, high = np.full_like(low, np.nan), np.full_like(high, np.nan)
    return Estimate(*(x if np.ndim(x) else float(x) for x in (value, low, high)))
