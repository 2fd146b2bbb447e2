"""Moved to ``benchmarl_mkt.teams.frozen``; gone with the next release."""

from benchmarl_mkt.files import moved
from benchmarl_mkt.teams.frozen import FrozenTeam as TeamPolicy  # noqa: F401

moved(__name__, "benchmarl_mkt.teams.frozen")
