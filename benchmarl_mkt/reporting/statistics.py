"""Statistics of results: pure functions on arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats


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
    half = stats.sem(values) * stats.t.ppf((1 + confidence) / 2, values.size - 1)
    return Interval(mean, float(mean - half), float(mean + half))


def normalised_score(value: float, random: float, teacher: float) -> float:
    """Return 0 for uniform random play and 1 for the teacher, linear between and beyond.

    It is not a number where the teacher is no better than random play.
    """
    if teacher <= random:
        return float("nan")
    return (value - random) / (teacher - random)
