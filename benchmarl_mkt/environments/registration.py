"""This package's tasks in BenchMARL's registry."""

from __future__ import annotations

from typing import Any

import benchmarl.environments as benchmarl_environments

from benchmarl_mkt.environments import MpeTask, MultiTaskTask, SmacTask, SmaxTask


def register_tasks() -> None:
    """Register every task and task set; calling it again changes nothing."""
    enums: tuple[Any, ...] = (MpeTask, SmaxTask, SmacTask, MultiTaskTask)
    for enum in enums:
        for task in enum:
            name = f"{enum.env_name()}/{task.name.lower()}"
            benchmarl_environments.task_config_registry[name] = task
