"""Our statistics against rliable's, where the extra ``report-check`` is installed."""

import numpy as np
import pytest

from benchmarl_mkt.statistics import (
    interquartile_mean,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
)

library = pytest.importorskip("rliable.library")
metrics = pytest.importorskip("rliable.metrics")


def seeded():
    """Rliable draws from NumPy's global state, whatever state it is given."""
    np.random.seed(7)
    return np.random.RandomState(7)


@pytest.fixture(params=[(3, 3), (5, 3), (10, 8)], ids=str)
def scores(request):
    """Two methods' scores, runs by tasks, with task effects and a tie."""
    runs, tasks = request.param
    draw = np.random.default_rng(runs)
    x, y = (draw.normal(mean, 0.2, (runs, tasks)) + draw.normal(0, 0.3, tasks) for mean in (1, 0.9))
    y[0, 0] = x[0, 0]
    return {"x": x, "y": y}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (interquartile_mean, metrics.aggregate_iqm),
        (optimality_gap, metrics.aggregate_optimality_gap),
    ],
)
def test_aggregates(scores, ours, theirs):
    values, intervals = library.get_interval_estimates(
        scores, theirs, reps=5000, random_state=seeded()
    )
    for name, matrix in scores.items():
        estimate = stratified_bootstrap(list(matrix.T), ours)
        assert estimate.value == pytest.approx(float(values[name]))
        expected = intervals[name].ravel()
        tolerance = 0.05 * np.ptp(expected) + 1e-3
        assert (estimate.low, estimate.high) == pytest.approx(tuple(expected), abs=tolerance)


def test_probability_of_improvement(scores):
    pair = {"pair": (scores["x"], scores["y"])}
    values, intervals = library.get_interval_estimates(
        pair, metrics.probability_of_improvement, reps=2000, random_state=seeded()
    )
    estimate = probability_of_improvement(list(scores["x"].T), list(scores["y"].T))
    assert estimate.value == pytest.approx(float(values["pair"]))
    runs, tasks = scores["x"].shape
    step = 1 / (runs**2 * tasks)  # quantiles lie on steps
    assert estimate[1:] == pytest.approx(tuple(intervals["pair"].ravel()), abs=0.01 + step)


def test_performance_profile(scores):
    thresholds = np.linspace(0, 2, 21)
    values, _ = library.create_performance_profile(scores, thresholds, reps=50)
    for name, matrix in scores.items():
        profile = performance_profile(list(matrix.T), thresholds)
        np.testing.assert_allclose(profile.value, values[name])
        bootstrap = library.StratifiedBootstrap(matrix, random_state=seeded())
        interval = bootstrap.conf_int(
            lambda runs: np.array([library.run_score_deviation(runs, tau) for tau in thresholds]),
            reps=2000,
            method="percentile",
        )
        step = 1 / matrix.size + 1e-9
        np.testing.assert_allclose((profile.low, profile.high), interval, atol=step)
