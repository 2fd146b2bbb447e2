"""The one place that writes into BenchMARL's registries and Hydra's."""

from __future__ import annotations

import benchmarl.algorithms as benchmarl_algorithms
import torch
from hydra.core.config_store import ConfigStore
from omegaconf import II, OmegaConf

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.environments import MultiTaskConfig
from benchmarl_mkt.environments.registration import register_tasks
from benchmarl_mkt.models.registration import register_models


def register() -> None:
    """Register tasks, algorithm, model and schemas; calling it again changes nothing."""
    register_tasks()
    register_models()
    benchmarl_algorithms.algorithm_config_registry["mkt"] = MktConfig
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
