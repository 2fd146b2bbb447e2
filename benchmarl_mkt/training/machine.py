"""What training asks of the machine, threads and memory to keep, and which machine it is."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from pathlib import Path

import torch
from benchmarl.experiment import Experiment
from tensordict import TensorDictBase

from benchmarl_mkt.training.monitors import RunCallback

ROWS = 4096  # of a minibatch, from which on a second thread gains more than it costs
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_MMAP_MOST, _TRIM = 2**25, 2**30  # bytes; malloc takes no higher threshold for mmap


def threads_for(experiment: Experiment) -> int:
    """Return how many threads of PyTorch's an experiment should train with: one or two.

    Small products gain little from a second thread on an idle core, and wait for it on a busy one;
    and on one thread sums round the same way on every machine. So two are for minibatches of
    at least :data:`ROWS` rows, an agent's step each, where the process may use two cores.
    """
    config, on_policy = experiment.config, experiment.on_policy
    agents = max(len(group) for group in experiment.algorithm.group_map.values())
    rows = config.train_minibatch_size(on_policy) * agents
    return 2 if rows >= ROWS and _cores() >= 2 else 1


class LearnerThreads(RunCallback):
    """Lets an experiment's updates have ``count`` threads of PyTorch's, and all else one.

    Playing is made of small products, and games want the other core.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 1

    def on_batch_collected(self, batch: TensorDictBase) -> None:
        """The updates begin."""
        torch.set_num_threads(self.count)

    def on_train_end(self, training_td: TensorDictBase, group: str) -> None:
        """The updates of one group are done; after the last, everybody's are."""
        if group == list(self.experiment.train_group_map)[-1]:
            torch.set_num_threads(1)


def machine_of(experiment: Experiment) -> str:
    """Say what an experiment trains on: ``AMD EPYC 7763, 2 cores``, and the GPU if it uses one."""
    config = experiment.config
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # Linux alone has it, and not on every processor the name
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        name = next(names, name)
    parts = [name, f"{_cores()} cores" if _cores() > 1 else "1 core"]
    devices = {config.sampling_device, config.train_device, config.buffer_device}
    used = {d for d in map(torch.device, devices - {"disk"}) if d.type == "cuda"}
    parts += sorted({torch.cuda.get_device_name(device) for device in used})
    return ", ".join(parts)


def _cores() -> int:
    """How many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_memory() -> None:
    """Let the process keep memory that it has freed, but for what is free beyond a gigabyte.

    glibc gives the memory of large tensors back at once, and the system zeroes it when it is asked
    for again. Where there is no glibc this does nothing.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _MMAP_MOST)
            mallopt(_M_TRIM_THRESHOLD, _TRIM)
