"""Guards over a training that runs unattended: nothing that is not finite is learned from."""

from __future__ import annotations

import math
import traceback

import torch
from tensordict import TensorDictBase

from benchmarl_mkt.environments.team import Team
from benchmarl_mkt.training.base import RunCallback


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why, in one line."""


class GuardCallback(RunCallback):
    """Stops a training at the first observation, reward, loss or gradient that is not finite.

    Works with any algorithm; MKT adds it by itself. Checkpoints are written between iterations,
    so none is written after such a value.

    Raises:
        TrainingError: naming the task (group), what is not finite, and when.
    """

    def on_setup(self) -> None:
        env = self.experiment.test_env
        seen = [key for key in map(_as_tuple, env.observation_keys) if "info" not in key]
        rewards = map(_as_tuple, env.reward_keys)
        self._keys = [*seen, *(("next", *key) for key in (*seen, *rewards))]

    def on_batch_collected(self, batch: TensorDictBase) -> None:
        for key in self._keys:
            value = batch.get(key, None)
            if value is None or not value.is_floating_point() or torch.isfinite(value).all():
                continue
            environment, step = (~torch.isfinite(value)).nonzero()[0, :2].tolist()
            name = ".".join(key).removeprefix("next.")
            raise self._error(f"{name} at step {step} of environment {environment}")

    def on_train_step(self, batch: TensorDictBase, group: str) -> None:
        # An MKT loss keeps its tasks apart; in a sum over tasks the culprit could not be named.
        terms = getattr(self.experiment.losses[group], "last_terms", {})
        for task, values in terms.items():
            for name, value in values.items():
                if not math.isfinite(value):
                    raise self._error(f"{name} of task '{task}'")

    def on_train_end(self, training_td: TensorDictBase, group: str) -> None:
        for name, values in training_td.items():
            if name.startswith(("loss", "grad_norm")) and not torch.isfinite(values).all():
                update = int((~torch.isfinite(values)).nonzero()[0, 0])
                raise self._error(f"{name} of {self._tasks(group, update)} in update {update}")

    def _tasks(self, group: str, update: int) -> str:
        """Name the tasks of an update; MKT's group is the student, whose tasks take turns."""
        algorithm = self.experiment.algorithm
        tasks = getattr(algorithm, "tasks", [group])
        if len(tasks) > 1 and algorithm.config.update == "sequential":
            tasks = [tasks[update % len(tasks)]]
        return f"task{'s' if len(tasks) > 1 else ''} {', '.join(map(repr, tasks))}"

    def _error(self, what: str) -> TrainingError:
        iteration = self.experiment.n_iters_performed
        return TrainingError(f"not finite in iteration {iteration}: {what}")


def environment_error(what: str, error: Exception) -> TrainingError:
    """Say in one line that ``what`` failed with ``error``, and in which task's environment."""
    frames = traceback.walk_tb(error.__traceback__)
    holders = (frame.f_locals.get("self") for frame, _ in frames)
    teams = [f" of task '{holder.name}'" for holder in holders if isinstance(holder, Team)]
    reason = " ".join(str(error).split())
    return TrainingError(f"{what}{''.join(teams[:1])} failed: {type(error).__name__}: {reason}")


def _as_tuple(key: str | tuple[str, ...]) -> tuple[str, ...]:
    return key if isinstance(key, tuple) else (key,)
