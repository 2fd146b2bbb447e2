"""Rollouts in plain dictionaries: what TorchRL's collector gives, in a fraction of its time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from tensordict import TensorDict
from torchrl.envs.utils import ExplorationType, set_exploration_type

from benchmarl_mkt.environments.leaves import Leaves, LeavesEnv, nest

SUM = "episode_reward"  # as BenchMARL's transform calls the sum of an episode's rewards so far


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
            sums = {(group, SUM): rewards[group, "reward"].zero() for group in self._groups}
            self._now = self.env.reset_leaves(None) | sums
        before, chosen, after = [], [], []
        with set_exploration_type(ExplorationType.RANDOM):
            for _ in range(self.steps):
                actions = self.act(self._now)
                reach = self.env.begin_step(actions)
                before.append(self._now)
                chosen.append(actions)
                reached = reach()
                for group in self._groups:
                    reached[group, SUM] = self._now[group, SUM] + reached[group, "reward"]
                after.append(reached)
                self._now = self._continue(reached)
        keys = [key for key in before[0] if key not in self.env.reward_keys]
        entries = self.env.complete(_stack(before, keys)) | _stack(chosen, actions)
        following = self.env.complete(_stack(after, reached))
        where = (*self.env.batch_size, self.steps), self.env.group_map, self.env.device
        return nest(entries, *where).set("next", nest(following, *where))

    def _continue(self, reached: Leaves) -> Leaves:
        """The entries that the next step starts from: new episodes, where one has ended."""
        ended = reached["done"]
        if not ended.any():
            return reached
        over = ended.unsqueeze(-1)
        sums = {(g, SUM): reached[g, SUM].masked_fill(over, 0.0) for g in self._groups}
        return self.env.reset_leaves(ended) | sums


def _stack(steps: list[Leaves], keys: Iterable) -> Leaves:
    """The entries ``keys`` of T steps, each [B, ...], as [B, T, ...]."""
    return {key: torch.stack([step[key] for step in steps], 1) for key in keys}
