import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarl_mkt.reporting.statistics import mean_interval, normalised_score


@given(
    values=st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30).filter(
        lambda v: np.std(v) > 1e-6
    ),
    confidence=st.sampled_from([0.9, 0.95, 0.99]),
)
def test_interval_equals_scipys(values, confidence):
    interval = mean_interval(np.array(values), confidence)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(confidence)
    assert interval.mean == pytest.approx(np.mean(values))
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert interval.half_width == pytest.approx((expected.high - expected.low) / 2, abs=1e-6)


def test_interval_by_hand():
    """Mean 2, standard error 1 / sqrt(3), t of two degrees of freedom 4.302653."""
    interval = mean_interval(np.array([1.0, 2.0, 3.0]))
    assert interval == pytest.approx((2.0, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-5)


def test_one_value_has_no_width():
    assert mean_interval(np.array([4.0])) == (4.0, 4.0, 4.0)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (2000, 10))
    covered = [i.low <= 3.0 <= i.high for i in map(mean_interval, draws)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(
    ("value", "expected"), [(-80.0, 0.0), (-30.0, 1.0), (-55.0, 0.5), (-20.0, 1.2), (-90.0, -0.2)]
)
def test_score_is_zero_at_random_and_one_at_the_teacher(value, expected):
    assert normalised_score(value, random=-80.0, teacher=-30.0) == pytest.approx(expected)
