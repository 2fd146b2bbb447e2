import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarl_mkt.statistics import (
    first_reached,
    held_from,
    interquartile_mean,
    mean_interval,
    normalised_score,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    rate_interval,
    rate_lead,
    stratified_bootstrap,
)


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


def test_wilsons_interval_by_hand():
    """All of n: n / (n + z^2) to 1; 19 of 20 as in every table of the interval."""
    z = 1.959964
    assert rate_interval(np.ones(20, dtype=bool)) == pytest.approx((1, 20 / (20 + z**2), 1))
    assert rate_interval(np.zeros(20)) == pytest.approx((0, 0, z**2 / (20 + z**2)))
    found = rate_interval(np.arange(20) > 0)
    assert found == pytest.approx((0.95, 0.763869, 0.991119), abs=1e-6)


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.sampled_from([0.9, 0.95]))
def test_wilsons_bounds_are_the_rates_that_a_score_test_just_keeps(wins, confidence):
    """|rate - p| = z sqrt(p (1 - p) / n) at both ends, or the end of what a rate can be."""
    rate, low, high = rate_interval(np.array(wins), confidence)
    z = stats.norm.ppf((1 + confidence) / 2)
    assert 0 <= low <= rate <= high <= 1
    assert low < high
    for p in (low, high):
        assert (rate - p) ** 2 == pytest.approx(z**2 * p * (1 - p) / len(wins), abs=1e-9)


def test_the_lead_of_one_rate_over_another_by_hand():
    """10 pairs: 4 won by the first alone, 1 by the second: 5/12 and 2/12 by Bonett and Price."""
    first, second = (np.array(list(map(int, wins))) for wins in ("1111011100", "0000111100"))
    variance = 7 / 12 - (3 / 12) ** 2
    half = 1.959964 * (variance / 12) ** 0.5
    assert rate_lead(first, second) == pytest.approx((0.3, 0.25 - half, 0.25 + half), abs=1e-6)
    lead, low, high = rate_lead(np.ones(500), np.ones(500))
    assert lead == 0
    assert (low, high) == pytest.approx((-0.00552, 0.00552), abs=1e-5)
    assert rate_lead(np.ones(3), np.zeros(3)).high == 1.0


@pytest.mark.parametrize(("first", "second"), [(0.2, 0.2), (0.3, 0.1), (0.5, 0.05)])
def test_the_lead_is_covered_as_often_as_it_says(first, second):
    """Summed over every outcome of 25 pairs."""
    n = 25
    weights = stats.multinomial(n, [first, second, 1 - first - second])
    covered = 0.0
    for a in range(n + 1):
        for b in range(n + 1 - a):
            pairs = np.repeat([[1, 0], [0, 1], [1, 1]], [a, b, n - a - b], axis=0)
            _, low, high = rate_lead(*pairs.T)
            covered += weights.pmf([a, b, n - a - b]) * (low <= first - second <= high)
    assert 0.945 < covered < 0.97


@pytest.mark.parametrize(
    ("value", "expected"), [(-80.0, 0.0), (-30.0, 1.0), (-55.0, 0.5), (-20.0, 1.2), (-90.0, -0.2)]
)
def test_score_is_zero_at_random_and_one_at_the_teacher(value, expected):
    assert normalised_score(value, random=-80.0, teacher=-30.0) == pytest.approx(expected)


def test_interquartile_mean_by_hand():
    """Of eight values two are cut at either end, of nine as well."""
    assert interquartile_mean(np.array([100.0, 0, 1, 2, 3, 4, 5, -50])) == 2.5
    assert interquartile_mean(np.array([9.0, 1, 2, 3, 4, 5, 6, 7, 8])) == 5.0
    assert interquartile_mean(np.array([1.0, 2, 6])) == 3.0
    two = np.array([[0.0, 1, 1, 90], [4, 4, 4, 4]])
    np.testing.assert_array_equal(interquartile_mean(two), [1.0, 4.0])
    np.testing.assert_array_equal(interquartile_mean(two.T, axis=0), [1.0, 4.0])


def test_optimality_gap_by_hand():
    assert optimality_gap(np.array([0.5, 2.0, 1.0, 0.0])) == 1 - 2.5 / 4
    assert optimality_gap(np.array([0.5, 2.0]), target=2.0) == 0.75


def test_bootstrap_by_hand():
    """The mean of four draws from {0, 1}: 0 or 1 with 1/16, 1/4 or 3/4 with 1/4 each."""
    strata = [np.array([0.0, 1.0]), np.array([1.0, 0.0])]
    assert stratified_bootstrap(strata, np.mean, confidence=0.95) == (0.5, 0.0, 1.0)
    assert stratified_bootstrap(strata, np.mean, confidence=0.80) == (0.5, 0.25, 0.75)


def test_bootstrap_draws_within_each_task():
    """Pooled draws would vary; those of each task cannot."""
    strata = [np.zeros(3), np.ones(2)]
    assert stratified_bootstrap(strata, np.mean) == pytest.approx((0.4, 0.4, 0.4))


def test_bootstrap_equals_scipys_on_one_task():
    values = np.random.default_rng(3).normal(1.0, 0.3, 12)
    ours = stratified_bootstrap([values], interquartile_mean, replications=100_000)
    scipys = stats.bootstrap(
        (values,), interquartile_mean, method="percentile", n_resamples=100_000, random_state=1
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((scipys.low, scipys.high), abs=0.005)


def test_one_run_has_no_bootstrap_interval():
    value, low, high = stratified_bootstrap([np.array([1.0, 2.0]), np.array([3.0])], np.mean)
    assert value == 2.0
    assert np.isnan([low, high]).all()
    assert np.isnan(probability_of_improvement([np.ones(2)], [np.ones(1)]).low)


def test_bootstrap_of_curves_keeps_runs_whole():
    """Curves that cross: every redrawn mean is one of the three possible lines."""
    curves = np.array([[0.0, 1.0], [1.0, 0.0]])
    estimate = stratified_bootstrap([curves], np.mean)
    np.testing.assert_array_equal(estimate.value, [0.5, 0.5])
    np.testing.assert_array_equal(estimate.low, [0.0, 0.0])
    np.testing.assert_array_equal(estimate.high, [1.0, 1.0])
    sums = stratified_bootstrap([curves], lambda pool, axis: pool.mean(axis).sum(-1))
    assert sums == (1.0, 1.0, 1.0)


def test_probability_of_improvement_by_hand():
    """Task one: 3 of 4 pairs won. Task two: one of two won, one tied."""
    x = [np.array([1.0, 3.0]), np.array([5.0])]
    y = [np.array([0.0, 2.0]), np.array([5.0, 4.0])]
    assert probability_of_improvement(x, y).value == pytest.approx((3 / 4 + 3 / 4) / 2)
    sure = probability_of_improvement([np.array([2.0, 3.0])], [np.array([0.0, 1.0])])
    assert sure == (1.0, 1.0, 1.0)


SCORES = st.lists(st.floats(-5, 5).map(lambda x: round(x, 1)), min_size=2, max_size=6)
STRATA = st.lists(SCORES, min_size=1, max_size=3)


@given(x=SCORES, y=SCORES)
def test_probability_of_improvement_is_mann_whitneys_u(x, y):
    expected = stats.mannwhitneyu(x, y).statistic / (len(x) * len(y))
    forth = probability_of_improvement([np.array(x)], [np.array(y)], replications=50)
    back = probability_of_improvement([np.array(y)], [np.array(x)], replications=50)
    assert forth.value == pytest.approx(expected)
    assert forth.value + back.value == pytest.approx(1.0)
    assert 0 <= forth.low <= forth.high <= 1


@given(strata=STRATA, seed=st.integers(0, 99))
def test_the_order_of_seeds_changes_nothing(strata, seed):
    draw = np.random.default_rng(seed)
    shuffled = [draw.permutation(stratum) for stratum in strata]
    for statistic in (interquartile_mean, optimality_gap):
        first, second = (
            stratified_bootstrap(s, statistic, replications=50) for s in (strata, shuffled)
        )
        assert first == second
    reference = [np.zeros(2)] * len(strata)
    first, second = (
        probability_of_improvement(s, reference, replications=50) for s in (strata, shuffled)
    )
    assert first == second


@given(strata=STRATA, scale=st.floats(0.1, 10), shift=st.floats(-10, 10))
def test_affine_scores(strata, scale, shift):
    """The mean of the middle half moves along; who is better does not change."""
    strata = [np.array(stratum) for stratum in strata]
    moved = [scale * stratum + shift for stratum in strata]
    before, after = (
        stratified_bootstrap(s, interquartile_mean, replications=50) for s in (strata, moved)
    )
    assert after == pytest.approx(tuple(scale * x + shift for x in before), abs=1e-6)
    wins = [
        probability_of_improvement(s, [s[0]] * len(s), replications=50) for s in (strata, moved)
    ]
    assert wins[0] == pytest.approx(wins[1])


def test_profile_by_hand():
    profile = performance_profile(
        [np.array([0.0, 1.0]), np.array([0.5, 2.0])], np.array([-1, 0, 0.7, 2])
    )
    np.testing.assert_array_equal(profile.value, [1.0, 0.75, 0.5, 0.0])
    assert (profile.low <= profile.value).all()
    assert (profile.value <= profile.high).all()
    assert profile.low[0] == 1.0 == profile.high[0]


@pytest.mark.parametrize(
    ("scores", "first", "held"),
    [
        ([0.0, 1.0, 0.9, 1.0, 1.2], 1, 3),
        ([1.0, 1.0], 0, 0),
        ([1.0, 0.5], 0, None),
        ([0.5, 0.9], None, None),
        ([0.0, 1.0], 1, 1),
    ],
)
def test_when_a_level_is_reached_and_held(scores, first, held):
    assert first_reached(np.array(scores), 1.0) == first
    assert held_from(np.array(scores), 1.0) == held
