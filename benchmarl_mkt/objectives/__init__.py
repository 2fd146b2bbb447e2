"""Objectives: the mathematics of MKT-MARL on plain tensors, and its loss module."""

from benchmarl_mkt.objectives.annealing import AnnealingSchedule
from benchmarl_mkt.objectives.distillation import distillation_kl, policy_entropy
from benchmarl_mkt.objectives.mkt import MktLoss
from benchmarl_mkt.objectives.td import standardise_rewards

__all__ = [
    "AnnealingSchedule",
    "MktLoss",
    "distillation_kl",
    "policy_entropy",
    "standardise_rewards",
]
