"""The one place that writes into BenchMARL's registries and Hydra's."""

from __future__ import annotations

from typing import Any

import benchmarl.algorithms as benchmarl_algorithms
import benchmarl.environments as benchmarl_environments
import benchmarl.models as benchmarl_models
import torch
from hydra.core.config_store import ConfigStore
from omegaconf import II, OmegaConf

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.environments import MpeTask, MultiTaskConfig, MultiTaskTask, SmacTask, SmaxTask
from benchmarl_mkt.models import MultiTaskModelConfig


def register() -> None:
    """Register tasks, algorithm, model and schemas; calling it again changes nothing."""
    benchmarl_algorithms.algorithm_config_registry["mkt"] = MktConfig
    benchmarl_models.model_config_registry["multitask"] = MultiTaskModelConfig
    enums: tuple[Any, ...] = (MpeTask, SmaxTask, SmacTask, MultiTaskTask)
    for enum in enums:
        for task in enum:
            name = f"{enum.env_name()}/{task.name.lower()}"
            benchmarl_environments.task_config_registry[name] = task
    store = ConfigStore.instance()
    store.store(name="mkt_config", group="algorithm", node=MktConfig)
    task = MultiTaskConfig(parallel_collection=II("experiment.parallel_collection"))
    store.store(name="multitask_config", group="task", node=task)
    OmegaConf.register_new_resolver("device_of_job", device_of_job, replace=True)


def device_of_job(number: int) -> str:
    """Deal GPUs out to the jobs of a sweep in turn; the CPU where there is none.

    In a configuration: ``${device_of_job:${hydra:job.num}}``.
    """
    count = torch.cuda.device_count()
    return f"cuda:{number % count}" if count else "cpu"
