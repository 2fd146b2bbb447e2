"""Trained teams: frozen, on disk, played, exported, shared and taught from.

A team is a folder with a part for every task (JSON and safetensors): one format for teachers and
students, so that a student can teach in its turn. No code runs when one is loaded.
"""

from benchmarl_mkt.teams.evaluation import evaluate_team, team_task
from benchmarl_mkt.teams.export import export_teacher, export_team
from benchmarl_mkt.teams.frozen import FrozenTeam
from benchmarl_mkt.teams.load import FOLDER, load_teacher, load_team

load_agents = load_team  # its name before both became one

__all__ = [
    "FOLDER",
    "FrozenTeam",
    "evaluate_team",
    "export_teacher",
    "export_team",
    "load_agents",
    "load_teacher",
    "load_team",
    "team_task",
]
