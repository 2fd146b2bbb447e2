"""Exact resume: checkpoints of a run, found by themselves, and an orderly stop on signals."""

from benchmarl_mkt.training.resume.callback import ResumeCallback, in_folder
from benchmarl_mkt.training.resume.run import forget, run

__all__ = ["ResumeCallback", "forget", "in_folder", "run"]
