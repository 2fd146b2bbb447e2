"""Statistics of results: pure functions on arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy  # its statistics take half a second, and are not loaded before they are used

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
    half = scipy.stats.sem(values) * scipy.stats.t.ppf((1 + confidence) / 2, values.size - 1)
    return Interval(mean, float(mean - half), float(mean + half))


def rate_interval(successes: np.ndarray, confidence: float = 0.95) -> Interval:
    """Rate of the ``successes`` [n], true or false, with Wilson's score interval.

    Source: Wilson 1927, J. Am. Stat. Assoc. 22, p. 209. It stays within 0 and 1, and has a width
    where all or none have succeeded.
    """
    test = scipy.stats.binomtest(int(np.sum(successes)), len(successes))
    low, high = test.proportion_ci(confidence, method="wilson")
    return Interval(float(test.statistic), float(low), float(high))


def rate_lead(successes: np.ndarray, others: np.ndarray, confidence: float = 0.95) -> Interval:
    """By how much the rate of ``successes`` [n] is above that of ``others`` [n], pair by pair.

    The interval is the adjusted Wald interval of Bonett and Price 2012, J. Educ. Behav. Stat. 37,
    p. 479: two pairs are added, in each of which another one of the two has succeeded alone.
    """
    differences = np.asarray(successes, dtype=np.float64) - np.asarray(others, dtype=np.float64)
    adjusted = np.append(differences, [1.0, -1.0])
    half = scipy.stats.norm.ppf((1 + confidence) / 2) * adjusted.std() / adjusted.size**0.5
    low, high = np.clip(adjusted.mean() + np.array([-half, half]), -1, 1)
    return Interval(float(differences.mean()), float(low), float(high))


def normalised_score(value: Any, random: float, teacher: float) -> Any:
    """Return 0 for uniform random play and 1 for the teacher, linear between and beyond.

    It is not a number where the teacher is no better than random play.
    """
    return (value - random) / (teacher - random) if teacher > random else float("nan")


class Estimate(NamedTuple):
    """A statistic with its bootstrap interval: numbers, or arrays of one shape."""

    value: Any
    low: Any
    high: Any


def interquartile_mean(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean without the lowest and the highest quarter, rounded down (arXiv 2108.13264, 4.3)."""
    return scipy.stats.trim_mean(scores, 0.25, axis=axis)


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
    same in every call and do not depend on the order of a task's runs. The bounds are not a number
    where a task has a single run.

    Args:
        strata: one array [runs of the task, *shape] per task.
        statistic: called as ``statistic(pool, axis=n)``; reduces the axis of the pooled runs.
    """

    def pooled(tasks: list[np.ndarray]) -> np.ndarray:
        return statistic(np.concatenate(tasks, axis=1), axis=1)

    return _bootstrap(strata, pooled, confidence, replications)


def probability_of_improvement(
    x: Sequence[np.ndarray],
    y: Sequence[np.ndarray],
    confidence: float = 0.95,
    replications: int = REPLICATIONS,
) -> Estimate:
    """Probability that a run of X beats one of Y on the same task, averaged over the tasks.

    That is the Mann-Whitney U statistic over its maximum; ties count half (Agarwal et al. 2021,
    https://arxiv.org/abs/2108.13264, section 4.3). X and Y have one array [runs of the task] per
    task, in the same order of tasks, and are redrawn independently.
    """

    def wins(sides: list[np.ndarray]) -> np.ndarray:
        pairs = [(a[:, :, None], b[:, None]) for a, b in zip(sides[::2], sides[1::2])]
        return np.mean([((a > b) + 0.5 * (a == b)).mean((1, 2)) for a, b in pairs], axis=0)

    return _bootstrap([side for pair in zip(x, y) for side in pair], wins, confidence, replications)


def performance_profile(strata: Sequence[np.ndarray], thresholds: np.ndarray) -> Estimate:
    """Fraction of runs above each threshold [n], pointwise (arXiv 2108.13264, section 4.2)."""
    above = [np.asarray(stratum)[:, None] > thresholds for stratum in strata]
    return stratified_bootstrap(above, np.mean, replications=CURVE_REPLICATIONS)


def first_reached(scores: np.ndarray, level: float) -> int | None:
    """Index of the first of the ``scores`` [n] that is at least ``level``."""
    return next((i for i, score in enumerate(scores) if score >= level), None)


def held_from(scores: np.ndarray, level: float) -> int | None:
    """Index from which all later ``scores`` [n] are at least ``level``; None if the last is not."""
    start = max((i + 1 for i, score in enumerate(scores) if score < level), default=0)
    return start if start < len(scores) else None


def _bootstrap(
    strata: Sequence[np.ndarray],
    statistic: Callable[[list[np.ndarray]], np.ndarray],
    confidence: float,
    replications: int,
) -> Estimate:
    """``statistic`` takes one array [B, runs, *shape] per stratum, and returns B values."""
    strata = [np.asarray(runs, dtype=np.float64) for runs in strata]
    strata = [runs[np.lexsort(runs.reshape(len(runs), -1).T[::-1])] for runs in strata]
    # NumPy has frozen the stream of RandomState, not that of Generator (NEP 19): tables stay
    # the same, byte for byte, in every version.
    draws, tail = np.random.RandomState(0), (1 - confidence) / 2
    redrawn = []
    for runs in strata:
        chosen = draws.randint(len(runs), size=(replications, len(runs)), dtype=np.int64)
        redrawn.append(runs[chosen])
    (value,) = statistic([runs[None] for runs in strata])
    low, high = np.quantile(statistic(redrawn), [tail, 1 - tail], axis=0)
    if min(map(len, strata)) < 2:
        low = high = np.full_like(low, np.nan)
    return Estimate(*(x if np.ndim(x) else float(x) for x in (value, low, high)))
