"""Moved to ``benchmarl_mkt.training.resume``; gone with the next release."""

from benchmarl_mkt.files import moved
from benchmarl_mkt.training.resume import *  # noqa: F403

moved(__name__, "benchmarl_mkt.training.resume")
