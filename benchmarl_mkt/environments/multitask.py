"""Task sets: several BenchMARL tasks as one, each an agent group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from benchmarl.environments.common import TaskClass
from benchmarl.utils import DEVICE_TYPING
from tensordict import TensorDictBase
from torchrl.data import Unbounded
from torchrl.envs import EnvBase, ExcludeTransform, Transform

from benchmarl_mkt.environments.common import DiscreteTaskClass, ShippedTask
from benchmarl_mkt.environments.rounds import MultiTaskEnv
from benchmarl_mkt.environments.task_set import RUN_FIELDS, MultiTaskConfig, parse_tasks, set_names
from benchmarl_mkt.environments.team import REWARDS, Team
from benchmarl_mkt.environments.wins import TEAMS_WON, win_rate
from benchmarl_mkt.models.layout import EntityLayout

FINAL_EPISODES = 500


class MultiTaskClass(DiscreteTaskClass):
    """A set of BenchMARL tasks as one BenchMARL task; each task is an agent group.

    Args:
        name: the set's file in ``conf/task/multitask``; others may be called as they like. The
            attribute ``name`` says besides what is in a set that is not shipped.
        config: the fields of :class:`MultiTaskConfig`.

    Raises:
        ValueError: if the configuration is wrong (one line that names the key and the remedy).
    """

    def __init__(self, name: str, config: dict[str, Any]):
        known, config = set(MultiTaskConfig.__dataclass_fields__), config or {}
        unknown = sorted(set(config) - known)
        if unknown:
            raise ValueError(f"task: unknown keys {unknown}; there are {sorted(known)}")
        super().__init__(name, asdict(MultiTaskConfig(**config)))
        if self.config["reward"] not in REWARDS:
            raise ValueError(f"reward: {self.config['reward']!r} must be one of {REWARDS}")
        final = self.config["final_episodes"]
        if final is not None and (type(final) is not int or final < 1):
            raise ValueError(f"final_episodes: {final!r} must be null or at least 1")
        self.team_configs = parse_tasks(self.config["tasks"])
        self.choice = name
        self.set_name, self.name = set_names(name, self.config, self.team_configs)
        only, names = self.config["only"], [team.name for team in self.team_configs]
        if only is not None:
            if only not in names:
                raise ValueError(f"only: {only!r} is not in the task set; it has {names}")
            self.team_configs = [self.team_configs[names.index(only)]]

    @property
    def final_episodes(self) -> int:
        """Episodes that score a finished run and its teachers."""
        return self.config["final_episodes"] or FINAL_EPISODES

    @property
    def identity(self) -> dict[str, Any]:
        """The configuration without what says how the set is run."""
        return {key: value for key, value in self.config.items() if key not in RUN_FIELDS}

    def single(self, name: str) -> MultiTaskClass:
        """Return the same task set reduced to the one named, as its teacher is trained on."""
        team = next(team for team in self.team_configs if team.name == name)
        return MultiTaskClass(self.choice, {**self.config, "tasks": [asdict(team)], "only": None})

    def get_env_fun(
        self, num_envs: int, continuous_actions: bool, seed: int | None, device: DEVICE_TYPING
    ) -> Callable[[], EnvBase]:
        if continuous_actions:
            raise ValueError(
                "experiment.prefer_continuous_actions: multi-task sets have discrete actions only"
            )
        options = {key: self.config[key] for key in ("agent_id", "reward")}
        options |= {"seed": seed, "device": device, "parallel": self.config["parallel_collection"]}
        configs = self.team_configs

        def make() -> MultiTaskEnv:
            teams = [
                Team(one.task_class(), num_envs, one.name, opponents=one.opponents, **options)
                for one in configs
            ]
            return MultiTaskEnv(teams, seed)

        return make

    def max_steps(self, env: EnvBase) -> int:
        return env.max_steps

    def entity_layout(self, env: EnvBase) -> dict[str, EntityLayout]:
        """Return the layouts of the tasks that have one."""
        return {name: team.layout for name, team in env.teams.items() if team.layout is not None}

    def group_state_spec(self, env: EnvBase) -> dict[str, Unbounded]:
        """Return the spec [S] of each group's state, its own or that of all its observations."""
        return {name: Unbounded((team.state_size,)) for name, team in env.teams.items()}

    def get_replay_buffer_transforms(self, env: EnvBase, group: str) -> list[Transform]:
        """Show built-in algorithms the team's own episodes, without states, which they never read.

        MKT has a buffer of its own.
        """
        states = ExcludeTransform("state", ("next", "state"), inverse=True)
        return [OwnEpisode(group), states]

    @staticmethod
    def log_info(batch: TensorDictBase) -> dict[str, float]:
        """Return the rate of battles won of every task that knows them, by its name."""
        rates: dict[str, float] = {}
        for task in batch.get("next").get(TEAMS_WON, {}).keys():
            rates |= win_rate(batch, f"collection/{task}/win_rate", ("next", TEAMS_WON, task))
        return rates

    @staticmethod
    def env_name() -> str:
        return "multitask"


class OwnEpisode(Transform):
    """Shows one team its own episodes in what BenchMARL samples from the team's replay buffer.

    BenchMARL's QMIX and VDN take an episode's end from the root, where it is the round's: they get
    the team's own. Steps in which the team has idled teach nothing: in a minibatch [B] of single
    steps its own steps, repeated in turn, stand in their place. Sequences (recurrent models) and
    minibatches of idle steps alone are left as they are but for the ends.
    """

    def __init__(self, group: str):
        super().__init__()
        self.group = group

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        after = tensordict.get("next")
        for flag in ("done", "terminated", "truncated"):
            after.set(flag, after.get((self.group, flag)).any(-2))
        active = tensordict.get(("active", self.group)).squeeze(-1)
        if active.ndim > 1 or active.all() or not active.any():
            return tensordict
        own = active.nonzero().squeeze(-1)
        rows = torch.arange(len(active), device=active.device)
        rows[~active] = own.repeat(-(-len(active) // len(own)))[: len(active) - len(own)]
        return tensordict[rows]


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
    SMAX_22 = None
    SMAX_STALKERS_ZEALOTS = None
    SMAX_SIZES = None
    SMACV2_5 = None
    SMACV2_10 = None
    SMAC_5 = None
    SMAC_8 = None

    @staticmethod
    def associated_class() -> type[TaskClass]:
        return MultiTaskClass
