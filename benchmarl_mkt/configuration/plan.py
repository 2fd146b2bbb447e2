"""What a composed configuration asks for, as BenchMARL's objects, checked against each other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from benchmarl.algorithms.common import AlgorithmConfig
from benchmarl.environments import task_config_registry
from benchmarl.environments.common import TaskClass
from benchmarl.experiment import ExperimentConfig
from benchmarl.hydra_config import (
    load_algorithm_config_from_hydra,
    load_experiment_config_from_hydra,
    load_model_config_from_hydra,
    load_task_config_from_hydra,
)
from benchmarl.models import model_config_registry
from benchmarl.models.common import ModelConfig
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.algorithms.checks import check_experiment, check_task
from benchmarl_mkt.configuration.experiment import check_loggers, check_settings, check_writable
from benchmarl_mkt.configuration.rehearsal import rehearse
from benchmarl_mkt.models.multitask import as_multitask
from benchmarl_mkt.teachers import TeacherStore
from benchmarl_mkt.teachers.find import (
    missing_teachers,
    present_teachers,
    teacher_experiment,
    teacher_model,
)


class Plan(NamedTuple):
    """One run, as BenchMARL's ``Experiment`` takes it; ``name`` is the task's in Hydra."""

    name: str
    task: TaskClass
    algorithm: AlgorithmConfig
    experiment: ExperimentConfig
    model: ModelConfig
    critic_model: ModelConfig
    seed: int

    @property
    def wants_teachers(self) -> bool:
        """Whether the run needs teachers."""
        return isinstance(self.algorithm, MktConfig) and self.algorithm.uses_teacher


def plan(cfg: DictConfig, name: str) -> Plan:
    """Build a run's objects from its configuration.

    Args:
        cfg: the composed configuration.
        name: the choice of the group ``task``.

    Raises:
        ValueError: if a value is wrong (one line that names the key).
    """
    if name not in task_config_registry:
        raise ValueError(f"task: {name!r} is not registered; choose ENVIRONMENT/TASK")
    for key in ("model", "critic_model"):
        for model in _built(key, partial(_model_names, cfg[key])):
            if model not in model_config_registry:
                raise ValueError(
                    f"{key}.name: {model!r} is not one of {sorted(model_config_registry)}"
                )
    return Plan(
        name,
        _built("task", lambda: load_task_config_from_hydra(cfg.task, name)),
        _built("algorithm", lambda: load_algorithm_config_from_hydra(cfg.algorithm)),
        _built("experiment", lambda: load_experiment_config_from_hydra(cfg.experiment)),
        _built("model", lambda: load_model_config_from_hydra(cfg.model)),
        _built("critic_model", lambda: load_model_config_from_hydra(cfg.critic_model)),
        cfg.seed,
    )


def _model_names(model: DictConfig) -> list[str]:
    layers = model.get("layers") or {"": model}
    return [str(layer.get("name")) for layer in layers.values()]


def _built(key: str, build: Callable[[], Any]) -> Any:
    try:
        return build()
    except (OmegaConfBaseException, TypeError, AttributeError, LookupError) as error:
        reason = str(error).splitlines()[0].split("__init__() ")[-1]
        raise ValueError(f"{key}: {reason}") from error


def check(plan: Plan, for_teachers: bool = False) -> None:
    """Check what the objects of a plan cannot know of each other.

    Args:
        plan: the run.
        for_teachers: whether its teachers alone are wanted.

    Raises:
        ValueError: if something does not fit (one line that names key, value and remedy).
        ImportError: if the task's environment is not installed.
    """
    algorithm, task = plan.algorithm, plan.task
    if for_teachers and not isinstance(algorithm, MktConfig):
        raise ValueError("algorithm: teachers are trained for algorithm=mkt")
    check_settings(plan.experiment, algorithm.on_policy())
    if not for_teachers:
        check_loggers(plan.experiment)
    if not isinstance(algorithm, MktConfig):
        return
    as_multitask(plan.model)
    check_experiment(plan.experiment)
    if plan.wants_teachers:
        preset, name = teacher_experiment(algorithm), "algorithm.teacher_experiment"
        check_settings(preset, algorithm.teacher_config().on_policy(), name)
        check_experiment(preset, name)
    make = task.get_env_fun(1, continuous_actions=False, seed=0, device="cpu")
    with contextlib.closing(make()) as env:
        check_task(algorithm, task, env)
        if not plan.wants_teachers:
            return
        present_teachers(algorithm, task, env)
        if missing_teachers(algorithm, task):
            check_writable("algorithm.teacher_store", TeacherStore(algorithm.teacher_store).root)


def rehearsed(plan: Plan) -> None:
    """Set up the run, and the training of a missing teacher, once for trial.

    Raises:
        ValueError: if that fails.
    """
    task, algorithm = plan.task, plan.algorithm
    models = {"model": plan.model, "critic_model": plan.critic_model}
    rehearse("experiment", task, algorithm, config=plan.experiment, seed=plan.seed, **models)
    missing = missing_teachers(algorithm, task) if plan.wants_teachers else ()
    for name in list(missing)[:1]:
        rehearse(
            "algorithm.teacher_experiment",
            task.single(name),
            algorithm.teacher_config(),
            teacher_model(algorithm),
            teacher_experiment(algorithm),
        )
