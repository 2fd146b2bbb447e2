"""Which teachers a student needs, and where they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarl.experiment import ExperimentConfig
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torchrl.envs import EnvBase

from benchmarl_mkt.environments import MultiTaskClass
from benchmarl_mkt.environments.opponents import policy_path
from benchmarl_mkt.models import MultiTaskModelConfig
from benchmarl_mkt.models.multitask import as_multitask, trunk_config
from benchmarl_mkt.paths import conf_path
from benchmarl_mkt.serialisation import model_from_dict, model_to_dict
from benchmarl_mkt.teachers.load import Teacher, load_teacher
from benchmarl_mkt.teachers.store import Recipe, TeacherSpecs, TeacherStore, sha256
from benchmarl_mkt.yaml_files import read_yaml

if TYPE_CHECKING:
    from benchmarl_mkt.algorithms.mkt import MktConfig

# What environments are played by. VMAS has no first version: its time limit was an end then.
GAMES = {
    **{"mpe": "mpe2", "smax": "jaxmarl", "smac": "smacv2", "smacv2": "smacv2", "vmas": "vmas"},
    **{"pettingzoo": "pettingzoo", "magent": "magent2", "meltingpot": "dm-meltingpot"},
}
_FIRST_GAMES = ("mpe2 1.1.1", "jaxmarl 0.2.0", "smacv2 1.0.0")
# Fields of an experiment that do not bear on what is learned.
_IRRELEVANT = {
    "sampling_device", "train_device", "buffer_device", "render", "loggers", "project_name",
    "wandb_extra_kwargs", "create_json", "save_folder", "restore_file", "restore_map_location",
    "checkpoint_interval", "checkpoint_at_end", "keep_checkpoints_num",
    "exclude_buffer_from_checkpoint", "parallel_collection",
}  # fmt: skip


def experiment_preset(name: str) -> ExperimentConfig:
    """Read an experiment preset of this package: BenchMARL's base, then the files it builds on.

    Args:
        name: a file of ``conf/experiment`` without its ending, or a path to a YAML file.
            (The command line finds names on Hydra's whole search path.)

    Raises:
        ValueError: if there is no such file, it is no mapping of YAML, or a key or type is wrong.
    """
    config, schema = ExperimentConfig.get_from_yaml(), OmegaConf.structured(ExperimentConfig)
    for key, value in _read_preset("experiment", name).items():
        if not hasattr(config, key):
            raise ValueError(f"algorithm.teacher_experiment: {name} has an unknown key '{key}'")
        try:
            schema[key] = value
            typed = OmegaConf.to_container(schema)[key]
        except OmegaConfBaseException as error:
            raise ValueError(
                f"algorithm.teacher_experiment: {name}: {key}: {str(error).splitlines()[0]}"
            ) from error
        setattr(config, key, value if typed == value else typed)  # YAML reads 1e-3 as a text
    return config


def _read_preset(group: str, name: str, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A preset's values over those of the presets in its ``defaults`` list."""
    key, folder = f"algorithm.teacher_{group}", conf_path() / group
    places = [folder, *(path.parent for path in above[-1:])]
    files = [place / f"{name}.yaml" for place in places] + [Path(name).expanduser()]
    path = next((path for path in files if path.is_file()), None)
    if path is None:
        known = sorted(preset.stem for preset in folder.glob("*.yaml"))
        kind = {"experiment": "preset"}.get(group, group)
        raise ValueError(f"{key}: no {kind} '{name}'; use one of {known} or a YAML file")
    try:
        values = read_yaml(path) or {}
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    if not isinstance(values, dict) or not all(isinstance(field, str) for field in values):
        raise ValueError(f"{key}: {path} must hold keys and values")
    merged: dict[str, Any] = {}
    bases = values.pop("defaults", [])
    if path in above or not isinstance(bases, list) or not all(isinstance(b, str) for b in bases):
        raise ValueError(f"{key}: {path}: defaults must be a list of other presets")
    for base in bases:
        if base not in ("_self_", "base_experiment", "experiment_config"):
            merged.update(_read_preset(group, base, (*above, path)))
    return {**merged, **values}


def teacher_experiment(config: MktConfig) -> ExperimentConfig:
    """Return the experiment configuration that teachers are trained with.

    It is the preset named by the student's configuration, evaluated on the same episodes each
    time, so that the best checkpoint is the best by the same measure.
    """
    preset = experiment_preset(config.teacher_experiment)
    preset.evaluation = preset.evaluation_static = preset.create_json = True
    return preset


def teacher_model(config: MktConfig) -> MultiTaskModelConfig:
    """Return the teachers' network: the model preset that the configuration names.

    Raises:
        ValueError: if there is no such preset, or it is of no model.
    """
    values = _read_preset("model", config.teacher_model)
    try:
        return as_multitask(model_from_dict(values))
    except ValueError as error:
        raise ValueError(f"algorithm.teacher_model: {config.teacher_model}: {error}") from error


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


def teacher_recipe(config: MktConfig, task: MultiTaskClass, name: str) -> Recipe:
    """Return the recipe of the teacher of task ``name`` that a student's configuration asks for."""
    single = task.single(name)
    team, model = single.team_configs[0], teacher_model(config)
    experiment, algorithm = asdict(teacher_experiment(config)), config.teacher_config()
    unused = "off_policy_" if algorithm.on_policy() else "on_policy_"
    of_students = {"trunk", "freeze_trunk"}
    settings = {
        key: value
        for key, value in asdict(algorithm).items()
        if not key.startswith("teacher") and key not in of_students
    }
    return Recipe(
        task={
            "task": team.task,
            "config": dict(team.task_class().config),
            "opponents": {
                group: sha256(policy_path(source)) for group, source in team.opponents.items()
            },
            "agent_id": single.config["agent_id"],
            "reward": single.config["reward"],
        },
        algorithm={"name": config.teacher_algorithm.get("name", "mkt"), **settings},
        model={**model_to_dict(model), "trunk": model_to_dict(trunk_config(model.trunk))},
        experiment={
            key: value
            for key, value in experiment.items()
            if key not in _IRRELEVANT and not key.startswith(unused)
        },
        seed=config.teacher_seed,
        game=game_of(team.task),
    )


def team_specs(env: EnvBase, name: str) -> TeacherSpecs:
    """Return the sizes of a team of a :class:`~benchmarl_mkt.environments.MultiTaskEnv`."""
    team = env.teams[name]
    return TeacherSpecs(team.n_agents, team.observation_size, team.n_actions)


def missing_teachers(config: MktConfig, task: MultiTaskClass) -> dict[str, Recipe]:
    """Return the recipes of the teachers that neither the configuration nor the store has."""
    store = TeacherStore(config.teacher_store)
    recipes = _unnamed_recipes(config, task)
    return {name: recipe for name, recipe in recipes.items() if recipe not in store}


def _unnamed_recipes(config: MktConfig, task: MultiTaskClass) -> dict[str, Recipe]:
    """The recipes of the tasks whose teacher the configuration does not name."""
    names = (team.name for team in task.team_configs)
    return {
        name: teacher_recipe(config, task, name) for name in names if name not in config.teachers
    }


def find_teachers(config: MktConfig, task: MultiTaskClass, env: EnvBase) -> dict[str, Teacher]:
    """Load the teacher of every task.

    Raises:
        ValueError: if a named teacher is of no task in the set, or a teacher is missing, damaged
            or does not fit its task.
    """
    teachers = present_teachers(config, task, env)
    missing = [team.name for team in task.team_configs if team.name not in teachers]
    if missing:
        raise ValueError(
            f"teachers: none in {TeacherStore(config.teacher_store).root} for "
            f"{', '.join(missing)}. Train them with: benchmarl teachers train algorithm=mkt "
            f"task=multitask/{task.choice.lower()} and the same algorithm.* and task.* settings "
            "(in Python: benchmarl_mkt.teachers.train_teacher), or name your own with "
            "algorithm.teachers={task: folder}"
        )
    return {team.name: teachers[team.name] for team in task.team_configs}


def present_teachers(config: MktConfig, task: MultiTaskClass, env: EnvBase) -> dict[str, Teacher]:
    """Load the teachers that are there: those named in the configuration and those in the store.

    Raises:
        ValueError: if a named teacher is of no task in the set, or one is damaged or unfit.
    """
    check_named(config.teachers, [team.name for team in task.team_configs])
    store, recipes = TeacherStore(config.teacher_store), _unnamed_recipes(config, task)
    stored = {name: store.path(recipe) for name, recipe in recipes.items() if recipe in store}
    tasks = {team.name: team.task for team in task.team_configs}
    return {
        name: load_teacher(path, team_specs(env, name), tasks[name], recipes.get(name)).to(
            env.device
        )
        for name, path in {**config.teachers, **stored}.items()
    }


def check_named(teachers: Mapping[str, str], names: list[str]) -> None:
    """Check that every named teacher belongs to a task of the set."""
    unknown = set(teachers) - set(names)
    if unknown:
        raise ValueError(
            f"algorithm.teachers: {sorted(unknown)} are not in the task set; it has {names}"
        )
