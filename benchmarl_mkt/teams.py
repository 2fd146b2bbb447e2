"""Trained teams on disk: what a run leaves, to be evaluated, shared and taught from.

A team is a folder with a teacher's folder for every task (JSON and safetensors): one format, so
that a student can teach in its turn, and no code runs when one is loaded.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from benchmarl.experiment import Experiment

from benchmarl_mkt import register
from benchmarl_mkt.environments import MultiTaskClass
from benchmarl_mkt.evaluation import COPIES, Score, play_on, random_policy, stage, teachers_policy
from benchmarl_mkt.teachers.load import Teacher, load_teacher
from benchmarl_mkt.teachers.store import METADATA
from benchmarl_mkt.teachers.train import export_teacher
from benchmarl_mkt.team_policy import TeamPolicy

FOLDER = "team"  # in a run's folder


def export_team(experiment: Experiment, folder: Path) -> Path:
    """Write the experiment's agents of every group, as they are, into ``folder``.

    A team that is there is replaced. See :func:`~benchmarl_mkt.teachers.export_teacher`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for group in experiment.algorithm.group_map:
        export_teacher(experiment, group, folder / group)
    return folder


def load_team(path: str | Path) -> dict[str, TeamPolicy]:
    """Load a trained team, to act with: task -> a TensorDictModule from observation to action.

    Neither BenchMARL nor Hydra is needed around it; see
    :class:`~benchmarl_mkt.team_policy.TeamPolicy` for the keys.

    Args:
        path: as for :func:`load_agents`.

    Raises:
        ValueError: as :func:`load_agents`.
    """
    return {task: TeamPolicy(agents) for task, agents in load_agents(path).items()}


def load_agents(path: str | Path) -> dict[str, Teacher]:
    """Load a team: task -> its agents' network, from observations to values or logits.

    Args:
        path: a team's folder, or one that has exactly one team below it, such as a run's.

    Raises:
        ValueError: if there is no team, or more than one, or one of its parts is damaged.
    """
    register()  # the networks of teams
    path = Path(path).expanduser()
    teams = {entry.parent.parent for entry in path.glob(f"*/{METADATA}")} or {
        entry.parent.parent for entry in path.glob(f"**/{FOLDER}/*/{METADATA}")
    }
    if len(teams) != 1:
        found = f"{len(teams)} teams: {', '.join(map(str, sorted(teams)))}" if teams else "no team"
        raise ValueError(
            f"checkpoint: {found} in {path}; name the folder of one run or team (a run that has "
            f"finished leaves one in its folder, {FOLDER}/)"
        )
    (folder,) = teams
    return {entry.parent.name: load_teacher(entry.parent) for entry in _parts(folder)}


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*/{METADATA}"))


def team_task(team: Mapping[str, Teacher]) -> MultiTaskClass:
    """Return the task set that the team was trained on."""
    configs = [teacher.metadata["task"] for teacher in team.values()]
    entries = [entry for config in configs for entry in config["tasks"]]
    return MultiTaskClass("team", {**configs[0], "tasks": entries})


def evaluate_team(
    team: Mapping[str, Teacher], episodes: int, seed: int
) -> dict[str, dict[str, Score]]:
    """Play fresh greedy episodes: task -> scores of the ``team`` and of ``random`` play.

    Both play from the same initial states.
    """
    task = team_task(team)
    policies = {"team": teachers_policy(team), "random": random_policy(team)}
    copies = min(agents.metadata.get("copies", COPIES) for agents in team.values())
    with stage(task, min(copies, episodes)) as env:
        played = {who: play_on(env, policy, episodes, seed) for who, policy in policies.items()}
    return {name: {who: played[who].score(name) for who in played} for name in team}
