"""Collection for several tasks: plain rollouts, and the teachers' values beside the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.collectors import SyncDataCollector
from torchrl.envs import Compose, RewardSum, TransformedEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type

from benchmarl_mkt.environments.leaves import Leaves, LeavesEnv, nest
from benchmarl_mkt.models import EpsilonGreedyPolicy
from benchmarl_mkt.objectives.active import active_places, rows, spread

SUM = "episode_reward"  # as BenchMARL's transform calls the sum of an episode's rewards so far


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
            values [B, T, N, A]; a recurrent one starts every batch afresh, as the student does. One
            whose ``is_recurrent`` is false may be asked for active steps alone: [M, N, D], [M, 1].
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
            active = batch.get(("active", task)).squeeze(-1)
            whole = getattr(teacher, "is_recurrent", True)  # or it is not known
            places = None if whole else active_places(active)
            seen = rows(batch.get((task, "observation")), places)
            values = teacher(seen, rows(is_init, places))
            batch.set((task, "teacher_values"), spread(values, places, active.shape))

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


class PlainRollouts:
    """Plays an environment, exploring, for a number of steps at a time.

    A step of TorchRL's collector makes some thousand Python calls, most of them for small
    tensordicts; here entries stay in flat dictionaries until a rollout is complete. It is the one
    of TorchRL's collector with BenchMARL's transform ``RewardSum``, bit by bit, but for
    ``("collector", "traj_ids")``, which it lacks. ``act`` chooses every ``(group, "action")``.
    """

    def __init__(self, env: LeavesEnv, act: Callable[[Leaves], Leaves], steps: int):
        self.env, self.act, self.steps = env, act, steps
        self._groups = [group for group, _ in env.reward_keys]
        self._now: Leaves | None = None

    @torch.no_grad()
    def __call__(self, reset: bool) -> TensorDict:
        """Return the next steps [B, T]; with ``reset``, of new episodes."""
        if reset or self._now is None:
            rewards = self.env.full_reward_spec
            sums: Leaves = {(g, SUM): rewards[g, "reward"].zero() for g in self._groups}
            self._now = self.env.reset_leaves(None) | sums
        before, chosen, after = [], [], []
        with set_exploration_type(ExplorationType.RANDOM):
            for _ in range(self.steps):
                actions = self.act(self._now)
                end_step = self.env.begin_step(actions)
                before.append(self._now)
                chosen.append(actions)
                shown = end_step()
                for group in self._groups:
                    shown[group, SUM] = self._now[group, SUM] + shown[group, "reward"]
                after.append(shown)
                self._now = self._continue(shown)
        keys = [key for key in before[0] if key not in self.env.reward_keys]
        entries = self.env.complete(_stack(before, keys)) | _stack(chosen, actions)
        following = self.env.complete(_stack(after, shown))
        where = (*self.env.batch_size, self.steps), self.env.group_map, self.env.device
        return nest(entries, *where).set("next", nest(following, *where))

    def _continue(self, shown: Leaves) -> Leaves:
        """The entries that the next step starts from: new episodes, where one has ended."""
        ended = shown["done"]
        if not ended.any():
            return shown
        over = ended.unsqueeze(-1)
        sums: Leaves = {(g, SUM): shown[g, SUM].masked_fill(over, 0.0) for g in self._groups}
        return self.env.reset_leaves(ended) | sums


def _stack(steps: list[Leaves], keys: Iterable) -> Leaves:
    """The entries ``keys`` of T steps, each [B, ...], as [B, T, ...]."""
    return {key: torch.stack([step[key] for step in steps], 1) for key in keys}
