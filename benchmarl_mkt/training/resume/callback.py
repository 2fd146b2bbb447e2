"""Exact resume inside BenchMARL's unmodified training loop.

An iteration is over when the loop asks its collector for the next batch: whatever it keeps is up
to date then. There the collector's wrapper saves, and draws new seeds from (seed, iterations
done), so that no random state has to be saved. Environments cannot be saved either; they are
seeded and reset instead wherever a checkpoint may be, in an uninterrupted run too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from benchmarl.experiment import Experiment
from benchmarl.utils import seed_everything
from tensordict import TensorDictBase
from torchrl.collectors import SyncDataCollector
from torchrl.envs import EnvBase

from benchmarl_mkt.training.monitors import RunCallback, environment_error
from benchmarl_mkt.training.resume import signals
from benchmarl_mkt.training.resume.checkpoint import latest_checkpoint, write_checkpoint
from benchmarl_mkt.training.resume.results import AtomicJsonWriter, rewind, sync_results

FOLDER, _ANY = "resume", "latest"  # of a run's checkpoints; in the place of a file's name
SAVE_EVERY = "BENCHMARL_MKT_SAVE_EVERY"
_SECONDS = 30.0
_SHARE = 0.01  # of the time, at most, goes into saving
# Where episodes do not end with the batches, some are cut for a checkpoint: one in so many.
_EPISODES_BETWEEN_CUTS = 20
_KEY = "resume"

logger = logging.getLogger(__name__)


class ResumeCallback(RunCallback):
    """Makes an experiment resumable, exactly.

    Works with any algorithm. MKT adds it by itself; give it to BenchMARL's ``Experiment`` with
    others. Under :func:`benchmarl_mkt.training.resume.run` it saves checkpoints; BenchMARL's own
    ones get what they lack in any case: optimizers, the target networks' counters, the evaluations
    so far.

    Args:
        every: seconds from one checkpoint to the next, else ``$BENCHMARL_MKT_SAVE_EVERY``; by
            default 30, or more if saving would take over 1 % of the time.
    """

    def __init__(self, every: float | None = None):
        super().__init__()
        self.every = every

    @property
    def folder(self) -> Path:
        """Where the run's checkpoints lie."""
        return Path(self.experiment.folder_name) / FOLDER

    def on_setup(self) -> None:
        experiment = self.experiment
        self.saves = False
        self.last_saved: Path | None = None
        self._interval = self.every
        if self.every is None and SAVE_EVERY in os.environ:
            self._interval = float(os.environ[SAVE_EVERY])
        self._cost, self._started = 0.0, time.monotonic()
        if experiment.logger.json_writer is not None:
            experiment.logger.json_writer = AtomicJsonWriter(experiment.logger.json_writer)
        if not experiment.config.collect_with_grad:
            experiment.collector = BoundaryCollector(experiment.collector, self)
        if names_folder(experiment.config.restore_file):
            experiment.config = dataclasses.replace(experiment.config, restore_file=None)

    def on_state_dict(self, state_dict: dict[str, Any]) -> None:
        experiment = self.experiment
        writer = experiment.logger.json_writer
        state_dict[_KEY] = {
            "optimizers": {
                group: {name: optimizer.state_dict() for name, optimizer in optimizers.items()}
                for group, optimizers in experiment.optimizers.items()
            },
            "target_updates": {
                group: getattr(updater, "counter", 0)
                for group, updater in experiment.target_updaters.items()
            },
            # The collector's policy is a copy of it if they are on different devices.
            "policy": experiment.policy.state_dict(),
            "evaluations": {} if writer is None else writer.run_data,
        }

    def on_load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if _KEY not in state_dict:
            logger.warning("the checkpoint was saved without ResumeCallback: optimizers start anew")
            return
        experiment, state = self.experiment, state_dict[_KEY]
        experiment.policy.load_state_dict(state["policy"])
        for group, optimizers in experiment.optimizers.items():
            for name, optimizer in optimizers.items():
                optimizer.load_state_dict(state["optimizers"][group][name])
            if hasattr(experiment.target_updaters[group], "counter"):
                experiment.target_updaters[group].counter = state["target_updates"][group]
        if experiment.logger.json_writer is not None:
            experiment.logger.json_writer.run_data.update(state["evaluations"])

    def start(self) -> None:
        """Save checkpoints from now on; go on from the newest good one, if there is one.

        Raises:
            ValueError: if it is of another experiment.
        """
        obstacle, experiment = _obstacle(self.experiment), self.experiment
        self.saves = obstacle is None
        if obstacle:
            logger.warning("%s: this run cannot be resumed", obstacle)
        elif experiment.config.exclude_buffer_from_checkpoint and not experiment.on_policy:
            logger.warning(
                "experiment.exclude_buffer_from_checkpoint: true: resuming this run will not be "
                "exact, its replay buffer starts empty"
            )
        checkpoint = latest_checkpoint(self.folder)
        if checkpoint is not None:
            try:
                experiment.load_state_dict(checkpoint.state)
            except (LookupError, RuntimeError, ValueError) as error:
                raise ValueError(
                    f"checkpoint {checkpoint.path} does not fit this experiment: {error}; remove "
                    f"{self.folder} to begin anew"
                ) from error
            self.last_saved = checkpoint.path
        rewind(experiment)

    def save(self) -> None:
        """Write a checkpoint of this moment, which must be between two iterations.

        Raises:
            OSError: if it cannot be written.
        """
        began, experiment = time.monotonic(), self.experiment
        sync_results(experiment)
        state = experiment.state_dict()
        self.last_saved = write_checkpoint(self.folder, experiment.n_iters_performed, state)
        self._started = time.monotonic()
        self._cost = self._started - began

    def begin(self) -> None:
        """Prepare the first iteration, perhaps of a run that BenchMARL has reloaded."""
        if not self.saves:
            rewind(self.experiment)
        self._started = time.monotonic()

    def between(self, exact: bool) -> None:
        """Save if it is time, stop if a signal asked to.

        Args:
            exact: whether the next iteration starts from fresh episodes, so that a resumed run
                would go on in the same way.
        """
        if exact and self.saves:
            interval = self._interval
            if interval is None:
                interval = max(_SECONDS, self._cost / _SHARE)
            if time.monotonic() - self._started >= interval or signals.received():
                self.save()
        signals.raise_if_received()

    def finish(self) -> None:
        """Save the final state, if all iterations are done."""
        experiment = self.experiment
        last = experiment.config.get_max_n_iters(experiment.on_policy)
        if self.saves and experiment.n_iters_performed >= last:
            self.save()


class BoundaryCollector:
    """Stands before a TorchRL collector; between BenchMARL's iterations ``callback`` acts.

    What is not named here is passed on to the collector.
    """

    def __init__(self, collector: SyncDataCollector, callback: ResumeCallback):
        self.collector, self.callback = collector, callback
        experiment = callback.experiment
        episodes = _EPISODES_BETWEEN_CUTS * experiment.max_steps
        self._cut_every = -(-episodes // collector.frames_per_batch)  # iterations
        self._failed = False

    def __iter__(self) -> Iterator[TensorDictBase]:
        batches, experiment = iter(self.collector), self.callback.experiment
        self.callback.begin()
        fresh = True
        while True:
            fresh = fresh or experiment.n_iters_performed % self._cut_every == 0
            self.callback.between(fresh)
            if fresh and self.callback.saves:
                self._before = self.collector.state_dict()
            try:
                self._seed(fresh)
                batch = next(batches)
            except StopIteration:
                return
            except Exception as error:
                self._failed = True
                if fresh and self.callback.saves:  # nothing but episodes has changed since
                    self.callback.save()
                signals.raise_if_received()  # it may have reached a game's process first
                raise environment_error("collecting episodes", error) from error
            fresh = bool(batch.get(("next", "done"))[:, -1].all())  # all episodes end with it
            yield batch

    def _seed(self, fresh: bool) -> None:
        """Give the coming iteration random states of its own; with ``fresh``, new episodes."""
        experiment = self.callback.experiment
        done, config = experiment.n_iters_performed, experiment.config
        drawn = np.random.SeedSequence((experiment.seed, done)).generate_state(3)
        everything, training, evaluation = (int(number) >> 2 for number in drawn)
        seed_everything(everything)
        if fresh:
            _seed_environment(self.collector.env, training)
        self.collector.reset_at_each_iter = fresh
        frames = experiment.total_frames + self.collector.requested_frames_per_batch
        if config.evaluation and (done == 0 or frames % config.evaluation_interval == 0):
            _seed_environment(experiment.test_env, evaluation)

    def state_dict(self) -> dict[str, Any]:
        """Return the collector's state; of one that has failed, that before the iteration."""
        return self._before if self._failed else self.collector.state_dict()

    def shutdown(self, *args: Any, **kwargs: Any) -> None:
        """Save the end of a finished run, then shut the collector down."""
        self.callback.finish()
        with contextlib.suppress(*([Exception] if self._failed else [])):
            self.collector.shutdown(*args, **kwargs)

    def __getattr__(self, name: str):
        if name == "collector":
            raise AttributeError(name)
        return getattr(self.collector, name)


def in_folder(folder: Path) -> str:
    """Return the ``restore_file`` that makes BenchMARL use ``folder`` for an experiment.

    It would choose a name at random otherwise, and a new process could not find its checkpoints.
    """
    return str(Path(folder) / FOLDER / _ANY)


def names_folder(restore_file: str | None) -> bool:
    """Whether it is one of :func:`in_folder`, and not a checkpoint of BenchMARL's."""
    return restore_file is not None and Path(restore_file).parts[-2:] == (FOLDER, _ANY)


def _obstacle(experiment: Experiment) -> str | None:
    """The setting, if any, with which the state of a run cannot be saved."""
    config = experiment.config
    if config.collect_with_grad:
        return "experiment.collect_with_grad: true"
    if experiment.on_policy:
        return None
    if config.off_policy_use_prioritized_replay_buffer:
        return "experiment.off_policy_use_prioritized_replay_buffer: true"
    return "experiment.buffer_device: disk" if config.buffer_device == "disk" else None


def _seed_environment(env: EnvBase, seed: int) -> None:
    try:
        env.set_seed(seed)
    except NotImplementedError as error:
        _warn_of_seeds(str(error) or f"{type(env).__name__} takes no seeds")


@functools.cache
def _warn_of_seeds(which: str) -> None:
    logger.warning("%s: a resumed run will not be exact", which)
