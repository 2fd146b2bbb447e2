"""Models: the multi-task network (Eq. 1-2), the one over entities, and the mixers (Eq. 4)."""

from benchmarl_mkt.models.entity import EntityModel, EntityModelConfig
from benchmarl_mkt.models.layout import EntityLayout, EntityList, Pointer, with_layouts
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
    "EntityLayout",
    "EntityList",
    "EntityModel",
    "EntityModelConfig",
    "EpsilonGreedyPolicy",
    "IndependentMixer",
    "MultiTaskMixer",
    "MultiTaskModel",
    "MultiTaskModelConfig",
    "Pointer",
    "StudentNetwork",
    "VdnMixer",
    "VdnStateMixer",
    "with_layouts",
]
