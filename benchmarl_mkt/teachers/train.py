"""Training teachers: one ordinary single-task experiment each; the best checkpoint is kept."""

from __future__ import annotations

import contextlib
import copy
import io
import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarl.experiment import Experiment
from tensordict import TensorDictBase

from benchmarl_mkt.environments import MultiTaskClass
from benchmarl_mkt.teachers.settings import TeacherSettings
from benchmarl_mkt.teachers.store import Recipe, TeacherStore
from benchmarl_mkt.teams.export import scored_team
from benchmarl_mkt.teams.folder import METADATA
from benchmarl_mkt.training import resume, standard_callbacks
from benchmarl_mkt.training.best_policy import BestPolicy
from benchmarl_mkt.training.monitors import RunCallback, setting_up

Progress = Callable[[int, int, float], None]


class ShowProgress(RunCallback):
    """Tells how far training is: calls ``show`` with (frames, total frames, best mean return)."""

    def __init__(self, show: Progress, best: BestPolicy):
        super().__init__()
        self._show, self._best = show, best

    def __getstate__(self) -> dict[str, None]:
        return {"experiment": None}  # where progress goes cannot be pickled

    def on_batch_collected(self, batch: TensorDictBase) -> None:
        total = self.experiment.config.get_max_n_frames(self.experiment.on_policy)
        best = self._best.best
        level = -float("inf") if best is None else float(best.returns)
        self._show(min(self.experiment.total_frames, total), total, level)


def train_teacher(
    settings: TeacherSettings, task: MultiTaskClass, name: str, progress: Progress | None = None
) -> Path:
    """Train the teacher of task ``name`` unless the store has it; return its folder.

    Args:
        settings: how it is trained, such as ``MktConfig(...).teacher_settings``.
        task: the task set.
        name: the task (group) to train for.
        progress: see :class:`ShowProgress`.
    """
    settings = getattr(settings, "teacher_settings", settings)  # it was the student's configuration
    store, recipe = TeacherStore(settings.store), settings.recipe(task, name)
    folder = store.root / f".{recipe.key}.training"  # what is unfinished goes on from there
    with store.lock(recipe):
        if recipe not in store:
            folder.mkdir(exist_ok=True)
            _train(settings, task.single(name), store, recipe, folder, progress)
        remove_leftovers(store)
        return store.path(recipe)


def remove_leftovers(store: TeacherStore) -> None:
    """Remove what the trainings of teachers that are in the store have left there, if killed."""
    for folder in store.root.glob(".*.*/"):
        key = folder.name.removeprefix(".").partition(".")[0]
        if (store.root / key / METADATA).is_file():
            shutil.rmtree(folder, ignore_errors=True)


def _train(
    settings: TeacherSettings,
    task: MultiTaskClass,
    store: TeacherStore,
    recipe: Recipe,
    folder: Path,
    progress: Progress | None,
) -> None:
    config = copy.copy(settings.experiment)
    config.loggers, config.save_folder = [], str(folder)
    config.parallel_collection = task.config["parallel_collection"]
    config.restore_file = resume.in_folder(folder / "run")
    config.checkpoint_at_end, config.checkpoint_interval = False, 0
    best = BestPolicy()
    callbacks = [best, *standard_callbacks()]
    if progress is not None:
        callbacks.append(ShowProgress(progress, best))
    with setting_up("algorithm.teacher.experiment"):
        experiment = Experiment(
            task=task,
            algorithm_config=settings.algorithm,
            model_config=settings.model,
            seed=settings.seed,
            config=config,
            callbacks=callbacks,
        )
    with contextlib.redirect_stderr(io.StringIO()):
        resume.run(experiment)
    (name,) = experiment.algorithm.group_map
    with best.in_use():
        store.save(recipe, *scored_team(experiment, name))
