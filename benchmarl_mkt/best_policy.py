"""Moved to ``benchmarl_mkt.training.best_policy``; gone with the next release."""

from benchmarl_mkt.files import moved
from benchmarl_mkt.training.best_policy import *  # noqa: F403

moved(__name__, "benchmarl_mkt.training.best_policy")
