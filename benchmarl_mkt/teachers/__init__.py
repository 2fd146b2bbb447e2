"""Teachers: training, a content-addressed store, and safe loading."""

from benchmarl_mkt.teachers.load import Teacher, load_teacher
from benchmarl_mkt.teachers.store import Recipe, TeacherSpecs, TeacherStore
from benchmarl_mkt.teachers.train import export_teacher, train_teacher

__all__ = [
    "Recipe",
    "Teacher",
    "TeacherSpecs",
    "TeacherStore",
    "export_teacher",
    "load_teacher",
    "train_teacher",
]
