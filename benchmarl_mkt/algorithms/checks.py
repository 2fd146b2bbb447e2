"""What MKT-MARL needs of the task and of the experiment's settings."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from benchmarl.experiment import ExperimentConfig
from torchrl.envs import EnvBase

from benchmarl_mkt.environments import MultiTaskClass


def check_task(mixer: str, teachers: Iterable[str], task: Any, env: EnvBase) -> None:
    """Check that ``algorithm.mixer`` and the tasks that ``algorithm.teachers`` names fit the task.

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
    if mixer == "qmix" and len(set(sizes.values())) > 1:
        raise ValueError(
            f"algorithm.mixer: qmix needs teams of one size, got {sizes}; use algorithm.mixer=vdn "
            "or attention"
        )
    unknown = set(teachers) - set(sizes)
    if unknown:
        raise ValueError(
            f"algorithm.teachers: {sorted(unknown)} are not in the task set; it has {list(sizes)}"
        )


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


def check_processes(config: ExperimentConfig, task: MultiTaskClass, env: EnvBase) -> None:
    """Check that ``parallel_collection`` reaches the tasks of a set.

    Raises:
        ValueError: if it would be ignored: the command line hands it on, Python code has to.
    """
    serial = [name for name, team in env.teams.items() if not team.vectorised]
    if config.parallel_collection and serial and not task.config["parallel_collection"]:
        raise ValueError(
            f"experiment.parallel_collection: true is needed in the set's own configuration, too, "
            f"to run {', '.join(serial)} in processes: "
            "MultiTaskClass(name, {'parallel_collection': True, ...})"
        )


def check_memory(segments: int, size: int, length: int) -> None:
    """Check that a replay memory fits into the machine's.

    Args:
        segments: how many of every task are kept.
        size: bytes of one segment of every task.
        length: frames of a segment.

    Raises:
        ValueError: if it does not.
    """
    room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if segments * size > room:
        raise ValueError(
            f"experiment.off_policy_memory_size: {segments * length:,} frames of every task take "
            f"{segments * size / 2**30:,.1f} GiB, this machine has {room / 2**30:,.1f} GiB; set it "
            f"to {max(1, int(room / 2 / size)) * length} or less"
        )
