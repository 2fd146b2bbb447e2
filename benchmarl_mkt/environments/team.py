"""One task becomes one team: a fixed number of agents, one observation, action and state size."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from benchmarl.environments.common import TaskClass
from benchmarl.utils import DEVICE_TYPING
from tensordict import TensorDictBase, unravel_key
from torch import Tensor
from torchrl.data import Categorical, MultiCategorical
from torchrl.envs import EnvBase

from benchmarl_mkt.environments.copies import make_copies
from benchmarl_mkt.environments.leaves import LeavesEnv
from benchmarl_mkt.environments.opponents import FrozenPolicy
from benchmarl_mkt.environments.wins import WON
from benchmarl_mkt.models.actions import chosen_values, random_actions
from benchmarl_mkt.models.layout import EntityLayout, layout_of
from benchmarl_mkt.models.multitask import joined

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


@dataclass
class _Group:
    """One agent group of the task."""

    name: str
    agents: list[str]
    keys: list[tuple[str, ...]]  # of the entries of an observation
    length: int  # numbers d that an agent sees
    n_actions: int
    masked: bool
    layout: EntityLayout | None  # as the task's specification carries it to a model

    def seen(self, data: TensorDictBase | dict) -> Tensor:
        """The observation's entries in a row: [B, n, d]."""
        entries = (data[key] for key in self.keys)
        flat = [x.unsqueeze(-1) if x.ndim == 2 else x.flatten(2) for x in entries]
        return joined(flat, -1).float()


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
        layout: the entities of an observation, if one group is controlled and the task has an
            ``entity_layout`` of it; else None.
        state_layout: the entities of the task's own state, if the task has a ``state_layout``, or,
            where it has no state, of each agent's part of it; else None.

    Args:
        num_envs: number of copies B. A task that is not vectorised is run B times.
        name: the team's name (the agent group of the multi-task environment).
        agent_id: append the one-hot agent id to the observations.
        reward: ``sum`` or ``mean`` of the controlled agents' rewards.
        opponents: agent group -> frozen policy (a shipped name or a path).
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
            self._never = torch.zeros(num_envs, dtype=torch.bool, device=self.env.device)
            self._read(task, one, dict(opponents or {}))
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
        self._current: Any = None  # the task's entries of now
        self._shown: TeamStep  # from the first reset on

    def _read(self, task: TaskClass, one: EnvBase, sources: Mapping[str, str]) -> None:
        """Read groups, sizes and limits from ``one`` copy of the task, or from all if vectorised.

        Copies run side by side give lists of the first and sizes that are multiplied.
        """
        group_map, states = task.group_map(one), task.state_spec(one)
        if set(sources) - set(group_map) or not set(group_map) - set(sources):
            raise ValueError(
                f"opponents: of task '{self.name}' must be some, not all, of its groups "
                f"{sorted(group_map)}, got {sorted(sources)}"
            )
        groups = {name: self._read_group(task, one, name, group_map[name]) for name in group_map}
        self._opponents = [
            (groups[name], self._load(sources[name], groups[name])) for name in sources
        ]
        self._groups = [group for name, group in groups.items() if name not in sources]
        self._sizes = [len(group.agents) for group in self._groups]
        self.agents = [agent for group in self._groups for agent in group.agents]
        self.n_agents = len(self.agents)
        self.n_actions = max(group.n_actions for group in self._groups)
        self.max_steps = task.max_steps(one)
        self.knows_wins = WON in one.full_observation_spec.keys(True, True)
        self.max_return = getattr(one, "max_return", None)  # of every agent
        if self.max_return is not None and not self._mean_reward:
            self.max_return *= self.n_agents
        length = max(group.length for group in self._groups)
        self.observation_size = length + (self.n_agents if self._agent_id else 0)
        self._state_keys = [] if states is None else list(states.keys(True, True))
        self.state_length = length if states is None else None
        own_size = sum(states[key].shape.numel() for key in self._state_keys)
        self.state_size = self.n_agents * length if states is None else own_size
        self._read_layouts(task, one)
        n, batch, device = self.n_agents, len(self._never), self.env.device
        ids = torch.eye(n) if self._agent_id else torch.zeros(n, 0)
        self._tails = []  # what follows the groups' observations: zero padding, and the agent ids
        self._existing = torch.zeros(batch, n, self.n_actions, dtype=torch.bool, device=device)
        masks = self._existing.split(self._sizes, 1)
        for group, own_ids, mask in zip(self._groups, ids.split(self._sizes), masks):
            tail = torch.nn.functional.pad(own_ids, (length - group.length, 0))
            self._tails.append(tail.to(device).expand(batch, -1, -1))
            mask[..., : group.n_actions] = True  # the others are padding

    def _read_layouts(self, task: Any, one: EnvBase) -> None:
        layouts = task.entity_layout(one) if hasattr(task, "entity_layout") else {}
        self.layout = self.state_layout = None
        first, *others = self._groups
        if not others and first.name in layouts:
            layout: EntityLayout = layouts[first.name].check(first.length, first.n_actions)
            self.layout = replace(layout, agent_id=self.n_agents if self._agent_id else 0)
            self.state_layout = layout
        if self.state_length is None:
            state = task.state_layout(one) if hasattr(task, "state_layout") else None
            self.state_layout = None if state is None else state.check(self.state_size)

    def _read_group(self, task: TaskClass, one: EnvBase, name: str, agents: list[str]) -> _Group:
        seen, masks = task.observation_spec(one), task.action_mask_spec(one)
        keys = [unravel_key((name, key)) for key in seen[name].keys(True, True)]
        if not keys:
            raise ValueError(f"tasks: '{self.name}' has no observation in group '{name}'")
        for key in keys:
            if -1 in seen[key].shape:
                raise ValueError(
                    f"tasks: '{self.name}' has agents of one group that see entries "
                    f"'{'.'.join(key)}' of different sizes; give them groups of their own "
                    "(group_map), which are padded"
                )
        actions, n = task.action_spec(one)[name, "action"], len(agents)
        single = isinstance(actions, Categorical) and not isinstance(actions, MultiCategorical)
        if not single or tuple(actions.shape) not in ((n,), (*one.batch_size, n)):
            raise ValueError(
                f"tasks: '{self.name}' has actions of {type(actions).__name__} "
                f"{list(actions.shape)} in group '{name}'; one categorical action per agent is "
                "needed"
            )
        return _Group(
            name,
            agents,
            keys,
            length=sum(seen[key].shape[1:].numel() for key in keys),
            n_actions=int(actions.space.n),
            masked=masks is not None and (name, "action_mask") in masks.keys(True, True),
            layout=layout_of(seen, name),
        )

    def _load(self, source: str, group: _Group) -> FrozenPolicy:
        policy = FrozenPolicy.load(source).to(self.env.device)
        if (policy.sizes[0], policy.sizes[-1]) != (group.length, group.n_actions):
            raise ValueError(
                f"opponents: '{source}' maps {policy.sizes[0]} observations to {policy.sizes[-1]} "
                f"actions, but group '{group.name}' of task '{self.name}' has {group.length} and "
                f"{group.n_actions}"
            )
        return policy

    @property
    def group_sizes(self) -> dict[str, tuple[int, int, int]]:
        """The merged groups in their order -> agents n, their observation's d, their actions a."""
        return {g.name: (len(g.agents), g.length, g.n_actions) for g in self._groups}

    @property
    def group_layouts(self) -> dict[str, EntityLayout]:
        """The merged groups whose specification says what their observations are made of."""
        return {g.name: g.layout for g in self._groups if g.layout is not None}

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
        if self._current is None or (mask is not None and mask.all()):
            mask = None
        if isinstance(self.env, LeavesEnv):
            self._current = self.env.reset_leaves(mask)
        elif mask is None:
            self._current = self.env.reset()
        else:
            request = self._current.clone().set("_reset", mask.unsqueeze(-1))
            self._current = self.env.reset(request)
        self._elapsed[... if mask is None else mask] = 0
        shown = self._show(self._current, None)
        self._shown = shown if mask is None else self._merge(shown, mask)
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
        parts = zip(self._groups, played.split(self._sizes, -1))
        actions = {(group.name, "action"): chosen for group, chosen in parts}
        for group, policy in self._opponents:
            actions[group.name, "action"] = policy(group.seen(self._current))
        end_task = self._begin_task(actions, None if self.vectorised or everyone else active)
        self._elapsed += 1  # of idle copies it is of no use

        def end_step() -> TeamStep:
            self._current = end_task()
            shown = self._show(self._current, self._elapsed)
            if not everyone:
                shown = self._merge(shown, active)
                shown = shown._replace(reward=shown.reward * active)
            self._shown = shown
            return shown

        return end_step

    def _begin_task(self, actions: dict, stepped: Tensor | None) -> Callable[[], Any]:
        """Begin to step the task's copies of ``stepped`` [B], all if None; end with its entries."""
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
        wrong = ~chosen_values(mask, action.long())
        if not wrong.any():
            return action
        played = action.clone()
        played[wrong] = random_actions(mask[wrong]).to(action.dtype)
        action[active] = played[active]
        return played

    def _merge(self, new: TeamStep, mask: Tensor) -> TeamStep:
        """Take ``new`` where ``mask`` [B] is true, else what was shown before."""

        def choose(fresh: Tensor | None, old: Tensor | None) -> Tensor | None:
            if fresh is None:
                return None
            return torch.where(mask.view(-1, *[1] * (fresh.ndim - 1)), fresh, old)

        return TeamStep(*map(choose, new, self._shown))

    def _show(self, data: TensorDictBase | dict, elapsed: Tensor | None) -> TeamStep:
        """Turn the task's entries into the team's view; ``elapsed`` None marks a reset."""
        seen = [torch.cat((g.seen(data), tail), -1) for g, tail in zip(self._groups, self._tails)]
        observation = joined(seen, 1)
        state = None
        if self._state_keys:
            parts = [data[key].reshape(len(observation), -1) for key in self._state_keys]
            state = joined(parts, 1).float()
        never = self._never
        if elapsed is None:
            reward, terminated, truncated = never.float(), never, never
        else:
            parts = [data[group.name, "reward"].flatten(1) for group in self._groups]
            rewards = joined(parts, 1)
            reward = rewards.mean(1) if self._mean_reward else rewards.sum(1)
            terminated = data["terminated"].view(len(elapsed))
            ended = data["done"].view(len(elapsed)) | (elapsed >= self.max_steps)
            truncated = ended & ~terminated
        won = data[WON].view(-1) if self.knows_wins else never
        return TeamStep(observation, self._masks(data), state, reward, terminated, truncated, won)

    def _masks(self, data: TensorDictBase | dict) -> Tensor:
        """Availability [B, N, A]: the task's own masks, and false for padded actions."""
        if len(self._groups) == 1 and self._groups[0].masked:  # nothing to pad
            return data[self._groups[0].name, "action_mask"]
        masks = self._existing.clone()
        for group, own in zip(self._groups, masks.split(self._sizes, 1)):
            if group.masked:
                own[..., : group.n_actions] = data[group.name, "action_mask"]
        return masks


def _takes_seeds(env: EnvBase) -> bool:
    try:
        with torch.random.fork_rng(devices=[]):
            env.set_seed(0)
    except NotImplementedError:
        return False
    return True
