"""What MKT-MARL needs of the task and of the experiment's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarl.experiment import ExperimentConfig
from torchrl.envs import EnvBase

from benchmarl_mkt.environments import MultiTaskClass
from benchmarl_mkt.teachers.find import check_named

if TYPE_CHECKING:
    from benchmarl_mkt.algorithms.mkt import MktConfig


def check_task(config: MktConfig, task: Any, env: EnvBase) -> None:
    """Check that the algorithm fits the task.

    Raises:
        ValueError: if the task is not a multi-task set, its teams are of different sizes under
            QMIX mixing, or a named teacher is of none of its tasks.
    """
    if not isinstance(task, MultiTaskClass):
        name = f"{task.env_name()}/{task.name.lower()}"
        raise ValueError(
            f"task: algorithm=mkt needs a task set, got {name}; "
            f"use task=multitask/custom 'task.tasks=[{name}]'"
        )
    sizes = {group: len(agents) for group, agents in task.group_map(env).items()}
    if config.mixer == "qmix" and len(set(sizes.values())) > 1:
        raise ValueError(
            f"algorithm.mixer: qmix needs teams of one size, got {sizes}; use algorithm.mixer=vdn "
            "or attention"
        )
    check_named(config.teachers, list(sizes))


def check_experiment(config: ExperimentConfig, name: str = "experiment") -> None:
    """Check that the learner honours the experiment's settings.

    Args:
        config: the settings.
        name: what their keys are called in messages.

    Raises:
        ValueError: if it would have to ignore one.
    """
    required = {
        "share_policy_params": (True, "the trunk is shared by all agents and tasks"),
        "collect_with_grad": (False, "its data comes from a collector"),
        "off_policy_use_prioritized_replay_buffer": (False, "it samples uniformly"),
    }
    for key, (value, why) in required.items():
        if getattr(config, key) is not value:
            raise ValueError(f"{name}.{key}: must be {value} with algorithm=mkt: {why}")
    frames, batch = config.collected_frames_per_batch(False), config.train_batch_size(False)
    length = -(-frames // config.n_envs_per_worker(False))
    if batch % length:
        raise ValueError(
            f"{name}.off_policy_train_batch_size: {batch} frames are no whole number of "
            f"segments of {length} (frames per batch / environments); choose a multiple, such as "
            f"{-(-batch // length) * length}"
        )
    if config.buffer_device == "disk":
        raise ValueError(
            f"{name}.buffer_device: disk is not supported with algorithm=mkt; use cpu or cuda"
        )
