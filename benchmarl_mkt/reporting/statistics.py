"""Moved to ``benchmarl_mkt.statistics``; gone with the next release."""

from benchmarl_mkt.files import moved
from benchmarl_mkt.statistics import *  # noqa: F403

moved(__name__, "benchmarl_mkt.statistics")
