import json
from io import StringIO

import numpy as np
import pytest
import torch
from benchmarl.algorithms import VdnConfig
from rich.console import Console

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.best_policy import BestPolicy
from benchmarl_mkt.evaluation import play, teachers_policy
from benchmarl_mkt.reporting.plots import plot_learning_curves
from benchmarl_mkt.reporting.runs import read_curves
from benchmarl_mkt.reporting.summary import EPISODES, describe, summarise
from benchmarl_mkt.reporting.tables import comparison_table, winner
from tests.helpers import make_experiment, task_set
from tests.toys import toy

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


@pytest.mark.parametrize(
    ("student", "expected"),
    [((-28.4, -20.0), "student"), ((-40.0, -31.6), "teacher"), ((-40.0, -30.0), "tie")],
)
def test_the_winner_is_who_is_apart(student, expected):
    row = {**ROW, "student": {"mean": sum(student) / 2, "low": student[0], "high": student[1]}}
    assert winner(row) == expected
    assert winner(UNTAUGHT) == "-"


LABELS = {"set": "multitask/custom", "method": "mkt", "overrides": ["algorithm=mkt"]}


def run_summary(folder, task, algorithm):
    """A finished run and its summary."""
    best = BestPolicy()
    experiment = make_experiment(folder, task, algorithm, callbacks=[best])
    summary = describe(experiment, **LABELS)
    written = json.loads((experiment.folder_name / "summary.json").read_text())
    assert written == summary
    assert (summary["finished"], summary["max_frames"], summary["tasks"]) == (False, 100, {})
    experiment.run()
    summary = summarise(experiment, summary, best)
    assert summary["finished"]
    assert json.loads((experiment.folder_name / "summary.json").read_text()) == summary
    return experiment, summary


def test_a_summary_scores_the_runs_student_and_teachers(teachers, tmp_path):
    experiment, summary = run_summary(tmp_path, teachers.task, teachers.config())
    found = experiment.algorithm.teachers
    returns = play(teachers.task, teachers_policy(found), EPISODES, 20_000).returns
    for name, row in summary["tasks"].items():
        assert row["teacher"]["mean"] == pytest.approx(returns[name].mean().item(), rel=1e-4)
        assert row["temperature"] == found[name].temperature
        better = row["teacher"]["mean"] - row["random"]["mean"]  # the tiny teachers may be worse
        expected = (row["student"]["mean"] - row["random"]["mean"]) / better if better > 0 else None
        assert row["score"] == (None if expected is None else pytest.approx(expected))
        assert (row["frames"], row["teacher_frames"]) == (100, 100)


@pytest.mark.parametrize(
    "algorithm",
    [MktConfig(annealing={"start": 1.0, "end": 1.0, "fraction": 1.0}), VdnConfig.get_from_yaml()],
    ids=["mkt", "stock"],
)
def test_a_summary_without_teachers(algorithm, tmp_path):
    _, summary = run_summary(tmp_path, task_set(toy("one", length=5)), algorithm)
    row = summary["tasks"]["one"]
    assert "teacher" not in row
    assert row["frames"] == 100
    Console(file=StringIO()).print(comparison_table(summary))


def test_the_best_policy_is_scored_afresh(teachers, tmp_path):
    """Its weights play ten times the episodes; the final policy's weights are back afterwards."""
    best = BestPolicy()
    experiment = make_experiment(
        tmp_path, teachers.task, teachers.config(), lr=0.1, max_n_frames=300, callbacks=[best]
    )
    summary = describe(experiment, **LABELS)
    experiment.run()
    final = {k: v.clone() for k, v in experiment.policy.state_dict().items()}
    summary = summarise(experiment, summary, best)
    after = experiment.policy.state_dict()
    assert all(torch.equal(final[name], after[name]) for name in final)
    assert (summary["absolute_episodes"], summary["best_at_frames"]) == (20, best.best.frames)
    experiment.policy.load_state_dict(best.best.weights)
    returns = play(teachers.task, experiment.policy, 20, 30_000).returns
    (run,) = experiment.logger.json_writer.data["multitask"]["custom"]["mkt"].values()
    assert json.loads(experiment.logger.json_writer.path.read_text())["multitask"]
    for name, row in summary["tasks"].items():
        assert row["best"]["mean"] == pytest.approx(returns[name].mean().item(), rel=1e-4)
        assert run["absolute_metrics"][f"{name}_return"] == [pytest.approx(row["best"]["mean"])]
