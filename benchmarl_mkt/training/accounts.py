"""What every task has had of a run, whatever the algorithm."""

from __future__ import annotations

from typing import Any

from tensordict import TensorDictBase

from benchmarl_mkt.training.base import RunCallback


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
        state_dict["accounts"] = {task: dict(account) for task, account in self.tasks.items()}

    def on_load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.tasks = {
            task: dict(account) for task, account in state_dict.get("accounts", {}).items()
        }
