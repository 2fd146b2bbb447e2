"""Collection for several tasks: plain rollouts, and the teachers' values beside the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.collectors import SyncDataCollector
from torchrl.envs import Compose, RewardSum, TransformedEnv

from benchmarl_mkt.collectors.plain import PlainRollouts
from benchmarl_mkt.environments.leaves import LeavesEnv
from benchmarl_mkt.models import EpsilonGreedyPolicy


class MultiTaskCollector:
    """Stands before a TorchRL collector of a :class:`~benchmarl_mkt.environments.MultiTaskEnv`.

    To every batch [B, T] it adds ``(task, "teacher_values")`` [B, T, N, A]: teachers are frozen,
    so their values are computed once. If it knows the policy it plays by itself, in plain
    dictionaries (:class:`PlainRollouts`), unless the policy has hidden states or is on another
    device than the environment, the first frames are random, or the environment has more transforms
    than BenchMARL's sum of rewards: then TorchRL's collector plays, and ``rollouts`` is None.

    Args:
        collector: the collector; anything not named here is passed on to it.
        teachers: task -> function from observations [B, T, N, D] and ``is_init`` [B, T, 1] to
            values [B, T, N, A]; a recurrent one starts every batch afresh, as the student does.
        policy: what the collector acts by.
    """

    def __init__(
        self,
        collector: SyncDataCollector,
        teachers: Mapping[str, Callable[[Tensor, Tensor], Tensor]],
        policy: EpsilonGreedyPolicy | None = None,
    ):
        self.collector, self.teachers = collector, dict(teachers)
        self.rollouts: PlainRollouts | None = None
        self._frames = 0
        if policy is not None and _can_be_plain(collector, policy):
            env, steps = collector.env.base_env, collector.frames_per_batch
            self.rollouts = PlainRollouts(env, policy.act, steps)

    def __iter__(self) -> Iterator[TensorDictBase]:
        for batch in self.collector if self.rollouts is None else self._play(self.rollouts):
            self._annotate(batch)
            yield batch

    def _play(self, rollouts: PlainRollouts) -> Iterator[TensorDictBase]:
        while self._frames < self.collector.total_frames:
            batch = rollouts(reset=self.reset_at_each_iter)
            self._frames += batch.numel()
            yield batch

    @torch.no_grad()
    def _annotate(self, batch: TensorDictBase) -> None:
        done = batch.get(("next", "done"))
        is_init = torch.cat([torch.ones_like(done[:, :1]), done[:, :-1]], 1)  # or the batch begins
        for task, teacher in self.teachers.items():
            values = teacher(batch.get((task, "observation")), is_init)
            batch.set((task, "teacher_values"), values)

    @property
    def reset_at_each_iter(self) -> bool:
        """Whether every batch starts new episodes."""
        return self.collector.reset_at_each_iter

    @reset_at_each_iter.setter
    def reset_at_each_iter(self, value: bool) -> None:
        self.collector.reset_at_each_iter = value

    def state_dict(self) -> dict[str, Any]:
        """Return the collector's state, with the frames that have been played."""
        state = self.collector.state_dict()
        return state if self.rollouts is None else {**state, "frames": self._frames}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.collector.load_state_dict(state_dict)
        self._frames = state_dict["frames"]

    def __getattr__(self, name: str):
        if name == "collector":
            raise AttributeError(name)
        return getattr(self.collector, name)


def _can_be_plain(collector: SyncDataCollector, policy: EpsilonGreedyPolicy) -> bool:
    env = collector.env
    transform = env.transform if isinstance(env, TransformedEnv) else None
    return (
        isinstance(transform, Compose)
        and all(isinstance(part, RewardSum) for part in transform)
        and isinstance(env.base_env, LeavesEnv)
        and not policy.is_recurrent
        and not collector.init_random_frames
        and policy.eps.device == env.device
    )
