"""Moved to ``benchmarl_mkt.teams.evaluation``; gone with the next release."""

from benchmarl_mkt.files import moved
from benchmarl_mkt.teams.evaluation import *  # noqa: F403
from benchmarl_mkt.teams.evaluation import greedy_policy as teachers_policy  # noqa: F401

moved(__name__, "benchmarl_mkt.teams.evaluation")
