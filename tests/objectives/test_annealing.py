import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarl_mkt.objectives import AnnealingSchedule


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.0, 0.1), (0.3, 0.525), (0.6, 0.95), (0.8, 0.95), (1.0, 0.95)]
)
def test_the_papers_schedule(progress, expected):
    assert AnnealingSchedule()(progress) == pytest.approx(expected, abs=1e-12)


def test_reversed_schedule_falls():
    schedule = AnnealingSchedule(start=0.95, end=0.1, fraction=0.5)
    assert [schedule(p) for p in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.95, 0.525, 0.1, 0.1])


@given(
    start=st.floats(0, 1),
    end=st.floats(0, 1),
    fraction=st.floats(0.01, 1),
    progress=st.lists(st.floats(0, 1), min_size=2, max_size=5),
)
def test_stays_between_its_ends_and_is_monotone(start, end, fraction, progress):
    schedule = AnnealingSchedule(start, end, fraction)
    values = [schedule(p) for p in sorted(progress)]
    low, high = min(start, end), max(start, end)
    assert all(low - 1e-12 <= value <= high + 1e-12 for value in values)
    steps = [later - earlier for earlier, later in itertools.pairwise(values)]
    assert all(step * math.copysign(1, end - start) >= -1e-12 for step in steps)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"start": -0.1}, "annealing.start"),
        ({"start": 1.1}, "annealing.start"),
        ({"end": -1e-9}, "annealing.end"),
        ({"end": 2.0}, "annealing.end"),
        ({"end": math.nan}, "annealing.end"),
        ({"fraction": 0.0}, "annealing.fraction"),
        ({"fraction": 1.5}, "annealing.fraction"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, key):
    with pytest.raises(ValueError, match=key):
        AnnealingSchedule(**arguments)


@pytest.mark.parametrize("progress", [-0.01, 1.01, math.nan])
def test_progress_out_of_range_is_refused(progress):
    with pytest.raises(ValueError, match="progress"):
        AnnealingSchedule()(progress)


@pytest.mark.parametrize(
    ("ends", "uses"),
    [((1, 1), False), ((0, 0), True), ((0.1, 0.95), True), ((1, 0.5), True), ((0.5, 1), True)],
)
def test_a_teacher_is_used_unless_td_is_everything(ends, uses):
    assert AnnealingSchedule(*ends).uses_teacher is uses
