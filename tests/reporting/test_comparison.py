import numpy as np
import pytest

from benchmarl_mkt.reporting.comparison import compare
from benchmarl_mkt.reporting.labels import Labels
from benchmarl_mkt.reporting.runs import read_runs
from tests.reporting.results import (
    SCORES,
    evaluations,
    row,
    summary,
    write_clock,
    write_results,
    write_run,
)


def compared(folder, labels=None):
    """The comparison of the only task set, and the remarks."""
    (comparison,), remarks = compare(read_runs([folder])[0], labels or Labels())
    return comparison, remarks


def test_scores_are_those_that_were_written(tmp_path):
    comparison, remarks = compared(write_results(tmp_path))
    assert remarks == []
    assert (comparison.set, comparison.tasks) == ("multitask/two", ("push", "tag"))
    assert [method.key for method in comparison.methods] == ["mkt", "other"]
    assert comparison.random == {"push": -30.0, "tag": 0.0}
    assert comparison.teacher == {"push": -10.0, "tag": 8.0}
    for method in comparison.methods:
        written = np.array([[seed["push"], seed["tag"]] for seed in SCORES[method.key]])
        np.testing.assert_allclose(np.transpose(comparison.scores(method, "best")), written)
        np.testing.assert_allclose(comparison.mean_scores(method, "best"), written.mean(1))
        frames, curves = comparison.score_curves(method)
        np.testing.assert_array_equal(frames, [100, 200, 300, 400])
        np.testing.assert_allclose(curves, written[:, :, None] * [0.0, 0.5, 1.0, 1.0], atol=1e-12)
    mkt, other = comparison.methods
    assert (mkt.frames("frames"), mkt.frames("teacher_frames")) == (400, 300)
    assert (other.frames("frames"), other.frames("teacher_frames")) == (400, 0)


def test_levels_are_means_over_seeds_not_over_runs(tmp_path):
    """Seed 0 has three runs, seed 1 one: each seed counts once; other teachers do not count."""
    for method, seed, random, teacher in (
        ("mkt", 0, -30.0, -10.0),
        ("b", 0, -30.0, 50.0),
        ("c", 0, -30.0, 60.0),
        ("mkt", 1, -20.0, -12.0),
    ):
        tasks = {
            "push": {**row("push", 1.0), "random": {"mean": random}, "teacher": {"mean": teacher}}
        }
        write_run(tmp_path / f"{method}_{seed}", summary(method, seed, finished=True, tasks=tasks))
    comparison, _ = compared(tmp_path)
    assert comparison.random == {"push": -25.0}
    assert comparison.teacher == {"push": -11.0}
    np.testing.assert_array_equal(comparison.levels["teacher"]["push"], [-10.0, -12.0])


def test_seconds_are_means_over_the_seeds(tmp_path):
    """Seeds take 2 and 4 seconds for 100 frames; single tasks are trained one after another."""
    for seed, seconds in enumerate((2.0, 4.0)):
        rows = {task: row(task, 1.0) for task in ("push", "tag")}
        both = summary("both", seed, finished=True, tasks=rows)
        curves = evaluations({"push": [0.0, 1.0], "tag": [0.0, 1.0]}, seed)
        write_clock(write_run(tmp_path / f"both_{seed}", both, curves), seconds, iterations=2)
        for task in ("push", "tag"):
            content = summary("single", seed, finished=True, tasks={task: row(task, 1.0)})
            run = write_run(
                tmp_path / f"{task}_{seed}", content, evaluations({task: [0.0, 1.0]}, seed)
            )
            write_clock(run, seconds)
    comparison, _ = compared(tmp_path)
    both, single = comparison.methods
    frames = np.array([100, 150, 300])
    np.testing.assert_allclose(both.seconds(["push", "tag"], frames), [3.0, 4.5, np.nan])
    np.testing.assert_allclose(single.seconds(["push"], frames), [3.0, 4.5, 9.0])
    np.testing.assert_allclose(single.seconds(["push", "tag"], frames), [6.0, 9.0, 18.0])
    (tmp_path / "tag_1" / "name" / "scalars" / "timers_total_time.csv").unlink()
    (comparison, _) = compared(tmp_path)
    _, single = comparison.methods
    assert single.seconds(["push", "tag"], frames) is None
    assert single.frames("teacher_frames", "push") == 300


def test_single_task_runs_are_one_row(tmp_path):
    write_results(tmp_path, {"mkt": SCORES["mkt"]})
    for seed in range(2):
        for task in ("push", "tag"):
            content = summary("single", seed, finished=True, tasks={task: row(task, 0.5 + seed)})
            write_run(
                tmp_path / f"single_{task}_{seed}", content, evaluations({task: [0.0, 1.0]}, seed)
            )
    comparison, remarks = compared(tmp_path)
    assert remarks == []
    single = comparison.methods[1]
    assert list(single.outcomes) == [0, 1]
    np.testing.assert_allclose(comparison.mean_scores(single, "best"), [0.5, 1.5])
    assert comparison.score_curves(single)[1].shape == (2, 2, 2)


def test_unfinished_runs_do_not_mix_with_finished_ones(tmp_path):
    write_results(tmp_path)
    write_run(tmp_path / "a", summary("mkt", 3), evaluations({"push": [0.0], "tag": [0.0]}, 3))
    write_run(tmp_path / "b", summary("new", 0), evaluations({"push": [0.2], "tag": [0.0]}))
    comparison, _ = compared(tmp_path)
    mkt, new, _ = comparison.methods
    assert (mkt.label, list(mkt.outcomes)) == ("mkt", [0, 1, 2])
    assert new.label == "new (unfinished)"
    assert comparison.scores(new, "best") is None
    assert np.isnan(new.frames("frames"))
    np.testing.assert_allclose(comparison.score_curves(new)[1], [[[0.2], [0.0]]])


def test_curves_keep_the_evaluations_that_all_seeds_have(tmp_path):
    for seed, scores in enumerate(([0.0, 1.0, 1.0], [0.0, 0.5])):
        content = summary(seed=seed, finished=True, tasks={"push": row("push", 1.0)})
        write_run(tmp_path / str(seed), content, evaluations({"push": scores}, seed))
    comparison, _ = compared(tmp_path)
    frames, returns = comparison.curve(comparison.methods[0], "push")
    np.testing.assert_array_equal(frames, [100, 200])
    np.testing.assert_array_equal(returns, [[-30, -10], [-30, -20]])


def test_what_is_uneven_is_said(tmp_path):
    for name, changes in (("a", {}), ("b", {}), ("c", {"seed": 1, "max_frames": 800})):
        tasks = {"push": row("push", 1.0 if name == "a" else 0.0)}
        write_run(tmp_path / name, summary(**{"finished": True, "tasks": tasks, **changes}))
    comparison, remarks = compared(tmp_path)
    root = tmp_path.name
    assert remarks[::-1] == [
        "mkt on multitask/two: runs of different budgets (400, 800 frames)",
        f"mkt, seed 0: {root}/a (400 frames) counts, not {root}/b (400 frames); tasks: push",
    ]
    np.testing.assert_allclose(comparison.scores(comparison.methods[0], "best"), [[1.0, 0.0]])


def test_of_a_seeds_runs_the_longest_counts(tmp_path):
    """Whatever the folders are called, for the levels too, and apart for every task of a row."""
    for name, frames, score, random in (("a", 500, 0.2, -90.0), ("b", 15_000, 1.0, -30.0)):
        tasks = {task: row(task, score) for task in ("push", "tag")}
        tasks["push"]["random"]["mean"] = random
        if name == "a":
            tasks["extra"] = row("push", 0.5)
        content = summary(finished=True, max_frames=frames, tasks=tasks)
        write_run(tmp_path / name, content, evaluations({"push": [score]}))
    write_run(tmp_path / "c", summary(max_frames=10**6), evaluations({"push": [0.0] * 200}))
    comparison, remarks = compared(tmp_path)
    root, (method,) = tmp_path.name, comparison.methods
    assert method.values("best", "push") == pytest.approx([-10.0])
    assert comparison.random == {"push": -30.0, "tag": 0.0, "extra": -30.0}
    assert remarks[0] == (
        f"mkt, seed 0: {root}/b (15,000 frames) counts, not {root}/a (500 frames); tasks: push, tag"
    )
    assert method.max_frames == 15_000  # not those of the run that does not count
    for number, length in enumerate((1, 3, 2)):  # unfinished ones by their evaluations
        content = summary("new", max_frames=9_000 - number)
        write_run(tmp_path / f"new_{number}", content, evaluations({"push": [0.0] * length}))
    new = compared(tmp_path)[0].methods[1]
    np.testing.assert_array_equal(new.outcomes[0]["push"].curve[0], [100, 200, 300])
    assert new.max_frames == 8_999


def test_labels_order_and_name_the_methods(tmp_path):
    write_results(tmp_path, {key: SCORES["mkt"] for key in ("a", "mkt", "z")})
    assert [m.key for m in compared(tmp_path)[0].methods] == ["mkt", "a", "z"]
    labels = Labels(methods={"z": "Zed", "mkt": "MKT"}, notes={"z": "own"})
    comparison, _ = compared(tmp_path, labels)
    assert [m.name for m in comparison.methods] == ["Zed", "MKT", "a"]
    assert [m.note for m in comparison.methods] == ["own", "", ""]
    assert [m.key for m in comparison.only(["a"]).methods] == ["z", "a"]


def test_tasks_without_levels_have_no_scores(tmp_path):
    """Without teachers, or with teachers that are no better than chance."""
    tasks = {"push": row("push", 1.0, taught=False), "tag": row("tag", 1.0)}
    tasks["tag"]["teacher"] = tasks["tag"]["random"]
    write_run(tmp_path / "a", summary(finished=True, tasks=tasks), evaluations({"push": [0.0]}))
    comparison, _ = compared(tmp_path)
    (method,) = comparison.methods
    assert comparison.scored == ()
    assert comparison.scores(method, "best") is None
    assert comparison.score_curves(method) is None
    assert len(comparison.mean_scores(method, "best")) == 0
    assert comparison.curve(method, "push") is not None


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_folders_names_do_not_matter(tmp_path, order):
    expected, _ = compared(write_results(tmp_path / "expected"))
    for method, seeds in SCORES.items():
        for place, seed in enumerate(order):
            source = tmp_path / "expected" / "two" / method / f"seed_{seed}"
            (tmp_path / "moved").mkdir(exist_ok=True)
            source.rename(tmp_path / "moved" / f"{place}_{method}")
        assert len(seeds) == len(order)
    moved, _ = compared(tmp_path / "moved")
    for before, after in zip(expected.methods, moved.methods):
        np.testing.assert_array_equal(expected.scores(before, "best"), moved.scores(after, "best"))
