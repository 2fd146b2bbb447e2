import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarl_mkt.reporting.runs import LIMIT, read_curves, read_run, read_runs
from tests.reporting.results import evaluations, row, summary, write_clock, write_run

CURVE = evaluations({"push": [0.0]})


def test_a_finished_run(tmp_path):
    content = summary("other", 3, finished=True, tasks={"push": row("push", 0.5, 0.25)})
    write_run(tmp_path / "a" / "b", content, evaluations({"push": [0.0, 0.5]}, 3))
    (run,), damaged = read_runs([tmp_path / "a"])
    assert damaged == []
    assert (run.where, run.set, run.method, run.seed) == ("a/b", "multitask/two", "other", 3)
    assert (run.finished, run.max_frames, run.frames, run.problems) == (True, 400, 400, ())
    push = run.tasks["push"]
    assert push.means == {"random": -30.0, "teacher": -10.0, "best": -20.0, "student": -25.0}
    assert (push.frames, push.teacher_frames) == (400, 300)
    np.testing.assert_array_equal(push.curve, [[100, 200], [-30.0, -20.0]])


def test_the_folder_of_one_run(tmp_path):
    write_run(tmp_path / "run", summary(), evaluations({"push": [0.0]}))
    (run,), _ = read_runs([tmp_path / "run", tmp_path])
    assert run.where == "run"


def test_an_unfinished_run_is_read_as_far_as_it_is(tmp_path):
    write_run(tmp_path / "early", summary(seed=0))
    write_run(tmp_path / "late", summary(seed=1), evaluations({"push": [0.0, 0.1, 0.2]}, 1))
    (early, late), damaged = read_runs([tmp_path])
    assert damaged == []
    assert (early.finished, early.frames, dict(early.tasks)) == (False, 0, {})
    assert early.problems == (
        "evaluations.json: no evaluations can be read (No such file or directory)",
    )
    assert (late.finished, late.frames, late.problems) == (False, 300, ())
    assert late.tasks["push"].means == {}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe{", "decode"),
        (b"[" * 100_000, "recursion"),
        ([], "format: expected"),
        ({}, "format: expected"),
        (summary(format="benchmarl-mkt summary 2"), "format: expected"),
        (summary(method=7), "method: expected str, got 7"),
        (summary(method="a\nb"), "method: 'a\\nb' is no name"),
        (summary(set=" "), "set: ' ' is no name"),
        (summary(seed=True), "seed: expected int, got True"),
        (summary(seed="0"), "seed: expected int, got '0'"),
        (summary(seed=-1), "seed: expected 0 to"),
        (summary(max_frames=0), "max_frames: expected a positive number"),
        (summary(max_frames=10**400), "max_frames: expected 0 to"),
        (summary(finished="yes"), "finished: expected bool"),
        (summary(tasks=[]), "tasks: expected dict"),
    ],
)
def test_a_damaged_summary_is_named_and_others_are_read(tmp_path, content, problem):
    write_run(tmp_path / "bad", content)
    write_run(tmp_path / "good", summary(), evaluations({"push": [0.0]}))
    (run,), (damaged,) = read_runs([tmp_path])
    assert run.where.endswith("/good")
    assert damaged.where == f"{tmp_path.name}/bad"
    assert damaged.problem.startswith("summary.json: ")
    assert problem in damaged.problem
    assert "\n" not in damaged.problem


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ({"push": 3}, "tasks.push: expected an object, got 3"),
        ({"push": {**row("push", 1.0), "best": 1.0}}, "tasks.push.best: "),
        ({"push": {**row("push", 1.0), "best": {}}}, "tasks.push.best: 'mean' is missing"),
        (
            {"push": {**row("push", 1.0), "best": {"mean": None}}},
            "tasks.push.best: expected a number",
        ),
        (
            {"push": {**row("push", 1.0), "best": {"mean": float("nan")}}},
            "tasks.push.best: expected",
        ),
        (
            {"push": {**row("push", 1.0), "best": {"mean": 10.0 * LIMIT}}},
            "tasks.push.best: expected",
        ),
        ({"push": {**row("push", 1.0), "frames": 1.5}}, "tasks.push.frames: expected int"),
        ({"pu\ud800sh": row("push", 1.0)}, "tasks: 'pu\\ud800sh' is no name"),
        ({}, "finished, but without tasks"),
    ],
)
def test_a_damaged_row_leaves_the_rest(tmp_path, damage, problem):
    tasks = {**damage, "tag": row("tag", 1.0)} if damage else {}
    write_run(tmp_path / "run", summary(finished=True, tasks=tasks), evaluations({"push": [0.0]}))
    (run,), _ = read_runs([tmp_path])
    assert len(run.problems) == 1
    assert problem in run.problems[0]
    assert "push" in run.tasks
    assert "best" not in run.tasks["push"].means or "frames" in problem
    if damage:
        assert run.tasks["tag"].means["best"] == 8.0


def _edited(edit):
    content = evaluations({"push": [0.0, 1.0]})
    edit(content["multitask"]["two"]["mkt"]["seed_0"])
    return content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80",
        b"{" * 10,
        [],
        {},
        {"a": {}, "b": {}},
        {"a": {"b": {"c": {"d": {}}}}},
        _edited(lambda run: run["step_1"].pop("step_count")),
        _edited(lambda run: run["step_1"].pop("push_return")),
        _edited(lambda run: run["step_1"].update(step_count=-1)),
        _edited(lambda run: run["step_1"].update(step_count=1e300)),
        _edited(lambda run: run["step_1"].update(push_return=[])),
        _edited(lambda run: run["step_1"].update(push_return=3.0)),
        _edited(lambda run: run["step_1"].update(push_return=[1.0, None])),
        _edited(lambda run: run["step_1"].update(push_return=[1.0, float("inf")])),
        _edited(lambda run: run["step_0"].update(push_return=[1.0])),
    ],
)
def test_damaged_evaluations_are_named_and_the_summary_counts(tmp_path, content):
    folder = write_run(
        tmp_path / "run", summary(finished=True, tasks={"push": row("push", 1.0)}), content
    )
    (run,), damaged = read_runs([tmp_path])
    assert damaged == []
    assert run.tasks["push"].means["best"] == -10.0
    assert run.tasks["push"].curve is None
    (problem,) = run.problems
    assert problem.startswith("evaluations.json: no evaluations can be read (")
    with pytest.raises(ValueError, match=r"evaluations\.json"):
        read_curves(folder / "evaluations.json")


@pytest.mark.parametrize("name", [None, 3, "", "../other/evaluations.json", "/etc/passwd", "."])
def test_evaluations_lie_beside_the_summary(tmp_path, name):
    write_run(tmp_path / "run", summary(evaluations=name), evaluations({"push": [0.0]}))
    (run,), _ = read_runs([tmp_path])
    assert len(run.problems) == 1
    assert run.tasks == {}


def test_what_is_no_folder_of_runs(tmp_path):
    with pytest.raises(ValueError, match=r"RESULTS: there is no folder .*nowhere"):
        read_runs([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match=r"RESULTS: no summary\.json below"):
        read_runs([tmp_path])


def test_a_folder_called_summary(tmp_path):
    (tmp_path / "summary.json").mkdir()
    assert read_runs([tmp_path])[1][0].problem == "summary.json: not a file"


@given(first=st.binary(max_size=200), second=st.binary(max_size=200))
def test_random_bytes_never_crash(tmp_path_factory, first, second):
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "a", first, second)
    write_run(folder / "b", summary(), second)
    (run,), (damaged,) = read_runs([folder])
    assert "summary.json" in damaged.problem
    assert run.problems[0].startswith("evaluations.json")


TEXT = st.text(max_size=5)


def timing(folder):
    """That of a run's only task, and what is said to be wrong."""
    run = read_run(folder / "summary.json", "run")
    return run.tasks["push"].timing, run.problems


def test_times_are_read_where_they_are_known(tmp_path):
    content = summary(
        tasks={"push": row("push", 1.0)}, seconds=12.5, machine="A processor, 2 cores"
    )
    old = write_run(tmp_path / "old", summary(tasks={"push": row("push", 1.0)}), CURVE)
    found, problems = timing(old)
    assert (found.seconds, found.machine, found.clock, problems) == (None, None, None, ())
    new = write_clock(write_run(tmp_path / "new", content, CURVE), 5.0, iterations=3)
    found, problems = timing(new)
    assert (found.seconds, found.machine, problems) == (12.5, "A processor, 2 cores", ())
    assert [values.tolist() for values in found.clock] == [[100, 200, 300], [5, 10, 15]]


@pytest.mark.parametrize(
    ("text", "clock", "problem"),
    [
        ("", None, None),  # killed in its first iteration
        ("0,5.0\n1,10.0\n2,1", [5.0, 10.0], None),  # killed while it wrote
        ("0,5.0\n1,5.0\n", None, "frames and seconds must increase"),
        ("0,5.0\n1,nan\n", None, "frames and seconds must increase"),
        ("0,5.0\n1,1e300\n", None, "frames and seconds must increase"),
        ("0;5.0\n", None, "not enough values"),
    ],
)
def test_damaged_times_are_said_and_left_out(tmp_path, text, clock, problem):
    content = summary(tasks={"push": row("push", 1.0)}, seconds="long")
    run = write_clock(write_run(tmp_path / "run", content, CURVE), 5.0)
    (run / "name" / "scalars" / "timers_total_time.csv").write_text(text)
    found, problems = timing(run)
    assert (None if found.clock is None else found.clock[1].tolist()) == clock
    assert "seconds: expected a number, got 'long'" in problems[0]
    assert problem is None or f"timers_total_time.csv: {problem}" in problems[1]
    assert len(problems) == 1 + (problem is not None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(key=st.sampled_from(sorted(summary())), value=JSON, at=st.integers(0, 4), part=JSON)
def test_random_values_never_crash(tmp_path_factory, key, value, at, part):
    """Any value at a key of the summary, and at any depth of the evaluations."""
    content = evaluations({"push": [0.0, 1.0]})
    inner = {"outer": content}
    for _ in range(at):
        inner = next(iter(inner.values()))
    inner[next(iter(inner))] = part
    folder = tmp_path_factory.mktemp("runs")
    tasks = {"push": row("push", 1.0)}
    write_run(folder / "a", {**summary(finished=True, tasks=tasks), key: value}, content)
    runs, damaged = read_runs([folder])
    assert len(runs) + len(damaged) == 1


def test_the_summaries_writer_and_reader_agree(tmp_path):
    """The keys of the fixture are those that the reader asks for."""
    path = write_run(tmp_path / "run", summary(), evaluations({"push": [0.0]})) / "summary.json"
    content = json.loads(path.read_text())
    for key in ("format", "set", "method", "seed", "finished", "max_frames", "tasks"):
        path.write_text(json.dumps({k: v for k, v in content.items() if k != key}))
        with pytest.raises(ValueError, match=key):
            read_run(path, "run")
