import json
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.evaluation import play, teachers_policy
from benchmarl_mkt.reporting.plots import plot_learning_curves, read_curves
from benchmarl_mkt.reporting.summary import EPISODES, summarise
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
    "title": "A title",
    "seed": 4,
    "evaluation_episodes": 100,
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
    for part in ("A title, seed 4", "push", "tag", "-80.00", "-30.00", "-25.00", "1.10"):
        assert part in shown
    for part in ("12,345", "6,789", "271", "student"):
        assert part in shown


@pytest.mark.parametrize(
    ("student", "expected"),
    [((-28.4, -20.0), "student"), ((-40.0, -31.6), "teacher"), ((-40.0, -30.0), "tie")],
)
def test_the_winner_is_who_is_apart(student, expected):
    row = {**ROW, "student": {"mean": sum(student) / 2, "low": student[0], "high": student[1]}}
    assert winner(row) == expected
    assert winner(UNTAUGHT) == "-"


def test_a_summary_scores_the_runs_student_and_teachers(teachers, tmp_path):
    experiment = make_experiment(tmp_path, teachers.task, teachers.config())
    experiment.run()
    summary = summarise(experiment, "Title")
    assert json.loads((experiment.folder_name / "summary.json").read_text()) == summary
    found = experiment.algorithm.teachers
    returns = play(teachers.task, teachers_policy(found), EPISODES, 20_000)
    for name, row in summary["tasks"].items():
        assert row["teacher"]["mean"] == pytest.approx(returns[name].mean().item(), rel=1e-4)
        assert row["temperature"] == found[name].temperature
        better = row["teacher"]["mean"] - row["random"]["mean"]  # the tiny teachers may be worse
        expected = (row["student"]["mean"] - row["random"]["mean"]) / better if better > 0 else None
        assert row["score"] == (None if expected is None else pytest.approx(expected))
        assert (row["frames"], row["teacher_frames"]) == (100, 100)


def test_a_summary_without_teachers(tmp_path):
    alone = MktConfig(annealing={"start": 1.0, "end": 1.0, "fraction": 1.0})
    experiment = make_experiment(tmp_path, task_set(toy("one", length=5)), alone)
    experiment.run()
    row = summarise(experiment, "Title")["tasks"]["one"]
    assert "teacher" not in row
    assert row["episodes"] == 20
    Console(file=StringIO()).print(comparison_table({**SUMMARY, "tasks": {"one": row}}))
