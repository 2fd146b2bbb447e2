"""The one place that writes into BenchMARL's registries and Hydra's ConfigStore."""

from __future__ import annotations

import benchmarl.algorithms as benchmarl_algorithms
import benchmarl.environments as benchmarl_environments
import benchmarl.models as benchmarl_models
from hydra.core.config_store import ConfigStore

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.environments import MpeTask, MultiTaskConfig, MultiTaskTask
from benchmarl_mkt.models import MultiTaskModelConfig


def register() -> None:
    """Register tasks, algorithm, model and schemas; calling it again changes nothing."""
    benchmarl_algorithms.algorithm_config_registry["mkt"] = MktConfig
    benchmarl_models.model_config_registry["multitask"] = MultiTaskModelConfig
    for enum in (MpeTask, MultiTaskTask):
        for task in enum:
            name = f"{enum.env_name()}/{task.name.lower()}"
            benchmarl_environments.task_config_registry[name] = task
    store = ConfigStore.instance()
    store.store(name="mkt_config", group="algorithm", node=MktConfig)
    store.store(name="multitask_config", group="task", node=MultiTaskConfig)
