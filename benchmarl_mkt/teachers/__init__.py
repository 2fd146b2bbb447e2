"""Teachers: how they are trained, a content-addressed store, and where a student finds them."""

from benchmarl_mkt.teachers.settings import TeacherSettings
from benchmarl_mkt.teachers.store import Recipe, TeacherStore
from benchmarl_mkt.teachers.train import train_teacher
from benchmarl_mkt.teams import FrozenTeam, export_teacher, load_teacher
from benchmarl_mkt.teams.folder import TeamSpecs

Teacher, TeacherSpecs = FrozenTeam, TeamSpecs  # their names in version 0.1

__all__ = [
    "FrozenTeam",
    "Recipe",
    "TeacherSettings",
    "TeacherStore",
    "export_teacher",
    "load_teacher",
    "train_teacher",
]
