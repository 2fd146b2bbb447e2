"""Models: the multi-task network (Eq. 1-2) and the mixers (Eq. 4)."""

from benchmarl_mkt.models.mixers import (
    AttentionMixer,
    IndependentMixer,
    MultiTaskMixer,
    VdnMixer,
    VdnStateMixer,
)
from benchmarl_mkt.models.multitask import MultiTaskModel, MultiTaskModelConfig
from benchmarl_mkt.models.policy import EpsilonGreedyPolicy
from benchmarl_mkt.models.student import StudentNetwork

__all__ = [
    "AttentionMixer",
    "EpsilonGreedyPolicy",
    "IndependentMixer",
    "MultiTaskMixer",
    "MultiTaskModel",
    "MultiTaskModelConfig",
    "StudentNetwork",
    "VdnMixer",
    "VdnStateMixer",
]
