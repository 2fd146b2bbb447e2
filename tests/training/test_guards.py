"""Trainings that break stop with the task, the moment and the last good checkpoint named."""

import multiprocessing
import os
import resource
import signal
from types import SimpleNamespace

import pytest
import torch
from benchmarl.algorithms import IqlConfig, QmixConfig
from benchmarl.experiment.callback import Callback
from tensordict import TensorDict

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.training.monitors import GuardCallback, TrainingError
from tests.helpers import PUSH, SPEAKER, task_set
from tests.processes import in_process
from tests.resume.training import iteration_saved, train
from tests.toys import DEFAULTS, ToyTask, toy

ALONE = MktConfig(annealing={"start": 1.0, "end": 1.0, "fraction": 1.0})
JOINT = MktConfig(annealing={"start": 1.0, "end": 1.0, "fraction": 1.0}, update="joint")
# Episodes of 25 steps, as long as the batches; 60 steps are in the third one.
GOOD = toy("good", length=25, limit=25)


def breaking(how: str, limit: int = 25):
    return task_set(GOOD, toy("bad", length=25, limit=limit, breaks=[60, how]))


@pytest.mark.parametrize("algorithm", [ALONE, QmixConfig.get_from_yaml()], ids=["mkt", "qmix"])
def test_an_observation_that_is_not_finite(algorithm, tmp_path):
    folder = tmp_path / "run" / "resume"
    with pytest.raises(
        TrainingError,
        match=r"^not finite in iteration 2: bad.observation at step 10 of environment 0; "
        rf"last good checkpoint: {folder}/000000002-",
    ):
        train(tmp_path, breaking("nan"), algorithm, GuardCallback(), evaluation=False)
    assert iteration_saved(tmp_path) == 2


@pytest.mark.parametrize(
    ("algorithm", "task"), [(ALONE, "simple_speaker_listener"), (JOINT, "simple_push")]
)
def test_a_loss_that_is_not_finite(algorithm, task, tmp_path):
    with pytest.raises(
        TrainingError, match=rf"^not finite in iteration 0: (td|q_tot) of task '{task}'; last good"
    ):
        train(tmp_path, task_set(PUSH, SPEAKER), algorithm, lr=1e25)


def test_a_loss_of_a_built_in_algorithm(tmp_path):
    with pytest.raises(
        TrainingError, match=r"^not finite in iteration 0: loss of task 'simple_push' in update 1"
    ):
        train(
            tmp_path, task_set(PUSH), QmixConfig.get_from_yaml(), GuardCallback(),
            lr=1e25, adam_eps=1e-30,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("update", "named"),
    [("sequential", "task 'b' in update 3"), ("joint", "tasks 'a', 'b' in update 3")],
)
def test_a_gradient_that_is_not_finite(update, named):
    guard = GuardCallback()
    algorithm = SimpleNamespace(tasks=["a", "b"], config=SimpleNamespace(update=update))
    guard.experiment = SimpleNamespace(algorithm=algorithm, n_iters_performed=5)
    norms = torch.ones(6, 1)
    data = TensorDict({"loss": torch.ones(6, 1), "grad_norm_loss": norms}, [6])
    guard.on_train_end(data, "student")
    norms[3] = torch.inf
    with pytest.raises(
        TrainingError, match=f"^not finite in iteration 5: grad_norm_loss of {named}"
    ):
        guard.on_train_end(data, "student")


def test_an_environment_that_raises(tmp_path):
    """The state before the iteration is saved, although no checkpoint was due."""
    task = breaking("error")
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(
            TrainingError,
            match=r"^collecting episodes of task 'bad' failed: ConnectionError: the game has gone; "
            rf"last good checkpoint: {tmp_path}/run/resume/000000002-",
        ),
    ):
        patch.setattr("tests.resume.training.EVERY", 1e6)
        train(tmp_path, task, ALONE, evaluation=False)
    assert iteration_saved(tmp_path) == 2


def test_an_environment_that_raises_in_an_evaluation(tmp_path):
    with pytest.raises(
        TrainingError,
        match=r"^playing evaluation episodes of task 'bad' failed: ConnectionError: the game has",
    ):
        train(tmp_path, breaking("error", limit=100), ALONE)  # steps of an evaluation


class KillChild(Callback):
    """Kills an environment's process after the first iteration."""

    def __getstate__(self):
        return {}

    def on_train_end(self, training_td, group):
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)


@pytest.mark.slow  # TorchRL waits for the dead process for half a minute
def test_an_environment_whose_process_dies(tmp_path):
    task = ToyTask.SERIAL.get_task(config={**DEFAULTS, "length": 25, "limit": 25})
    with pytest.raises(
        TrainingError,
        match=r"^collecting episodes failed: (Runtime|ConnectionReset|BrokenPipe|EOF)Error: .*; "
        rf"last good checkpoint: {tmp_path}/run/resume/000000001-",
    ):
        train(
            tmp_path, task, IqlConfig.get_from_yaml(), KillChild(),
            parallel_collection=True, evaluation=False,
        )  # fmt: skip


def test_a_full_disk(tmp_path):
    """Here the limit of a process on its files: the checkpoints before remain, and are used."""
    train(tmp_path / "small", task_set(PUSH), ALONE, max_n_frames=100)
    (file, _) = (tmp_path / "small" / "run" / "resume").iterdir()
    limit = file.stat().st_size + 20_000  # of 500,000, when the replay buffer is full

    def job() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with pytest.raises(OSError, match=r"\[Errno 27\] File too large: '.*safetensors'"):
            train(tmp_path, task_set(PUSH), ALONE, max_n_frames=4000)

    assert in_process(job) == 0
    reached = iteration_saved(tmp_path)
    assert 0 < reached < 80
    assert train(tmp_path, task_set(PUSH), ALONE, max_n_frames=4000).n_iters_performed == 80
