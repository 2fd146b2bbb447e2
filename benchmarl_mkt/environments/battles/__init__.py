"""Battles: SMAX, and StarCraft II itself."""

from benchmarl_mkt.environments.battles.smac import SmacTask, StarcraftClass, StarcraftEnv
from benchmarl_mkt.environments.battles.smax import SmaxClass, SmaxEnv, SmaxTask

__all__ = ["SmacTask", "SmaxClass", "SmaxEnv", "SmaxTask", "StarcraftClass", "StarcraftEnv"]
