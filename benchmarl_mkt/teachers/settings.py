"""How a student's teachers are trained, and by what each is addressed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarl.algorithms import algorithm_config_registry
from benchmarl.algorithms.common import AlgorithmConfig
from benchmarl.experiment import ExperimentConfig

from benchmarl_mkt.environments import MultiTaskClass
from benchmarl_mkt.environments.opponents import policy_path
from benchmarl_mkt.files import sha256
from benchmarl_mkt.models import MultiTaskModelConfig
from benchmarl_mkt.models.multitask import trunk_config
from benchmarl_mkt.models.serialisation import model_to_dict
from benchmarl_mkt.teachers.store import Recipe
from benchmarl_mkt.teams.scripted import Script

# What environments are played by. VMAS has no first version: its time limit was an end then.
GAMES = {
    "mpe": "mpe2",
    "smax": "jaxmarl",
    "smac": "smacv2",
    "smacv2": "smacv2",
    "vmas": "vmas",
    "pettingzoo": "pettingzoo",
    "magent": "magent2",
    "meltingpot": "dm-meltingpot",
}
_FIRST_GAMES = ("mpe2 1.1.1", "jaxmarl 0.2.0", "smacv2 1.0.0")
# Settings of tasks that came later, with what held before: the keys of teachers from before stay.
_ADDED: dict[str, dict[str, Any]] = {"mpe/simple_spread": {"n_agents": 3}}
# The fields of algorithm=mkt and of an experiment that make another teacher; of an experiment also
# those of the algorithm's kind (on_policy_*, off_policy_*).
ALGORITHM_FIELDS = (
    "mixer", "mixing_embed_dim", "state_embed_dim", "hypernet_embed_dim", "temperature",
    "share_temperature", "annealing", "double_q", "standardise_rewards", "hysteresis", "lmbda",
    "update",
)  # fmt: skip
EXPERIMENT_FIELDS = (
    "share_policy_params", "prefer_continuous_actions", "collect_with_grad", "gamma", "lr",
    "adam_eps", "adam_extra_kwargs", "clip_grad_norm", "clip_grad_val", "soft_target_update",
    "polyak_tau", "hard_target_update_frequency", "exploration_eps_init", "exploration_eps_end",
    "exploration_anneal_frames", "max_n_iters", "max_n_frames", "evaluation",
    "evaluation_interval", "evaluation_episodes", "evaluation_deterministic_actions",
    "evaluation_static",
)  # fmt: skip


@dataclass
class TeacherSettings:
    """How the teachers of a student are trained, and where they are.

    Args:
        algorithm: the teachers' algorithm, of this package or of BenchMARL.
        experiment: its experiment; evaluated on the same episodes each time, so that the best
            checkpoint is the best by the same measure.
        model: the teachers' network.
        seed: seed of their training.
        store: folder of the store; None is :func:`~benchmarl_mkt.files.default_store_path`.
        folders: task -> folder of a teacher that is there already, or a script (see
            :class:`~benchmarl_mkt.teams.scripted.ScriptedNetwork`).
    """

    algorithm: AlgorithmConfig
    experiment: ExperimentConfig
    model: MultiTaskModelConfig
    seed: int = 0
    store: str | None = None
    folders: dict[str, str | Script] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.experiment = copy.copy(self.experiment)
        self.experiment.evaluation = self.experiment.evaluation_static = True
        self.experiment.create_json = True

    def recipe(self, task: MultiTaskClass, team_name: str) -> Recipe:
        """Return everything that determines the teacher of a task, to address it by."""
        single = task.single(team_name)
        team, kind = single.team_configs[0], "on" if self.algorithm.on_policy() else "off"
        algorithm, experiment = asdict(self.algorithm), asdict(self.experiment)
        of_kind = [key for key in experiment if key.startswith(f"{kind}_policy_")]
        name = algorithm_name(self.algorithm)
        of_algorithm = ALGORITHM_FIELDS if name == "mkt" else tuple(algorithm)
        trunk = model_to_dict(trunk_config(self.model.trunk))
        config, added = team.task_class().config, _ADDED.get(team.task, {})
        opponents = {group: sha256(policy_path(file)) for group, file in team.opponents.items()}
        return Recipe(
            task={
                "task": team.task,
                "config": {k: v for k, v in config.items() if k not in added or v != added[k]},
                "opponents": opponents,
                "agent_id": single.config["agent_id"],
                "reward": single.config["reward"],
            },
            algorithm={"name": name, **{key: algorithm[key] for key in of_algorithm}},
            model={**model_to_dict(self.model), "trunk": trunk},
            experiment={key: experiment[key] for key in (*EXPERIMENT_FIELDS, *of_kind)},
            seed=self.seed,
            game=game_of(team.task),
        )


def algorithm_name(config: AlgorithmConfig) -> str:
    """Return the name by which an algorithm is registered."""
    return config.associated_class().__name__.lower()


def builtin_algorithm(name: str, settings: Mapping[str, Any]) -> AlgorithmConfig:
    """Return BenchMARL's configuration of an algorithm, changed by ``settings``.

    Raises:
        ValueError: if it is none with discrete actions, or has no such setting.
    """
    known = sorted(
        other
        for other, kind in algorithm_config_registry.items()
        if kind.supports_discrete_actions() and not kind.__module__.startswith("benchmarl_mkt.")
    )
    if name not in known:
        raise ValueError(
            f"algorithm.teacher.algorithm.name: {name!r} must be mkt or one of {known}"
        )
    config = algorithm_config_registry[name].get_from_yaml()
    unknown = set(settings) - set(vars(config))
    if unknown:
        raise ValueError(
            f"algorithm.teacher.algorithm: unknown {sorted(unknown)}; {name} has "
            f"{sorted(vars(config))}"
        )
    return type(config)(**{**vars(config), **settings})


def game_of(task: str) -> str:
    """Name what a task is played by, with its version: another version is another game.

    Returns:
        An empty text for the versions that the first stores were filled with, whose keys stay, and
        for a user's own tasks, whose versions nobody knows.
    """
    package = GAMES.get(task.partition("/")[0])
    try:
        game = f"{package} {version(package)}" if package else ""
    except PackageNotFoundError:
        return ""
    return "" if game in _FIRST_GAMES else game
