"""Vectorised environments that speak plain dictionaries below TorchRL's tensordicts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from benchmarl.utils import DEVICE_TYPING
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Categorical, Composite, TensorSpec, Unbounded
from torchrl.envs import EnvBase

Leaves = dict[str | tuple[str, str], Tensor]


def nest(
    leaves: Leaves, batch: Sequence[int], groups: Mapping[str, Sequence[str]], device: DEVICE_TYPING
) -> TensorDict:
    """Return the tensordict [*batch] of flat entries, whose first dimensions are ``batch``.

    The agents of ``groups`` (group -> its agents) are the last dimension of a group's batch.
    """
    nested = TensorDict(leaves, batch, device=device)
    for group, agents in groups.items():
        nested.get(group).batch_size = [*batch, len(agents)]
    return nested


def done_leaves(shape: tuple[int, ...]) -> dict[str, TensorSpec]:
    """The three flags of an end, as specifications of ``shape``, whose last dimension is 1."""
    return {
        key: Binary(n=1, shape=shape, dtype=torch.bool)
        for key in ("done", "terminated", "truncated")
    }


def end_leaves(done: Tensor, terminated: Tensor, group: str | None = None) -> Leaves:
    """The three flags of an end, of a group or at the root."""
    flags = {"done": done, "terminated": terminated, "truncated": done & ~terminated}
    return {name if group is None else (group, name): flag for name, flag in flags.items()}


class LeavesEnv(EnvBase):
    """An environment of batch size ``[num_envs]`` whose entries come in a flat dictionary.

    Building many small tensordicts takes longer than a small game; who can do without them, as
    :class:`~benchmarl_mkt.environments.Team` can, calls :meth:`step_leaves` instead of ``step``.
    Keys are those of the tensordict: ``(group, name)`` with the agents in the second dimension, a
    name at the root, or ``("info", name)``.

    Attributes:
        group_map: group -> names of its agents.
    """

    group_map: dict[str, list[str]]

    def _set_specs(
        self,
        sizes: Mapping[str, tuple[int, int]],
        others: Mapping[str, TensorSpec] | None = None,
        masked: bool = True,
        own_ends: bool = False,
    ) -> None:
        """Make the specifications from each group's size of an observation and number of actions.

        ``others`` are observed besides; groups may have an ``action_mask`` (``masked``) and the
        three flags of an end (``own_ends``).
        """
        batch = self.batch_size
        observation, action, reward, done = (Composite(shape=batch) for _ in range(4))
        observation.update(dict(others or {}))
        done.update(done_leaves((*batch, 1)))
        for group, (size, n_actions) in sizes.items():
            shape = (*batch, len(self.group_map[group]))
            observation[group] = Composite(observation=Unbounded((*shape, size)), shape=shape)
            if masked:
                mask = Binary(shape=(*shape, n_actions), dtype=torch.bool)
                observation[group, "action_mask"] = mask
            action[group] = Composite(action=Categorical(n_actions, shape=shape), shape=shape)
            reward[group] = Composite(reward=Unbounded((*shape, 1)), shape=shape)
            if own_ends:
                done[group] = Composite(done_leaves((*shape, 1)), shape=shape)
        self.observation_spec = observation.to(self.device)
        self.action_spec = action.to(self.device)
        self.reward_spec = reward.to(self.device)
        self.done_spec = done.to(self.device)

    def prepare(self) -> None:
        """Begin in the background what takes long before the first step, such as compiling."""

    @abstractmethod
    def reset_leaves(self, mask: Tensor | None) -> Leaves:
        """Reset the copies of ``mask`` (bool [num_envs] or [num_envs, 1]; all, if None).

        The others show what they showed.
        """

    @abstractmethod
    def begin_step(self, data: TensorDictBase | Leaves) -> Callable[[], Leaves]:
        """Begin to step all copies by ``(group, "action")`` [num_envs, n].

        What is returned has to be called, and gives the next entries. A game that is computed by
        somebody else goes on in between.
        """

    def step_leaves(self, data: TensorDictBase | Leaves) -> Leaves:
        """Step all copies by ``(group, "action")`` [num_envs, n]; give the next entries."""
        return self.begin_step(data)()

    def complete(self, leaves: Leaves) -> Leaves:
        """Add what follows from the rest, if an environment leaves that out of its steps.

        It is worked out for all steps of a rollout at once: ``leaves`` may have any batch size.
        """
        return leaves

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDict:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        return self._nested(self.complete(self.reset_leaves(mask)))

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        return self._nested(self.complete(self.step_leaves(tensordict)))

    def _nested(self, leaves: Leaves) -> TensorDict:
        """The tensordict of these entries."""
        return nest(leaves, self.batch_size, self.group_map, self.device)
