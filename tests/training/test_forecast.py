"""A training says in time how long it takes."""

import logging
import re

import pytest
from benchmarl.algorithms import IppoConfig, VdnConfig

from benchmarl_mkt.training.forecast import Forecast, duration
from tests.helpers import PUSH, SPEAKER, make_experiment, task_set

LINE = "frames of each task: about N seconds to go"


class Counting(Forecast):
    """Counts the evaluations that come after the line."""

    expected, seen = 0, 0

    def on_batch_collected(self, batch):
        told = self._told
        super().on_batch_collected(batch)
        if self._told and not told:
            self.expected, self.seen = self.evaluations(), 0

    def on_evaluation_end(self, rollouts):
        super().on_evaluation_end(rollouts)
        self.seen += 1


@pytest.mark.parametrize(
    ("algorithm", "changes", "line", "evaluations"),
    [
        (VdnConfig, {}, f"100 {LINE}, evaluations included", 1),
        (IppoConfig, {"evaluation_interval": 150, "max_n_frames": 350},
         f"350 {LINE}, evaluations included", 2),
        (VdnConfig, {"evaluation_interval": 200, "max_n_frames": 150}, f"150 {LINE}", 0),
        (VdnConfig, {"evaluation": False}, f"100 {LINE}", 0),
    ],
)  # fmt: skip
def test_a_run_says_once_what_is_left(tmp_path, caplog, algorithm, changes, line, evaluations):
    caplog.set_level(logging.INFO)
    forecast, task = Counting(after=0.0), task_set(PUSH, SPEAKER)
    config = algorithm.get_from_yaml()
    make_experiment(tmp_path, task, config, callbacks=[forecast], **changes).run()
    (said,) = (
        r.getMessage() for r in caplog.records if r.name == "benchmarl_mkt.training.forecast"
    )
    assert re.sub(r"about \d+", "about N", said) == line
    assert forecast.seen == forecast.expected == evaluations


def test_a_run_that_was_stopped_has_timed_no_evaluation(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    config, task = VdnConfig.get_from_yaml(), task_set(PUSH)
    begun = make_experiment(tmp_path, task, config, max_n_frames=50, checkpoint_at_end=True)
    begun.run()
    (saved,) = (begun.folder_name / "checkpoints").iterdir()
    changes = {"max_n_frames": 250, "evaluation_interval": 150, "restore_file": str(saved)}
    make_experiment(tmp_path, task, config, callbacks=[Forecast(after=0.0)], **changes).run()
    assert "to go, evaluations not counted" in caplog.text


def test_a_run_that_is_over_before_says_nothing(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    make_experiment(
        tmp_path, task_set(PUSH), VdnConfig.get_from_yaml(), callbacks=[Forecast()]
    ).run()
    assert not [r for r in caplog.records if r.name == "benchmarl_mkt.training.forecast"]


def test_a_time_is_written_as_it_is_said():
    said = [duration(seconds) for seconds in (40, 89, 360, 5399, 9000)]
    assert said == ["40 seconds", "89 seconds", "6 minutes", "90 minutes", "2.5 hours"]
