"""Environments: one task as one team, several teams in synchronised rounds, MPE, SMAX."""

from benchmarl_mkt.environments.battles import (
    SmacTask,
    SmaxClass,
    SmaxEnv,
    SmaxTask,
    StarcraftClass,
    StarcraftEnv,
)
from benchmarl_mkt.environments.mpe import MpeClass, MpeEnv, MpeTask
from benchmarl_mkt.environments.multitask import MultiTaskClass, MultiTaskTask
from benchmarl_mkt.environments.opponents import FrozenPolicy
from benchmarl_mkt.environments.rounds import MultiTaskEnv
from benchmarl_mkt.environments.task_set import MultiTaskConfig
from benchmarl_mkt.environments.team import Team, TeamStep

__all__ = [
    "FrozenPolicy",
    "MpeClass",
    "MpeEnv",
    "MpeTask",
    "MultiTaskClass",
    "MultiTaskConfig",
    "MultiTaskEnv",
    "MultiTaskTask",
    "SmacTask",
    "SmaxClass",
    "SmaxEnv",
    "SmaxTask",
    "StarcraftClass",
    "StarcraftEnv",
    "Team",
    "TeamStep",
]
