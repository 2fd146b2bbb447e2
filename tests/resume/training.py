"""Short trainings that can be ended at a given moment, and what they leave behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
from benchmarl.experiment import Experiment
from benchmarl.experiment.callback import Callback

from benchmarl_mkt.training.best_policy import BestPolicy
from benchmarl_mkt.training.resume import ResumeCallback, in_folder, run
from benchmarl_mkt.training.resume.checkpoint import latest_checkpoint
from tests.helpers import small_model, tiny_config
from tests.processes import in_process

# 8 iterations of 50 frames; evaluated at the first, then at every second one.
EVERY = 0.0  # seconds between checkpoints
SHORT = {"max_n_frames": 400, "evaluation_interval": 100, "loggers": ["csv"]}


class SendSignal(Callback):
    """Sends ``number`` to this process when the updates of iteration ``iteration`` are done."""

    def __init__(self, number: int, iteration: int):
        super().__init__()
        self.number, self.iteration = number, iteration

    def __getstate__(self):
        return {"number": self.number, "iteration": self.iteration}

    def on_train_end(self, training_td, group):
        if self.experiment.n_iters_performed == self.iteration:
            os.kill(os.getpid(), self.number)


def build(folder: Path, task, algorithm, *callbacks: Callback, **changes: Any) -> Experiment:
    """An experiment in ``folder``, saved after every iteration."""
    folder.mkdir(parents=True, exist_ok=True)
    return Experiment(
        task=task,
        algorithm_config=algorithm,
        model_config=small_model(),
        seed=3,
        config=tiny_config(folder, **{**SHORT, **changes}, restore_file=in_folder(folder / "run")),
        callbacks=[BestPolicy(), ResumeCallback(every=EVERY), *callbacks],
    )


def train(*arguments, **changes) -> Experiment:
    """Build an experiment (see :func:`build`) and run it to its end, from where it was."""
    experiment = build(*arguments, **changes)
    run(experiment)
    return experiment


def killed(iteration: int, *arguments, **changes) -> None:
    """Train in a process that is killed in iteration ``iteration``."""
    kill = SendSignal(signal.SIGKILL, iteration)
    assert in_process(lambda: train(*arguments, kill, **changes)) == -signal.SIGKILL


def saved(folder: Path) -> dict[str, Any]:
    """The state in the newest checkpoint below ``folder``."""
    return latest_checkpoint(folder / "run" / "resume").state


def iteration_saved(folder: Path) -> int:
    return saved(folder)["state"]["n_iters_performed"]


def results(folder: Path) -> dict[str, str]:
    """The text of every result file; of wall-clock times the steps alone."""
    found = {}
    for path in sorted([*folder.rglob("*.csv"), *folder.rglob("*.json")]):
        text = path.read_text()
        if "timers_" in path.name:
            text = "\n".join(line.split(",")[0] for line in text.splitlines())
        found[str(path.relative_to(folder))] = text
    return found


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two states differ, apart from wall-clock time, trajectory numbers and devices."""
    if path.endswith(("/total_time", "/traj_ids", "/__device")):
        return []
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"{path}: {a.keys() ^ b.keys()}"]
        return [where for key in a for where in differences(a[key], b[key], f"{path}/{key}")]
    if isinstance(a, list | tuple):
        if len(a) != len(b):
            return [f"{path}: {len(a)} and {len(b)} entries"]
        return [d for i, (x, y) in enumerate(zip(a, b)) for d in differences(x, y, f"{path}/{i}")]
    if isinstance(a, torch.Tensor):
        # By their bytes: rows of a buffer that are not in use yet may hold anything, also nan.
        same = (a.dtype, a.shape) == (
            b.dtype,
            b.shape,
        ) and a.numpy().tobytes() == b.numpy().tobytes()
    else:
        same = a == b or (a != a and b != b)
    return [] if same else [path]


def assert_the_same(a: Path, b: Path) -> None:
    """Two trainings have ended with the same state and files."""
    assert differences(saved(a), saved(b)) == []
    expected, found = results(a), results(b)
    assert len(expected) > 10
    assert found == expected
