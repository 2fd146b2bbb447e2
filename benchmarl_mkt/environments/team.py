"""One task becomes one team: a fixed number of agents, one observation, action and state size."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from benchmarl.environments.common import TaskClass
from benchmarl.utils import DEVICE_TYPING
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Categorical, MultiCategorical
from torchrl.envs import EnvBase

from benchmarl_mkt.environments.copies import make_copies
from benchmarl_mkt.environments.leaves import LeavesEnv
from benchmarl_mkt.environments.opponents import FrozenPolicy
from benchmarl_mkt.environments.wins import WON
from benchmarl_mkt.models.actions import chosen_values, random_actions

REWARDS = ("sum", "mean")


class TeamStep(NamedTuple):
    """What a team shows after a reset or a step, for B copies, N agents, A actions."""

    observation: Tensor  # [B, N, D] float32
    action_mask: Tensor  # [B, N, A] bool, true = available
    state: Tensor | None  # the task's own [B, S] float32; None where it has none
    reward: Tensor  # [B] float32
    terminated: Tensor  # [B] bool
    truncated: Tensor  # [B] bool
    won: Tensor  # [B] bool; false where the task knows no victory


class Team:
    """A BenchMARL task with discrete actions, seen as one team.

    Merges the controlled agent groups in the task's order, pads observations with zeros to the
    longest and actions with masked ones to the most, appends a one-hot agent id and adds the
    agents' rewards up. An observation entry [B, n] is one number per agent, [B, n, 1]. Groups with
    a frozen opponent act by themselves. An episode that reaches the task's ``max_steps`` ends as
    truncated.

    Attributes:
        knows_wins: whether the task says which episodes were won.
        max_return: the largest possible team return, if the environment has such an attribute.
        state_size: S of the task's own state, else of the agents' padded observations in a row.
        state_length: how many first entries of an observation the state is made of in the second
            case, N state_length = S; None in the first.

    Args:
        task: the BenchMARL task.
        num_envs: number of copies B. A task that is not vectorised is run B times.
        name: the team's name (the agent group of the multi-task environment).
        agent_id: append the one-hot agent id to the observations.
        reward: ``sum`` or ``mean`` of the controlled agents' rewards.
        opponents: agent group -> frozen policy (a shipped name or a path).
        seed: seed of the environment.
        device: device of the tensors.
        parallel: run the copies of a task that is not vectorised in processes of their own.

    Raises:
        ValueError: if the task has no discrete actions, the reward or a group is unknown, an
            opponent does not fit its group, or the task cannot be set up.
    """

    def __init__(
        self,
        task: TaskClass,
        num_envs: int,
        name: str,
        agent_id: bool = True,
        reward: str = "sum",
        opponents: Mapping[str, str] | None = None,
        seed: int | None = None,
        device: DEVICE_TYPING = "cpu",
        parallel: bool = False,
    ):
        if reward not in REWARDS:
            raise ValueError(f"reward: {reward!r} of task '{name}' must be one of {REWARDS}")
        if not task.supports_discrete_actions():
            raise ValueError(
                f"tasks: '{name}' has continuous actions only; value-based methods need discrete "
                "ones, choose a task that supports them"
            )
        self.name = name
        self._agent_id = agent_id
        self._mean_reward = reward == "mean"
        try:
            self.env, one = make_copies(task, num_envs, seed, device, parallel)
            self._one, self.vectorised = one, one is self.env
            self._read(task, one, num_envs, dict(opponents or {}))
            self._takes_seeds = True
            if parallel and not self.vectorised:  # the copies are in processes of their own,
                self._takes_seeds = _takes_seeds(one)  # which an error would end
                one.close()
        except Exception as error:
            told = isinstance(error, ValueError) and re.match(r"[\w.]+: ", str(error))
            if told or isinstance(error, ImportError):
                raise
            reason = " ".join(str(error).split()) or "no reason given"
            raise ValueError(
                f"tasks: '{name}' cannot be set up ({type(error).__name__}: {reason:.300})"
            ) from error
        self._elapsed = torch.zeros(num_envs, dtype=torch.long, device=self.env.device)
        self._current: Any = {}  # the task's entries of now
        self._shown: TeamStep | None = None

    def _read(self, task: TaskClass, one: EnvBase, batch: int, opponents: dict[str, str]) -> None:
        """Read groups, sizes and limits from ``one`` copy of the task, or from all if vectorised.

        Copies run side by side give lists of the first and sizes that are multiplied.
        """
        name, group_map = self.name, task.group_map(one)
        unknown = set(opponents) - set(group_map)
        if unknown or not set(group_map) - set(opponents):
            raise ValueError(
                f"opponents: of task '{name}' must be some, not all, of its groups "
                f"{sorted(group_map)}, got {sorted(opponents)}"
            )
        self.max_steps = task.max_steps(one)
        self._groups = [group for group in group_map if group not in opponents]
        self._sizes = [len(group_map[group]) for group in self._groups]
        observation_spec, action_spec = task.observation_spec(one), task.action_spec(one)
        mask_spec, state_spec = task.action_mask_spec(one), task.state_spec(one)
        self._leaves = {
            group: [(group, *_as_tuple(key)) for key in observation_spec[group].keys(True, True)]
            for group in group_map
        }
        blind = [group for group, leaves in self._leaves.items() if not leaves]
        if blind:
            raise ValueError(f"tasks: '{name}' has no observation in group '{blind[0]}'")
        lengths = {
            group: sum(self._entry_size(key, observation_spec[key]) for key in self._leaves[group])
            for group in group_map
        }
        shapes = {
            group: ((len(agents),), (*one.batch_size, len(agents)))
            for group, agents in group_map.items()
        }
        counts = {group: self._action_count(group, action_spec, shapes[group]) for group in shapes}
        self._counts = [counts[group] for group in self._groups]
        masks = () if mask_spec is None else mask_spec.keys(True, True)
        self._masked = [group for group in self._groups if (group, "action_mask") in masks]
        self.knows_wins = WON in one.full_observation_spec.keys(True, True)
        self._state_keys = [] if state_spec is None else list(state_spec.keys(True, True))
        self.n_agents = sum(self._sizes)
        self.n_actions = max(self._counts)
        limit = getattr(one, "max_return", None)  # of every agent
        agents = 1 if self._mean_reward else self.n_agents
        self.max_return = None if limit is None else limit * agents
        self._length = max(lengths[group] for group in self._groups)
        self.observation_size = self._length + (self.n_agents if self._agent_id else 0)
        self.state_length = self._length if state_spec is None else None
        self.state_size = (
            self.n_agents * self._length
            if state_spec is None
            else sum(state_spec[key].shape.numel() for key in self._state_keys)
        )
        self.agents = [agent for group in self._groups for agent in group_map[group]]
        self._opponents = {
            group: self._load_opponent(group, source, lengths[group], counts[group])
            for group, source in opponents.items()
        }
        stops = list(itertools.accumulate(self._sizes))
        self._spans = list(zip([0, *stops], stops))  # first and past-the-last agent of each group
        device = self.env.device
        ids = torch.eye(self.n_agents) if self._agent_id else torch.zeros(self.n_agents, 0)
        self._tails = {  # what follows a group's observations: zero padding, and the agent ids
            group: torch.nn.functional.pad(ids[start:stop], (self._length - lengths[group], 0))
            .to(device)
            .expand(batch, -1, -1)
            for group, (start, stop) in zip(self._groups, self._spans)
        }
        self._never = torch.zeros(batch, dtype=torch.bool, device=device)
        self._existing = torch.zeros(
            batch, self.n_agents, self.n_actions, dtype=torch.bool, device=device
        )  # actions that are no padding
        for (start, stop), count in zip(self._spans, self._counts):
            self._existing[:, start:stop, :count] = True

    def _entry_size(self, key: tuple[str, ...], spec) -> int:
        """How many numbers per agent an observation entry [n, ...] holds."""
        if -1 in spec.shape:
            raise ValueError(
                f"tasks: '{self.name}' has agents of one group that see entries '{'.'.join(key)}' "
                "of different sizes; give them groups of their own (group_map), which are padded"
            )
        return spec.shape[1:].numel()

    def _action_count(self, group: str, action_spec, shapes: tuple) -> int:
        """The number of actions of a group's agents, whose specification has one of ``shapes``."""
        spec = action_spec[group, "action"]
        single = isinstance(spec, Categorical) and not isinstance(spec, MultiCategorical)
        if not single or tuple(spec.shape) not in shapes:
            raise ValueError(
                f"tasks: '{self.name}' has actions of {type(spec).__name__} {list(spec.shape)} in "
                f"group '{group}'; one categorical action per agent is needed"
            )
        return int(spec.space.n)

    def _load_opponent(self, group: str, source: str, length: int, n_actions: int) -> FrozenPolicy:
        policy = FrozenPolicy.load(source).to(self.env.device)
        if (policy.sizes[0], policy.sizes[-1]) != (length, n_actions):
            raise ValueError(
                f"opponents: '{source}' maps {policy.sizes[0]} observations to {policy.sizes[-1]} "
                f"actions, but group '{group}' of task '{self.name}' has {length} and {n_actions}"
            )
        return policy

    def close(self) -> None:
        """Close the task's environment, and the copy that there is before the others."""
        for env in (self.env, self._one):
            if not env.is_closed:
                env.close()

    def set_seed(self, seed: int | None) -> None:
        """Seed the task's environment.

        Raises:
            NotImplementedError: if it takes no seeds.
        """
        if not self._takes_seeds:
            raise NotImplementedError
        # In a process of its own a copy cannot change this one's random state either.
        with torch.random.fork_rng(devices=[], enabled=not self.vectorised):
            self.env.set_seed(seed)

    def reset(self, mask: Tensor | None = None) -> TeamStep:
        """Start new episodes in the copies of ``mask`` [B] (all, if None)."""
        everywhere = mask is None or self._shown is None or bool(mask.all())
        self._current = self._reset_task(None if everywhere else mask)
        self._elapsed[... if everywhere else mask] = 0
        shown = self._show(self._current, None)
        self._shown = shown if everywhere else self._merge(shown, mask)
        return self._shown

    def step(self, action: Tensor, active: Tensor) -> TeamStep:
        """Step the ``active`` [B] copies by ``action`` [B, N]; the others show what they showed.

        See :meth:`begin_step`.
        """
        return self.begin_step(action, active)()

    def begin_step(self, action: Tensor, active: Tensor) -> Callable[[], TeamStep]:
        """Begin a step; what is returned has to be called, and ends it.

        An inactive copy has reward zero and keeps its done flags. An action that is not available
        is replaced, in place, by a random one that is: TorchRL's random policy does not see masks,
        and what is stored must be what was played. In an inactive copy what was chosen stays; a
        vectorised task, which steps finished copies too, gets another one there.
        """
        played = self._available(action, active)
        everyone = bool(active.all())
        if not everyone and not active.any():
            self._shown = self._shown._replace(reward=torch.zeros_like(self._shown.reward))
            return lambda: self._shown
        actions = dict(zip(self._groups, played.split(self._sizes, -1)))
        for group, policy in self._opponents.items():
            actions[group] = policy(self._flat(self._current, group))
        reach = self._begin_task(
            {(group, "action"): chosen for group, chosen in actions.items()},
            None if self.vectorised or everyone else active,
        )
        self._elapsed += 1  # of idle copies it is of no use
        return lambda: self._end_step(reach(), None if everyone else active)

    def _end_step(self, reached: TensorDictBase | dict, active: Tensor | None) -> TeamStep:
        """Show what was ``reached`` by the ``active`` copies [B], all if None."""
        self._current = reached
        shown = self._show(self._current, self._elapsed)
        if active is not None:
            shown = self._merge(shown, active)
            shown = shown._replace(reward=shown.reward * active)
        self._shown = shown
        return shown

    def _reset_task(self, mask: Tensor | None) -> TensorDictBase | dict:
        """Reset the task's copies of ``mask`` [B], all if None; return its entries."""
        if isinstance(self.env, LeavesEnv):
            return self.env.reset_leaves(mask)
        if mask is None:
            return self.env.reset()
        return self.env.reset(self._current.clone().set("_reset", mask.unsqueeze(-1)))

    def _begin_task(
        self, actions: dict, stepped: Tensor | None
    ) -> Callable[[], TensorDictBase | dict]:
        """Begin to step the task's copies of ``stepped`` [B], all if None."""
        if isinstance(self.env, LeavesEnv):
            return self.env.begin_step(actions)
        # What was shown goes along: transforms with a state read it, and TorchRL shows it again of
        # copies that rest.
        request = self._current.clone(False).update(actions)
        if stepped is not None:
            request.set("_step", stepped.unsqueeze(-1))
        return lambda: self.env.step(request).get("next")

    def _available(self, action: Tensor, active: Tensor) -> Tensor:
        """Actions that the task can take; those of ``active`` copies are written to ``action``."""
        mask = self._shown.action_mask
        right = chosen_values(mask, action.long())
        if right.all():
            return action
        wrong = ~right
        played = action.clone()
        played[wrong] = random_actions(mask[wrong]).to(action.dtype)
        action[active] = played[active]
        return played

    def _merge(self, new: TeamStep, mask: Tensor) -> TeamStep:
        """Take ``new`` where ``mask`` [B] is true, else what was shown before."""
        return TeamStep(
            *(
                None if fresh is None else torch.where(_beside(mask, fresh), fresh, old)
                for fresh, old in zip(new, self._shown)
            )
        )

    def _flat(self, data: TensorDictBase | dict, group: str) -> Tensor:
        """Concatenate a group's observation entries: [B, n, d]."""
        flat = [_per_agent(data.get(key)) for key in self._leaves[group]]
        return (flat[0] if len(flat) == 1 else torch.cat(flat, -1)).float()

    def _show(self, data: TensorDictBase | dict, elapsed: Tensor | None) -> TeamStep:
        """Turn the task's entries into the team's view; ``elapsed`` None marks a reset."""
        seen = [torch.cat((self._flat(data, g), self._tails[g]), -1) for g in self._groups]
        observation = seen[0] if len(seen) == 1 else torch.cat(seen, 1)
        state = None
        if self._state_keys:
            parts = [data.get(key).reshape(len(observation), -1) for key in self._state_keys]
            state = (parts[0] if len(parts) == 1 else torch.cat(parts, 1)).float()
        never = self._never
        if elapsed is None:
            reward, terminated, truncated = never.float(), never, never
        else:
            parts = [data.get((group, "reward")).flatten(1) for group in self._groups]
            rewards = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
            reward = rewards.mean(1) if self._mean_reward else rewards.sum(1)
            terminated = data.get("terminated").view(len(elapsed))
            ended = data.get("done").view(len(elapsed)) | (elapsed >= self.max_steps)
            truncated = ended & ~terminated
        won = data.get(WON).view(-1) if self.knows_wins else never
        return TeamStep(observation, self._masks(data), state, reward, terminated, truncated, won)

    def _masks(self, data: TensorDictBase | dict) -> Tensor:
        """Availability [B, N, A]: the task's own masks, and false for padded actions."""
        if len(self._groups) == 1 and self._masked:  # nothing to pad
            return data.get((self._groups[0], "action_mask"))
        masks = self._existing.clone()
        for group, (start, stop), count in zip(self._groups, self._spans, self._counts):
            if group in self._masked:
                masks[:, start:stop, :count] = data.get((group, "action_mask"))
        return masks


def _takes_seeds(env: EnvBase) -> bool:
    try:
        with torch.random.fork_rng(devices=[]):
            env.set_seed(0)
    except NotImplementedError:
        return False
    return True


def _per_agent(entry: Tensor) -> Tensor:
    """An observation entry [B, n, ...] as [B, n, d]; one number per agent is [B, n, 1]."""
    if entry.ndim == 2:
        return entry.unsqueeze(-1)
    return entry.flatten(2) if entry.ndim > 3 else entry


def _beside(mask: Tensor, entry: Tensor) -> Tensor:
    """``mask`` [B] with as many dimensions as ``entry`` [B, ...]."""
    return mask.view(-1, *[1] * (entry.ndim - 1))


def _as_tuple(key) -> tuple:
    return key if isinstance(key, tuple) else (key,)
