import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarl.algorithms import VdnConfig
from benchmarl.eval_results import load_and_merge_json_dicts
from rich.console import Console
from scipy import stats

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.environments import MultiTaskClass, MultiTaskTask
from benchmarl_mkt.reporting.labels import Labels
from benchmarl_mkt.reporting.plots import plot_learning_curves
from benchmarl_mkt.reporting.report import write_report
from benchmarl_mkt.reporting.runs import read_curves, read_runs
from benchmarl_mkt.reporting.tables import comparison_table, winner
from benchmarl_mkt.statistics import Interval
from benchmarl_mkt.teams.evaluation import greedy_policy, play
from benchmarl_mkt.teams.export import Outputs, teams_of
from benchmarl_mkt.teams.load import load_team
from benchmarl_mkt.training.best_policy import BestPolicy
from benchmarl_mkt.training.machine import machine_of
from benchmarl_mkt.training.summary import begin_summary, summarise
from tests.helpers import make_experiment, task_set
from tests.toys import toy

ALONE = MktConfig(annealing={"start": 1.0, "end": 1.0, "fraction": 1.0})
ROW = {
    "random": {"mean": -80.0, "low": -85.0, "high": -75.0},
    "teacher": {"mean": -30.0, "low": -31.5, "high": -28.5},
    "student": {"mean": -25.0, "low": -26.25, "high": -23.75},
    "score": 1.1,
    "teacher_frames": 12_345,
    "frames": 6_789,
    "episodes": 271,
    "temperature": 0.02,
}
UNTAUGHT = {k: ROW[k] for k in ("random", "student", "frames", "episodes")}
SUMMARY = {
    "method": "a_method",
    "set": "multitask/two",
    "seed": 4,
    "final_episodes": 100,
    "absolute_episodes": 1000,
    "tasks": {"push": ROW, "tag": UNTAUGHT},
}
RUN = {
    "multitask": {
        "custom": {
            "mkt": {
                "seed_4": {
                    "absolute_metrics": {"push_return": [3.0]},
                    "step_2": {
                        "step_count": 200, "push_return": [3.0, 5.0], "tag_return": [1.0, 1.0],
                        "return": [2.0, 3.0],
                    },
                    "step_1": {
                        "step_count": 100, "push_return": [1.0, 2.0], "tag_return": [0.0, 9.0],
                        "return": [0.5, 5.5],
                    },
                }
            }
        }
    }
}  # fmt: skip


@pytest.fixture
def curves(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps(RUN))
    return path


def test_curves_are_read_in_order_of_frames(curves):
    found = read_curves(curves)
    assert set(found) == {"push", "tag"}
    frames, returns = found["push"]
    np.testing.assert_array_equal(frames, [100, 200])
    np.testing.assert_array_equal(returns, [[1.0, 2.0], [3.0, 5.0]])


def test_the_picture_is_a_png(curves, tmp_path):
    out = plot_learning_curves(curves, SUMMARY, tmp_path / "curves.png")
    assert out == tmp_path / "curves.png"
    assert out.read_bytes().startswith(b"\x89PNG")
    assert out.stat().st_size > 5000


def test_the_table_tells_everything():
    text = StringIO()
    Console(file=text, width=200).print(comparison_table(SUMMARY))
    shown = text.getvalue()
    for part in (
        "a_method on multitask/two, seed 4",
        "push",
        "tag",
        "-80.00",
        "-30.00",
        "-25.00",
        "1.10",
    ):
        assert part in shown
    for part in ("12,345", "6,789", "student"):
        assert part in shown


def shown(row) -> list[str]:
    """The cells of a row of the table."""
    table = comparison_table({**SUMMARY, "tasks": {"push": row}})
    return [next(iter(column.cells)) for column in table.columns]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.1, 3.0, "student"), (-3.0, -0.1, "teacher"), (-0.1, 3.0, "tie")],
)
def test_the_winner_is_who_is_ahead_in_the_same_episodes(low, high, expected):
    lead = {"mean": (low + high) / 2, "low": low, "high": high}
    assert winner(Interval(**lead)) == expected
    assert shown({**ROW, "lead": lead})[6] == expected
    assert shown(ROW)[6] == shown(UNTAUGHT)[6] == "-"  # older summaries do not know


def test_wins_stand_below_the_returns_by_their_ends():
    """19 of 20: 0.95 from 0.76 to 0.99. Older summaries have t intervals, evenly around it."""
    wins = {"mean": 0.95, "low": 0.763869, "high": 0.991119}
    lead = {"mean": 0.5, "low": -0.5, "high": 1.5}
    row = {**ROW, "student_win_rate": wins, "teacher_win_rate": {**wins, "low": 0.85, "high": 1.05}}
    row |= {"lead": lead, "lead_win_rate": {"mean": 0.1, "low": 0.02, "high": 0.15}}
    assert shown(row) == [
        "push", "-80.00 ± 5.00", "-30.00 ± 1.50\n0.95 ± 0.10", "-25.00 ± 1.25\n0.95 [0.76, 0.99]",
        "-", "1.10", "tie\nstudent", "12,345 + 6,789",
    ]  # fmt: skip


@pytest.fixture
def taught(teachers):
    """Their task set, scored on few episodes."""
    return MultiTaskClass("CUSTOM", {**teachers.task.config, "final_episodes": 60})


def test_leads_are_those_of_the_same_episodes(taught, teachers, tmp_path):
    """A pair may be far apart where the two intervals overlap."""
    experiment, summary = run_summary(tmp_path, taught, teachers.config())
    players = experiment.policy, greedy_policy(experiment.algorithm.teachers)
    student, teacher = (play(taught, p, 60, 20_000).returns for p in players)
    for name, row in summary["tasks"].items():
        difference = (student[name] - teacher[name]).double().numpy()
        expected = stats.ttest_1samp(difference, 0.0).confidence_interval()
        assert row["lead"]["mean"] == pytest.approx(difference.mean(), rel=1e-4)
        ends = row["lead"]["low"], row["lead"]["high"]
        assert ends == pytest.approx((expected.low, expected.high), rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "evaluates"),
    [
        ({"create_json": False, "loggers": ["csv"]}, True),
        ({"create_json": False, "loggers": []}, False),  # BenchMARL evaluates nothing, silently
        ({"evaluation": False}, False),
    ],
)
def test_a_run_without_its_evaluations_in_a_file(changes, evaluates, tmp_path):
    best = BestPolicy()
    task = task_set(toy("one", length=5), final_episodes=30)
    experiment = make_experiment(tmp_path, task, ALONE, callbacks=[best], **changes)
    summary = begin_summary(experiment, **LABELS)
    experiment.run()
    summary = summarise(experiment, summary, best)
    assert summary["evaluations"] is None
    assert summary["absolute_episodes"] == (30 if evaluates else None)
    assert ("best" in summary["tasks"]["one"]) == evaluates
    text = StringIO()
    Console(file=text, width=250).print(comparison_table(summary))
    assert ("none, no evaluations" in " ".join(text.getvalue().split())) != evaluates
    (run,), damaged = read_runs([tmp_path])
    assert (damaged, run.finished, run.frames) == ([], True, 100)
    assert run.problems == (
        "no evaluations were kept (experiment.create_json or evaluation: false)",
    )
    (tmp_path / "report").mkdir()
    tables, _ = write_report([run], [], Labels(), tmp_path / "report")
    assert [table.name for table in tables][:1] == ["returns" if evaluates else "final"]


LABELS = {"method": "mkt", "overrides": ["algorithm=mkt"]}


def run_summary(folder, task, algorithm):
    """A finished run and its summary."""
    best = BestPolicy()
    experiment = make_experiment(folder, task, algorithm, callbacks=[best])
    summary = begin_summary(experiment, **LABELS)
    written = json.loads((experiment.folder_name / "summary.json").read_text())
    assert written == summary
    assert (summary["finished"], summary["max_frames"], summary["tasks"]) == (False, 100, {})
    experiment.run()
    summary = summarise(experiment, summary, best)
    assert summary["finished"]
    assert json.loads((experiment.folder_name / "summary.json").read_text()) == summary
    return experiment, summary


def test_a_summary_scores_the_runs_student_and_teachers(taught, teachers, tmp_path):
    experiment, summary = run_summary(tmp_path, taught, teachers.config())
    found = experiment.algorithm.teachers
    returns = play(taught, greedy_policy(found), 60, 20_000).returns
    for name, row in summary["tasks"].items():
        assert row["teacher"]["mean"] == pytest.approx(returns[name].mean().item(), rel=1e-4)
        assert row["temperature"] == found[name].temperature
        better = row["teacher"]["mean"] - row["random"]["mean"]  # the tiny teachers may be worse
        expected = (row["student"]["mean"] - row["random"]["mean"]) / better if better > 0 else None
        assert row["score"] == (None if expected is None else pytest.approx(expected))
        assert (row["frames"], row["teacher_frames"]) == (100, 100)


def test_reports_read_the_time_that_a_run_took(tmp_path):
    """The logger's clock ends with the summary's seconds, and is known at each evaluation."""
    task = task_set(toy("one", length=5), final_episodes=30)
    experiment = make_experiment(tmp_path, task, ALONE, max_n_frames=300, loggers=["csv"])
    summary = begin_summary(experiment, **LABELS)
    assert not {"seconds", "machine"} & set(summary)
    experiment.run()
    summary = summarise(experiment, summary)
    (run,), _ = read_runs([tmp_path])
    outcome = run.tasks["one"]
    timing, (at, _) = outcome.timing, outcome.curve
    assert timing.clock[0].tolist() == [50, 100, 150, 200, 250, 300]
    assert set(at) <= set(timing.clock[0])
    assert timing.seconds == summary["seconds"] == pytest.approx(timing.clock[1][-1], abs=0.06)
    assert timing.seconds > 0
    assert timing.machine == summary["machine"] == machine_of(experiment)


@pytest.mark.parametrize(
    "algorithm",
    [ALONE, VdnConfig.get_from_yaml()],
    ids=["mkt", "stock"],
)
def test_a_summary_without_teachers(algorithm, tmp_path):
    _, summary = run_summary(tmp_path, task_set(toy("one", length=5), final_episodes=40), algorithm)
    row = summary["tasks"]["one"]
    assert summary["final_episodes"] == summary["absolute_episodes"] == 40
    assert "teacher" not in row
    assert row["frames"] == 100
    Console(file=StringIO()).print(comparison_table(summary))


def test_the_best_policy_is_scored_afresh(taught, teachers, tmp_path):
    """Its weights play ten times the episodes; the final policy's weights are back afterwards."""
    best = BestPolicy()
    experiment = make_experiment(
        tmp_path, taught, teachers.config(), lr=0.1, max_n_frames=300, callbacks=[best]
    )
    summary = begin_summary(experiment, **LABELS)
    experiment.run()
    final = {k: v.clone() for k, v in experiment.policy.state_dict().items()}
    summary = summarise(experiment, summary, best, tmp_path / "team")
    after = experiment.policy.state_dict()
    assert all(torch.equal(final[name], after[name]) for name in final)
    assert (summary["absolute_episodes"], summary["best_at_frames"]) == (60, best.best.frames)
    experiment.policy.load_state_dict(best.best.weights)
    returns = play(taught, experiment.policy, 60, 30_000).returns
    ((by_method,),) = [tasks.values() for tasks in experiment.logger.json_writer.data.values()]
    (run,) = by_method["mkt"].values()
    assert json.loads(experiment.logger.json_writer.path.read_text())["multitask"]
    for name, row in summary["tasks"].items():
        assert row["best"]["mean"] == pytest.approx(returns[name].mean().item(), rel=1e-4)
        assert run["absolute_metrics"][f"{name}_return"] == [pytest.approx(row["best"]["mean"])]
    # The team's folder has the weights and the scores of those episodes: nothing is played again.
    team, outputs = load_team(tmp_path / "team"), Outputs()
    play(taught, greedy_policy(teams_of(experiment), outputs), 60, 30_000)
    for name, row in summary["tasks"].items():
        metadata = team[name].metadata
        assert metadata["score"] == {**row["best"], "episodes": 60}
        assert metadata["random"] == {**row["random"], "episodes": summary["final_episodes"]}
        assert metadata["temperature"] == pytest.approx(outputs.temperature(name, "values"))
        best_weights = teams_of(experiment)[name].model.state_dict()
        assert all(
            torch.equal(v, best_weights[k]) for k, v in team[name].model.state_dict().items()
        )


ONE, TWO = toy("one", length=5), toy("two", length=4)


def different_runs() -> dict[str, tuple]:
    """What must stay apart: task set, algorithm, method."""
    vdn, both = VdnConfig.get_from_yaml(), task_set(ONE, TWO)
    return {
        "set": (both, vdn, None),
        "other set": (task_set(ONE, toy("two", length=6)), vdn, None),
        "one task": (task_set(ONE, TWO, only="one"), vdn, None),
        "the other": (task_set(ONE, TWO, only="two"), vdn, None),
        "mean": (task_set(ONE, TWO, reward="mean"), vdn, None),
        "algorithm": (both, ALONE, None),
        "method": (both, ALONE, "mkt_vdn"),
        "method of the other": (both, vdn, "vdn_ours"),
    }


def test_benchmarls_loader_keeps_different_runs_apart_and_merges_seeds(tmp_path):
    """Without a method they are runs of plain BenchMARL, as python -m benchmarl.run does them."""
    files = []
    for name, (task, algorithm, method) in different_runs().items():
        for seed in range(2):
            folder = tmp_path / name / str(seed)
            folder.mkdir(parents=True)
            experiment = make_experiment(folder, task, algorithm, seed=seed)
            if method is not None:
                begin_summary(experiment, method=method, overrides=[])
            experiment.run()
            files.append(str(experiment.logger.json_writer.path))
    assert len(files) == 2 * len(different_runs())
    merged = load_and_merge_json_dicts(files)
    (tasks,) = merged.values()
    seeds = [list(run) for methods in tasks.values() for run in methods.values()]
    assert seeds == [["seed_0", "seed_1"]] * len(different_runs())
    assert [set(methods) for methods in tasks.values() if len(methods) > 1] == [
        {"vdn", "mkt", "mkt_vdn", "vdn_ours"}
    ]
    for path in files:  # each run's own evaluations are in there, unmixed
        frames, returns = next(iter(read_curves(Path(path)).values()))
        assert (len(frames), returns.shape) == (2, (2, 2))


def test_reports_keep_different_sets_apart_and_single_tasks_beside_their_set(tmp_path):
    sets = []
    for number, name in enumerate(("set", "one task", "mean", "other set")):
        (tmp_path / str(number)).mkdir()
        experiment = make_experiment(tmp_path / str(number), *different_runs()[name][:2])
        sets.append(begin_summary(experiment, **LABELS)["set"])
    assert sets[0] == sets[1] == sets[2] != sets[3]
    assert all(set_.startswith("multitask/custom_one_two_") for set_ in sets)


def test_shipped_sets_are_called_as_their_file():
    shipped = MultiTaskTask.MPE.get_from_yaml()
    assert (shipped.name, shipped.set_name) == ("MPE", "MPE")
    config = {**shipped.config, "only": "simple_push", "final_episodes": 7}
    alone = MultiTaskClass("MPE", config)
    assert (alone.name, alone.set_name) == ("MPE_simple_push", "MPE")
    without_id = MultiTaskClass("MPE", {**shipped.config, "agent_id": False})
    assert (without_id.name, without_id.set_name) == ("MPE_agent_id_False", "MPE")
    names = {MultiTaskClass("CUSTOM", {"tasks": tasks}).name for tasks in (
        [ONE], [TWO], [ONE, TWO], [TWO, ONE], [{**ONE, "config": {"length": 9}}],
        [{"task": ONE["task"], "name": "one", "config": {"length": 5}}],
    )}  # fmt: skip
    assert len(names) == 5  # the last is the first
    many = [toy(f"a_long_name_of_a_team_{i}") for i in range(20)]
    assert len(task_set(*many).name) < 90  # a folder's name has it
