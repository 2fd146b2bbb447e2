"""Which teachers a student needs, and where they are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torchrl.envs import EnvBase

from benchmarl_mkt.environments import MultiTaskClass
from benchmarl_mkt.presets import experiment_preset  # noqa: F401  (its place before)
from benchmarl_mkt.teachers.settings import TeacherSettings
from benchmarl_mkt.teachers.store import Recipe, TeacherStore
from benchmarl_mkt.teams.export import team_specs
from benchmarl_mkt.teams.frozen import FrozenTeam
from benchmarl_mkt.teams.load import damaged, load_teacher
from benchmarl_mkt.teams.scripted import scripted_team


class MissingTeachers(ValueError):
    """A student cannot learn before its teachers are trained; the message says how."""


def find_teachers(
    settings: TeacherSettings, task: MultiTaskClass, env: EnvBase
) -> dict[str, FrozenTeam]:
    """Load the teachers that are there: those that the settings name and those in the store.

    Returns task -> its teacher, in the order of the set; ``env`` is the set's environment.

    Raises:
        ValueError: if a teacher is damaged or unfit.
    """
    store, teachers = TeacherStore(settings.store), {}
    for team in task.team_configs:
        recipe, fit = None, (team_specs(env, team.name), team.task)
        named = settings.folders.get(team.name)
        if callable(named):
            one = task.single(team.name).identity
            teachers[team.name] = scripted_team(named, fit[0], one).to(env.device)
            continue
        if named is not None:
            path = Path(named)
        else:
            recipe = settings.recipe(task, team.name)
            path = store.path(recipe)
            if not path.exists():
                continue
        teachers[team.name] = load_teacher(path, *fit).to(env.device)
        if recipe is not None and not recipe.is_of(path):
            raise damaged(path, "it was trained from another recipe than its address says")
    return teachers


def missing_teachers(settings: TeacherSettings, task: MultiTaskClass) -> dict[str, Recipe]:
    """Return the recipes of the teachers that neither the settings nor the store have."""
    store = TeacherStore(settings.store)
    names = [team.name for team in task.team_configs if team.name not in settings.folders]
    recipes = {name: settings.recipe(task, name) for name in names}
    return {name: recipe for name, recipe in recipes.items() if recipe not in store}


def missing_error(
    settings: TeacherSettings, task: MultiTaskClass, missing: Iterable[str]
) -> MissingTeachers:
    """The error that names the teachers that are missing, and how to get them."""
    return MissingTeachers(
        f"teachers: none in {TeacherStore(settings.store).root} for {', '.join(missing)}. Train "
        "them with: benchmarl teachers train algorithm=mkt "
        f"task=multitask/{task.choice.lower()} and the same algorithm.* and task.* settings "
        "(in Python: benchmarl_mkt.teachers.train_teacher), or name your own with "
        "algorithm.teachers={task: folder}"
    )
