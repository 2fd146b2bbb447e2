"""Moved to ``benchmarl_mkt.teams.onnx``; gone with the next release."""

from benchmarl_mkt.files import moved
from benchmarl_mkt.teams.onnx import *  # noqa: F403

moved(__name__, "benchmarl_mkt.teams.onnx")
