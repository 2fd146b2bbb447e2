"""Collection for several tasks: the teachers' values beside the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.collectors import SyncDataCollector


class MultiTaskCollector:
    """Wraps a TorchRL collector of a :class:`~benchmarl_mkt.environments.MultiTaskEnv`.

    To every batch [B, T] it adds ``(task, "teacher_values")`` [B, T, N, A]: teachers are frozen,
    so their values are computed once.

    Args:
        collector: the collector; anything not named here is passed on to it.
        teachers: task -> function from observations [B, T, N, D] and ``is_init`` [B, T, 1] to
            values [B, T, N, A]; a recurrent one starts every batch afresh, as the student does.
    """

    def __init__(
        self,
        collector: SyncDataCollector,
        teachers: Mapping[str, Callable[[Tensor, Tensor], Tensor]],
    ):
        self.collector, self.teachers = collector, dict(teachers)

    def __iter__(self) -> Iterator[TensorDictBase]:
        for batch in self.collector:
            self._annotate(batch)
            yield batch

    @torch.no_grad()
    def _annotate(self, batch: TensorDictBase) -> None:
        is_init = _starts(batch)
        for task, teacher in self.teachers.items():
            values = teacher(batch.get((task, "observation")), is_init)
            batch.set((task, "teacher_values"), values)

    def __getattr__(self, name: str):
        if name == "collector":
            raise AttributeError(name)
        return getattr(self.collector, name)


def _starts(batch: TensorDictBase) -> Tensor:
    """True in the steps [B, T, 1] that begin an episode or the batch."""
    done = batch.get(("next", "done"))
    return torch.cat([torch.ones_like(done[:, :1]), done[:, :-1]], 1)
