"""Collection for several tasks: teacher values beside the data, and per-task accounts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.collectors import SyncDataCollector


class MultiTaskCollector:
    """Wraps a TorchRL collector of a :class:`~benchmarl_mkt.environments.MultiTaskEnv`.

    To every batch [B, T] it adds ``(task, "teacher_values")`` [B, T, N, A] (teachers are frozen,
    so their values are computed once) and it counts, per task, the frames and episodes of the
    task's own (idle steps of a finished team do not count).

    Args:
        collector: the collector; anything not named here is passed on to it.
        tasks: the tasks.
        teachers: task -> function from observations [B, T, N, D] and ``is_init`` [B, T, 1] to
            values [B, T, N, A]; a recurrent one starts every batch afresh, as the student does.
    """

    def __init__(
        self,
        collector: SyncDataCollector,
        tasks: list[str],
        teachers: Mapping[str, Callable[[Tensor, Tensor], Tensor]] | None = None,
    ):
        self.collector, self.tasks = collector, list(tasks)
        self.teachers = dict(teachers or {})
        self.accounts = {task: {"frames": 0, "episodes": 0} for task in self.tasks}

    def __iter__(self) -> Iterator[TensorDictBase]:
        for batch in self.collector:
            self._annotate(batch)
            yield batch

    @torch.no_grad()
    def _annotate(self, batch: TensorDictBase) -> None:
        for task in self.tasks:
            active = batch.get(("active", task))
            ended = active & batch.get(("next", task, "done"))[..., 0, :]
            self.accounts[task]["frames"] += int(active.sum())
            self.accounts[task]["episodes"] += int(ended.sum())
        is_init = _starts(batch)
        for task, teacher in self.teachers.items():
            values = teacher(batch.get((task, "observation")), is_init)
            batch.set((task, "teacher_values"), values)

    def state_dict(self) -> dict:
        """Return the collector's state and the accounts."""
        return {"collector": self.collector.state_dict(), "accounts": self.accounts}

    def load_state_dict(self, state_dict: Mapping) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.collector.load_state_dict(state_dict["collector"])
        self.accounts = {task: dict(account) for task, account in state_dict["accounts"].items()}

    def __getattr__(self, name: str):
        if name == "collector":
            raise AttributeError(name)
        return getattr(self.collector, name)


def _starts(batch: TensorDictBase) -> Tensor:
    """True in the steps [B, T, 1] that begin an episode or the batch."""
    done = batch.get(("next", "done"))
    return torch.cat([torch.ones_like(done[:, :1]), done[:, :-1]], 1)
