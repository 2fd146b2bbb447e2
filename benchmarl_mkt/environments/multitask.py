"""Several tasks in one environment: every team plays one episode per round.

The agent groups of the environment are the tasks, so that BenchMARL's own experiment, loggers and
algorithms work on it unchanged.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import benchmarl.environments as benchmarl_environments
import torch
from benchmarl.environments.common import TaskClass
from benchmarl.environments.smacv2.common import Smacv2Class
from benchmarl.utils import DEVICE_TYPING
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from torchrl.data import Binary, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from benchmarl_mkt.environments.common import DiscreteTaskClass, ShippedTask, done_leaves
from benchmarl_mkt.environments.smac import StarcraftClass
from benchmarl_mkt.environments.team import REWARDS, Team, TeamStep
from benchmarl_mkt.environments.wins import TEAMS_WON, win_rate

_RESERVED = ("state", "active", "done", "terminated", "truncated", "next", "student", TEAMS_WON)


class MultiTaskEnv(EnvBase):
    """K teams in synchronised rounds; batch size ``[num_envs]`` = B.

    A round ends, and the root ``done`` is true, when all K teams have finished their episode. A
    team that has finished idles until then: reward zero, its own ``done`` true, its last
    observation and, from the next step on, all actions available. A vectorised task may go on
    underneath; nothing of it shows.

    Per team (group) of N agents: ``observation`` [B, N, D], ``action_mask`` [B, N, A], ``action``
    [B, N], ``reward`` [B, N, 1] (the team's reward, the same for every agent) and ``done``,
    ``terminated``, ``truncated`` [B, N, 1]. Besides, ``("state", group)`` [B, S] and
    ``("active", group)`` [B, 1]: true in the steps that belong to the team's episode; of tasks that
    know victories ``("won", group)`` [B, 1], which stays true until the round ends. The root is
    ``terminated`` if every team's episode ended so, else ``truncated``.

    Args:
        teams: the teams; their names are the groups.
        seed: seeds every team's environment with a seed of its own.
    """

    def __init__(self, teams: Sequence[Team], seed: int | None = None):
        first = teams[0].env
        super().__init__(device=first.device, batch_size=first.batch_size)
        self.teams = {team.name: team for team in teams}
        self.group_map = {team.name: team.agents for team in teams}
        self.max_steps = max(team.max_steps for team in teams)
        self._finished = {name: self._flags() for name in self.teams}
        self._with_wins = [team.name for team in teams if team.knows_wins]
        self._make_specs()
        if seed is not None:
            self.set_seed(seed)

    def _flags(self) -> Tensor:
        return torch.zeros(self.batch_size, dtype=torch.bool, device=self.device)

    def _make_specs(self) -> None:
        batch = self.batch_size
        observation = Composite(
            {"state": Composite(shape=batch), "active": Composite(shape=batch)}, shape=batch
        )
        if self._with_wins:
            observation[TEAMS_WON] = Composite(
                {
                    name: Binary(n=1, shape=(*batch, 1), dtype=torch.bool)
                    for name in self._with_wins
                },
                shape=batch,
            )
        action, reward = Composite(shape=batch), Composite(shape=batch)
        done = Composite(done_leaves((*batch, 1)), shape=batch)
        for name, team in self.teams.items():
            shape = (*batch, team.n_agents)
            observation[name] = Composite(
                observation=Unbounded((*shape, team.observation_size)),
                action_mask=Binary(shape=(*shape, team.n_actions), dtype=torch.bool),
                shape=shape,
            )
            observation["state", name] = Unbounded((*batch, team.state_size))
            observation["active", name] = Binary(n=1, shape=(*batch, 1), dtype=torch.bool)
            action[name] = Composite(action=Categorical(team.n_actions, shape=shape), shape=shape)
            reward[name] = Composite(reward=Unbounded((*shape, 1)), shape=shape)
            done[name] = Composite(done_leaves((*shape, 1)), shape=shape)
        self.observation_spec = observation.to(self.device)
        self.action_spec = action.to(self.device)
        self.reward_spec = reward.to(self.device)
        self.done_spec = done.to(self.device)

    def _set_seed(self, seed: int | None) -> None:
        for index, team in enumerate(self.teams.values()):
            team.set_seed(None if seed is None else seed + 1009 * index)

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDict:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        mask = ~self._flags() if mask is None else mask.view(self.batch_size)
        steps = {name: team.reset(mask) for name, team in self.teams.items()}
        for finished in self._finished.values():
            finished &= ~mask
        return self._output(steps, self._finished, with_reward=False)

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        idle = dict(self._finished)
        steps = {
            name: team.step(tensordict.get((name, "action")), ~self._finished[name])
            for name, team in self.teams.items()
        }
        for name, step in steps.items():
            self._finished[name] = self._finished[name] | step.terminated | step.truncated
        return self._output(steps, idle, with_reward=True)

    def _output(
        self, steps: Mapping[str, TeamStep], idle: Mapping[str, Tensor], with_reward: bool
    ) -> TensorDict:
        """Assemble the teams' steps; ``idle`` [B] tells which were idle before this one.

        The step that ends an episode keeps its true mask, since a value may bootstrap from its
        observation, unless nothing is available in it.
        """
        out = TensorDict(
            {
                "state": TensorDict(
                    {name: step.state for name, step in steps.items()}, self.batch_size
                ),
                "active": TensorDict(
                    {name: ~self._finished[name].unsqueeze(-1) for name in steps}, self.batch_size
                ),
            },
            batch_size=self.batch_size,
            device=self.device,
        )
        if self._with_wins:
            wins = {name: steps[name].won.unsqueeze(-1) for name in self._with_wins}
            out[TEAMS_WON] = TensorDict(wins, self.batch_size, device=self.device)
        ended = torch.stack(list(self._finished.values())).all(0)
        terminated = torch.stack([step.terminated for step in steps.values()]).all(0)
        out.update(_done_flags(ended.unsqueeze(-1), (ended & terminated).unsqueeze(-1)))
        for name, step in steps.items():
            n_agents = step.observation.shape[1]
            finished = self._finished[name]
            per_agent = finished.view(-1, 1, 1).expand(-1, n_agents, 1)
            open_mask = idle[name].view(-1, 1, 1) | ~step.action_mask.any(-1, keepdim=True)
            content = {
                "observation": step.observation,
                "action_mask": step.action_mask | (per_agent & open_mask),
                **_done_flags(
                    per_agent.clone(),
                    per_agent & step.terminated.view(-1, 1, 1),
                ),
            }
            if with_reward:
                content["reward"] = step.reward.view(-1, 1, 1).expand(-1, n_agents, 1).clone()
            out[name] = TensorDict(
                content, batch_size=(*self.batch_size, n_agents), device=self.device
            )
        return out

    def close(self, **kwargs: Any) -> None:
        """Close every team's environment."""
        super().close(**kwargs)
        for team in self.teams.values():
            if not team.env.is_closed:
                team.env.close()


def _done_flags(done: Tensor, terminated: Tensor) -> dict[str, Tensor]:
    return {"done": done, "terminated": terminated, "truncated": done & ~terminated}


@dataclass
class MultiTaskConfig:
    """Schema of ``conf/task/multitask/*.yaml``.

    Args:
        tasks: each a registered BenchMARL task (``vmas/balance``) or a mapping with ``task`` and,
            as wished, ``name`` (of the agent group), ``config`` (patch of the task's own
            configuration) and ``opponents`` (agent group -> frozen policy).
        agent_id: append the one-hot agent id to the observations (paper's Table III: yes).
        reward: ``sum`` or ``mean`` of the agents' rewards (EPyMARL, and so the paper, sums).
        only: name of the one task of the set to keep, for single-task runs; None keeps all.
    """

    tasks: list[Any] = field(default_factory=list)
    agent_id: bool = True
    reward: str = "sum"
    only: str | None = None


@dataclass
class TeamConfig:
    """One entry of ``tasks``; see :class:`MultiTaskConfig`."""

    task: str
    name: str
    config: dict[str, Any] = field(default_factory=dict)
    opponents: dict[str, str] = field(default_factory=dict)

    def task_class(self) -> TaskClass:
        """Build the BenchMARL task with its configuration, patched."""
        task = benchmarl_environments.task_config_registry[self.task].get_from_yaml()
        unknown = set(self.config) - set(task.config)
        if unknown:
            raise ValueError(
                f"tasks: {self.task} has no configuration {sorted(unknown)}; "
                f"it has {sorted(task.config)}"
            )
        task.config = {**task.config, **self.config}
        if isinstance(task, Smacv2Class):
            return StarcraftClass(task.name, task.config)
        return task


def parse_tasks(entries: Sequence[Any]) -> list[TeamConfig]:
    """Check the entries of ``tasks`` and give each a name.

    Raises:
        ValueError: if the set is empty, a task is unknown, twice in the set, or has no
            discrete actions, or an entry has unknown keys.
    """
    if not entries:
        raise ValueError(
            "tasks: the task set is empty; name at least one, such as tasks=[mpe/simple_push]"
        )
    teams = [_parse_entry(entry) for entry in entries]
    names = [team.name for team in teams]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"tasks: '{name}' is in the set twice; remove one, or give the entries distinct "
                "names: {task: ..., name: ...}"
            )
        legal = name.isascii() and name.replace("_", "").isalnum()
        if name in _RESERVED or not legal or hasattr(nn.ModuleDict, name):
            raise ValueError(
                f"tasks: '{name}' cannot name a team (letters, digits and underscores, not a "
                "reserved word); choose another with name: ..."
            )
    return teams


def _parse_entry(entry: Any) -> TeamConfig:
    if not isinstance(entry, str | Mapping):
        raise ValueError(f"tasks: the entry {entry!r} must be a task's name or a mapping with task")
    entry = {"task": entry} if isinstance(entry, str) else dict(entry)
    unknown = set(entry) - {"task", "name", "config", "opponents"}
    if unknown or not isinstance(entry.get("task"), str):
        raise ValueError(
            f"tasks: the entry {entry} must be a task's name or a mapping with task and, as "
            f"wished, name, config, opponents; unknown: {sorted(unknown)}"
        )
    registry, task = benchmarl_environments.task_config_registry, entry["task"]
    if task not in registry or task.startswith("multitask/"):
        close = difflib.get_close_matches(task, registry, 3, 0.5) or sorted(registry)[:5]
        raise ValueError(
            f"tasks: unknown task '{task}'; did you mean one of {close}? "
            f"({len(registry)} tasks are registered)"
        )
    for key in ("config", "opponents"):
        if not isinstance(entry.get(key) or {}, Mapping):
            raise ValueError(f"tasks: {key} of {task} must be a mapping, got {entry[key]!r}")
    team = TeamConfig(
        task=task,
        name=str(entry.get("name") or task.split("/")[-1]),
        config=dict(entry.get("config") or {}),
        opponents=dict(entry.get("opponents") or {}),
    )
    if not team.task_class().supports_discrete_actions():
        raise ValueError(
            f"tasks: '{task}' has continuous actions only; choose tasks with discrete actions"
        )
    return team


class MultiTaskClass(DiscreteTaskClass):
    """A set of BenchMARL tasks as one BenchMARL task; each task is an agent group.

    Args:
        name: name of the set.
        config: the fields of :class:`MultiTaskConfig`.

    Raises:
        ValueError: if the configuration is wrong (one line that names the key and the remedy).
    """

    def __init__(self, name: str, config: dict[str, Any]):
        known = set(MultiTaskConfig.__dataclass_fields__)
        if set(config or {}) - known:
            raise ValueError(
                f"task: unknown keys {sorted(set(config) - known)}; there are {sorted(known)}"
            )
        super().__init__(name, asdict(MultiTaskConfig(**(config or {}))))
        if self.config["reward"] not in REWARDS:
            raise ValueError(f"reward: {self.config['reward']!r} must be one of {REWARDS}")
        self.team_configs = parse_tasks(self.config["tasks"])
        only, names = self.config["only"], [team.name for team in self.team_configs]
        if only is not None:
            if only not in names:
                raise ValueError(f"only: {only!r} is not in the task set; it has {names}")
            self.team_configs = [self.team_configs[names.index(only)]]

    def single(self, name: str) -> MultiTaskClass:
        """Return the same task set reduced to the one named, as its teacher is trained on."""
        team = next(team for team in self.team_configs if team.name == name)
        return MultiTaskClass(name, {**self.config, "tasks": [asdict(team)], "only": None})

    def get_env_fun(
        self,
        num_envs: int,
        continuous_actions: bool,
        seed: int | None,
        device: DEVICE_TYPING,
    ) -> Callable[[], EnvBase]:
        if continuous_actions:
            raise ValueError(
                "experiment.prefer_continuous_actions: multi-task sets have discrete actions only"
            )
        configs = self.team_configs
        shared = {key: self.config[key] for key in ("agent_id", "reward")}

        def make() -> MultiTaskEnv:
            teams = [
                Team(
                    team.task_class(),
                    num_envs,
                    team.name,
                    opponents=team.opponents,
                    seed=seed,
                    device=device,
                    **shared,
                )
                for team in configs
            ]
            return MultiTaskEnv(teams, seed)

        return make

    def max_steps(self, env: EnvBase) -> int:
        return env.max_steps

    def observation_spec(self, env: EnvBase) -> Composite:
        """Show each group's ``observation`` alone: what built-in algorithms read."""
        return self._select(env, "observation")

    def action_mask_spec(self, env: EnvBase) -> Composite:
        return self._select(env, "action_mask")

    def group_state_spec(self, env: EnvBase) -> dict[str, Unbounded]:
        """Return the spec [S] of each group's state, at ``("state", group)``."""
        spec = env.full_observation_spec_unbatched["state"]
        return {group: spec[group] for group in env.group_map}

    @staticmethod
    def log_info(batch: TensorDictBase) -> dict[str, float]:
        """Return the rate of battles won of every task that knows them, by its name."""
        rates: dict[str, float] = {}
        for task in batch.get("next").get(TEAMS_WON, {}).keys():
            rates |= win_rate(batch, f"collection/{task}/win_rate", ("next", TEAMS_WON, task))
        return rates

    def _select(self, env: EnvBase, key: str) -> Composite:
        spec = env.full_observation_spec_unbatched
        return Composite(
            {
                group: Composite({key: spec[group, key]}, shape=spec[group].shape)
                for group in env.group_map
            }
        )

    @staticmethod
    def env_name() -> str:
        return "multitask"


class MultiTaskTask(ShippedTask):
    """The named task sets; ``CUSTOM`` takes its tasks from the configuration."""

    CUSTOM = None
    MPE = None
    VMAS = None
    SMAX_5 = None
    SMAX_6 = None
    SMAX_8 = None
    SMAX_8_MARINES = None
    SMAX_8_MMM2 = None
    SMAX_9_10 = None
    SMAX_27 = None
    SMAX_STALKERS_ZEALOTS = None
    SMAX_SIZES = None
    SMACV2_5 = None
    SMACV2_10 = None
    SMAC_5 = None
    SMAC_8 = None

    @staticmethod
    def associated_class() -> type[TaskClass]:
        return MultiTaskClass
