"""Jobs in processes of their own, forked from a server that has no threads and no JAX."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import cloudpickle
import torch

import benchmarl_mkt
from tests.toys import register_toys

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


def start(job: Callable[[], Any]) -> BaseProcess:
    """Begin ``job`` in a process that starts from this one's folder and environment variables."""
    work = cloudpickle.dumps(job), dict(os.environ), os.getcwd()
    process = _CONTEXT.Process(target=_do, args=work)
    process.start()
    return process


def in_process(job: Callable[[], Any]) -> int:
    """Do the job in a process of its own; return how that ended."""
    process = start(job)
    process.join(timeout=120)
    assert process.exitcode is not None
    return process.exitcode


def wait_for(path: Path) -> None:
    """Wait until a process has made the file."""
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.1)
    raise TimeoutError(f"{path} has not come")


def _do(job: bytes, environment: dict[str, str], folder: str) -> None:
    threads = len(os.listdir(f"/proc/{os.getppid()}/task"))
    assert threads == 1, f"forked from a process with {threads} threads"
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    torch.set_num_threads(1)
    benchmarl_mkt.register()
    register_toys()
    cloudpickle.loads(job)()
