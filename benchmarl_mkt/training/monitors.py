"""What watches a training, whatever its algorithm: accounts, win rates, and guards."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import traceback
from collections.abc import Iterator
from typing import Any

import torch
from benchmarl.experiment.callback import Callback
from tensordict import TensorDictBase, unravel_key
from torch import Tensor

from benchmarl_mkt.environments.team import Team
from benchmarl_mkt.environments.wins import won


class RunCallback(Callback):
    """A callback that BenchMARL can pickle with an experiment, without the experiment."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "experiment": None}


class Accounts(RunCallback):
    """Counts every task's own frames and episodes: not the steps in which its team has idled.

    Works with any algorithm on a :class:`~benchmarl_mkt.environments.MultiTaskEnv`; there are no
    accounts of other environments. Attribute ``tasks``: task (agent group) -> ``frames`` and
    ``episodes``, logged at every evaluation as ``counters/TASK/frames`` and ``.../episodes``.
    """

    def __init__(self):
        super().__init__()
        self.tasks: dict[str, dict[str, int]] = {}

    def on_batch_collected(self, batch: TensorDictBase) -> None:
        active = batch.get("active", None)
        for task in [] if active is None else active.keys():
            own = active.get(task)
            ended = own & batch.get(("next", task, "done"))[..., 0, :]
            account = self.tasks.setdefault(task, {"frames": 0, "episodes": 0})
            account["frames"] += int(own.sum())
            account["episodes"] += int(ended.sum())

    def on_evaluation_end(self, rollouts: list[TensorDictBase]) -> None:
        counters = {
            f"counters/{task}/{name}": count
            for task, account in self.tasks.items()
            for name, count in account.items()
        }
        self.experiment.logger.log(counters, step=self.experiment.n_iters_performed)

    def on_state_dict(self, state_dict: dict[str, Any]) -> None:
        state_dict["accounts"] = copy.deepcopy(self.tasks)

    def on_load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.tasks = copy.deepcopy(state_dict.get("accounts", {}))


def episodes_won(rollouts: list[TensorDictBase], task: str) -> Tensor | None:
    """Whether the first episode of each rollout was won by ``task`` (agent group): bool [episodes].

    None if the task knows no victory.
    """
    results = []
    for rollout in rollouts:
        flags = won(rollout, task)
        if flags is None:
            return None
        end = rollout.get(("next", "done")).view(-1).int().argmax()
        results.append(flags[end])
    return torch.stack(results)


class WinRates(RunCallback):
    """Logs every task's rate of battles won at every evaluation, and writes it to the run's JSON.

    Works with any algorithm; MKT adds it by itself. Names: ``eval/TASK/win_rate`` in the logs,
    ``TASK_win_rate`` in the JSON (1 or 0 for every episode). Tasks that know no victory have none.
    """

    def on_evaluation_end(self, rollouts: list[TensorDictBase]) -> None:
        experiment = self.experiment
        groups = experiment.algorithm.group_map
        results = ((task, episodes_won(rollouts, task)) for task in groups)
        won = {task: flags.float() for task, flags in results if flags is not None}
        if not won:
            return
        logger, frames = experiment.logger, experiment.total_frames
        means = {f"eval/{task}/win_rate": flags.mean().item() for task, flags in won.items()}
        logger.log(means, step=experiment.n_iters_performed)
        if logger.json_writer is not None:
            logger.json_writer.write(
                metrics={f"{task}_win_rate": flags for task, flags in won.items()},
                total_frames=frames,
                evaluation_step=frames // experiment.config.evaluation_interval,
            )


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
        after = [unravel_key(("next", key)) for key in env.observation_keys]
        after = [key for key in after if "info" not in key]
        rewards = [unravel_key(("next", key)) for key in env.reward_keys]
        self._keys = [*(key[1:] for key in after), *after, *rewards]

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


@contextlib.contextmanager
def setting_up(name: str) -> Iterator[None]:
    """Tell in one line why an experiment, called ``name`` in messages, cannot be set up.

    Raises:
        ValueError: if anything fails. With ``BENCHMARL_MKT_FULL_ERROR=1`` it is the original error.
    """
    try:
        yield
    except (ValueError, ImportError):
        raise
    except Exception as error:
        if os.environ.get("BENCHMARL_MKT_FULL_ERROR") == "1":
            raise
        message = " ".join(str(error).split())
        places = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
        key, remedy = name, "BENCHMARL_MKT_FULL_ERROR=1 shows where"
        if "_setup_logger" in places:  # BenchMARL's
            key, remedy = f"{name}.loggers", f"use {name}.loggers=[csv], or mend it"
        kind = type(error).__name__
        raise ValueError(f"{key}: cannot be set up ({kind}: {message:.300}); {remedy}") from error
