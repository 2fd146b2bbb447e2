"""Many copies of one BenchMARL task as one TorchRL environment, vectorised or not."""

from __future__ import annotations

import copy
import functools
import signal
from collections.abc import Callable

import torch
from benchmarl.environments.common import TaskClass
from benchmarl.environments.vmas.common import VmasClass
from benchmarl.utils import DEVICE_TYPING
from torchrl.envs import Compose, EnvBase, ParallelEnv, SerialEnv, TransformedEnv


def make_copies(
    task: TaskClass, count: int, seed: int | None, device: DEVICE_TYPING, parallel: bool
) -> tuple[EnvBase, EnvBase]:
    """Build ``count`` copies of a task with its transforms.

    A task that is not vectorised is run ``count`` times: one after the other, or with ``parallel``
    in processes of their own (spawned; they give the same numbers). It is made ``count`` times and
    no more; the first copy is made at once, the others when the environment is seeded or reset.

    Returns the environment of batch size [count], and one to read specifications and groups from:
    the same if the task is vectorised, else one copy, which with ``parallel`` is to be closed.
    """
    task = _without_own_limit(task)
    first = task.get_env_fun(count, continuous_actions=False, seed=seed, device=device)()
    transforms = task.get_env_transforms(first)
    one = _transformed(first, transforms)
    if first.batch_size == torch.Size([count]):
        return one, one
    kind: Callable[..., EnvBase]
    if parallel:
        threads, made = torch.get_num_threads(), [first]
        kind = functools.partial(ParallelEnv, mp_start_method="spawn", num_threads=threads)
    else:  # TorchRL asks for a copy twice before the second one: for its metadata, and to run it
        kind, made = SerialEnv, [first, first]
    seeds = [{"seed": None if seed is None else seed + index} for index in range(count)]
    env = kind(count, _Maker(task, device, made), create_env_kwargs=seeds)
    return _transformed(env, transforms), one


def _transformed(env: EnvBase, transforms: list) -> EnvBase:
    return TransformedEnv(env, Compose(*transforms).clone()) if transforms else env


def _without_own_limit(task: TaskClass) -> TaskClass:
    """The task without a time limit of its own, if that would end episodes as terminated.

    VMAS's does. :class:`~benchmarl_mkt.environments.Team` ends them there, as truncated.
    """
    if not isinstance(task, VmasClass):
        return task
    endless = copy.copy(task)
    endless.config = {**task.config, "max_steps": None}
    return endless


class _Maker:
    """Makes copies of a task that is not vectorised; gives those ``made`` already out first."""

    def __init__(self, task: TaskClass, device: DEVICE_TYPING, made: list[EnvBase]):
        self.task, self.device, self.made = task, device, made

    def __call__(self, seed: int | None) -> EnvBase:
        if self.made:
            return self.made.pop()
        make = self.task.get_env_fun(1, continuous_actions=False, seed=seed, device=self.device)
        return make()

    def __reduce__(self):
        return _in_worker, (self.task, self.device)


def _in_worker(task: TaskClass, device: DEVICE_TYPING) -> _Maker:
    """In a worker process: Ctrl-C reaches all processes of a terminal; the parent answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return _Maker(task, device, [])
