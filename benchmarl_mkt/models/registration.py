"""This package's models in BenchMARL's registry."""

from __future__ import annotations

from benchmarl.models import model_config_registry

from benchmarl_mkt.models.entity import EntityModelConfig
from benchmarl_mkt.models.multitask import MultiTaskModelConfig


def register_models() -> None:
    """Register the models; calling it again changes nothing."""
    model_config_registry["multitask"] = MultiTaskModelConfig
    model_config_registry["multitask_entity"] = EntityModelConfig
