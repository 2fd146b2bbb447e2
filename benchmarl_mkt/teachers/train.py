"""Training teachers: one ordinary single-task experiment each; the best checkpoint is kept."""

from __future__ import annotations

import contextlib
import copy
import io
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from benchmarl.experiment import Experiment
from benchmarl.experiment.callback import Callback
from benchmarl.models.common import Model
from tensordict import TensorDictBase
from torch import Tensor

from benchmarl_mkt import resume
from benchmarl_mkt.best_policy import BestPolicy
from benchmarl_mkt.callbacks import standard_callbacks
from benchmarl_mkt.environments import MultiTaskClass
from benchmarl_mkt.evaluation import copies_of, play_on, random_policy, stage, teachers_policy
from benchmarl_mkt.models.multitask import MultiTaskModel, as_multitask
from benchmarl_mkt.serialisation import model_to_dict
from benchmarl_mkt.teachers.find import (
    teacher_experiment,
    teacher_model,
    teacher_recipe,
    team_specs,
)
from benchmarl_mkt.teachers.load import Teacher, calibrated_temperature
from benchmarl_mkt.teachers.store import METADATA, Recipe, TeacherStore, write_teacher

if TYPE_CHECKING:
    from benchmarl_mkt.algorithms.mkt import MktConfig

_SCORING_SEED = 10_000  # far from the seeds of training
Progress = Callable[[int, int, float], None]


class ShowProgress(Callback):
    """Tells how far training is: calls ``show`` with (frames, total frames, best mean return)."""

    def __init__(self, show: Progress, best: BestPolicy):
        super().__init__()
        self._show, self._best = show, best

    def __getstate__(self) -> dict[str, Any]:
        """BenchMARL pickles an experiment's callbacks; where progress goes is not part of it."""
        return {"experiment": None}

    def on_batch_collected(self, batch: TensorDictBase) -> None:
        total = self.experiment.config.get_max_n_frames(self.experiment.on_policy)
        best = self._best.best
        level = -float("inf") if best is None else float(best.returns)
        self._show(min(self.experiment.total_frames, total), total, level)


def agents_of(experiment: Experiment, group: str) -> Model:
    """Return the network of a group's agents from a BenchMARL experiment."""
    policy = experiment.algorithm.get_policy_for_loss(group)
    return next(module for module in policy.modules() if isinstance(module, Model))


def train_teacher(
    config: MktConfig, task: MultiTaskClass, name: str, progress: Progress | None = None
) -> Path:
    """Train the teacher of task ``name`` unless the store has it; return its folder.

    Args:
        config: the student's algorithm configuration, which holds the teacher's recipe.
        task: the task set.
        name: the task (group) to train for.
        progress: see :class:`ShowProgress`.
    """
    store, recipe = TeacherStore(config.teacher_store), teacher_recipe(config, task, name)
    folder = store.root / f".{recipe.key}.training"  # what is unfinished goes on from there
    with store.lock(recipe):
        if recipe not in store:
            folder.mkdir(exist_ok=True)
            _train(config, task.single(name), store, recipe, folder, progress)
        remove_leftovers(store)
        return store.path(recipe)


def remove_leftovers(store: TeacherStore) -> None:
    """Remove what the trainings of teachers that are in the store have left there, if killed."""
    for folder in store.root.glob(".*.*/"):
        key = folder.name.removeprefix(".").partition(".")[0]
        if (store.root / key / METADATA).is_file():
            shutil.rmtree(folder, ignore_errors=True)


def _train(
    config: MktConfig,
    task: MultiTaskClass,
    store: TeacherStore,
    recipe: Recipe,
    folder: Path,
    progress: Progress | None,
) -> None:
    preset = teacher_experiment(config)
    preset.loggers, preset.save_folder = [], str(folder)
    preset.parallel_collection = task.config["parallel_collection"]
    preset.restore_file = resume.in_folder(folder / "run")
    preset.checkpoint_at_end, preset.checkpoint_interval = False, 0
    best = BestPolicy()
    callbacks = [best, *standard_callbacks()]
    experiment = Experiment(
        task=task,
        algorithm_config=config.teacher_config(),
        model_config=teacher_model(config),
        seed=config.teacher_seed,
        config=preset,
        callbacks=[*callbacks, *([ShowProgress(progress, best)] if progress else [])],
    )
    with contextlib.redirect_stderr(io.StringIO()):
        resume.run(experiment)
    (name,) = (team.name for team in task.team_configs)
    experiment.policy.load_state_dict(best.best.weights)
    weights = agents_of(experiment, name).state_dict()
    store.save(recipe, weights, describe(experiment, name, weights))


def export_teacher(experiment: Experiment, group: str, path: str | Path) -> Path:
    """Write the agents of ``group`` of any discrete BenchMARL experiment as a teacher's folder.

    The experiment's task must be a task set (:class:`~benchmarl_mkt.environments.MultiTaskClass`),
    so that the teacher sees what the student will see.

    Raises:
        ValueError: if the task is no task set, has no such group, or the folder exists.
    """
    path = Path(path).expanduser()
    if not isinstance(experiment.task, MultiTaskClass):
        raise ValueError(
            "task: a teacher must come from a task set, such as task=multitask/custom "
            "'task.tasks=[vmas/balance]'"
        )
    if group not in experiment.algorithm.group_map:
        raise ValueError(f"group: {group!r} is not one of {sorted(experiment.algorithm.group_map)}")
    if path.exists():
        raise ValueError(f"path: {path} exists; choose another folder or remove it")
    weights = agents_of(experiment, group).state_dict()
    return write_teacher(path, weights, describe(experiment, group, weights))


def describe(experiment: Experiment, group: str, weights: dict[str, Tensor]) -> dict[str, Any]:
    """Score the agents with ``weights`` on fresh episodes; return what ``teacher.json`` says."""
    model, task = copy.deepcopy(agents_of(experiment, group)), experiment.task.single(group)
    model.load_state_dict(weights)
    config = experiment.model_config
    if isinstance(model, MultiTaskModel):  # whose trunk alone the configuration may have named
        config = as_multitask(config)
    metadata = {
        "kind": "values" if model.out_key[-1] == "action_value" else "logits",
        "task": task.identity,
        "copies": copies_of(experiment),
        "specs": vars(team_specs(experiment.test_env, group)),
        "model": model_to_dict(config),
        "share_params": experiment.config.share_policy_params,
        "algorithm": experiment.algorithm_name,
        "seed": experiment.seed,
        "frames": int(experiment.total_frames),
        "versions": {p: version(p) for p in ("benchmarl", "torchrl", "tensordict", "torch")},
    }
    values, masks = [], []

    def watch(_: str, found: Tensor, data: TensorDictBase) -> None:
        active = data.get(("active", group)).squeeze(-1)
        values.append(found[active].flatten(0, 1).cpu())
        masks.append(data.get((group, "action_mask"))[active].flatten(0, 1).cpu())

    device = next(model.parameters()).device
    policy = teachers_policy({group: Teacher(model, metadata, Path())}, watch)
    episodes = task.final_episodes
    with stage(task, min(copies_of(experiment), episodes), device) as env:
        for name, chosen in (("score", policy), ("random", random_policy([group]))):
            interval = play_on(env, chosen, episodes, _SCORING_SEED).score(group).returns
            metadata[name] = {**interval._asdict(), "episodes": episodes}
    seen = torch.cat(values), torch.cat(masks)
    return {**metadata, "temperature": calibrated_temperature(*seen, metadata["kind"])}
