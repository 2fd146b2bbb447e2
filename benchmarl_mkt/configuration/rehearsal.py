"""Set an experiment up and drop it: what no single check foresees fails here, before training."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import replace

from benchmarl.algorithms.common import AlgorithmConfig
from benchmarl.environments.common import TaskClass
from benchmarl.experiment import Experiment, ExperimentConfig
from benchmarl.models.common import ModelConfig

from benchmarl_mkt.algorithms import MktConfig


def rehearse(
    name: str,
    task: TaskClass,
    algorithm: AlgorithmConfig,
    model: ModelConfig,
    config: ExperimentConfig,
    critic_model: ModelConfig | None = None,
    seed: int = 0,
) -> None:
    """Build environments, networks, losses, optimizers, buffers and collector, then close them.

    Teachers are not looked for, nothing is logged, and what BenchMARL writes goes into a
    temporary folder. The global random state changes.

    Args:
        name: what the experiment is called in messages.
        task, algorithm, model, config, critic_model, seed: as for BenchMARL's ``Experiment``.

    Raises:
        ValueError: as :func:`setting_up`.
    """
    if isinstance(algorithm, MktConfig):
        alone = {"start": 1.0, "end": 1.0, "fraction": 1.0}
        algorithm = replace(algorithm, annealing=alone, teachers={})
    # Of the loggers BenchMARL's own part alone: some would tell a server.
    loggers = config.loggers and ["csv"]
    quiet = {"loggers": loggers, "create_json": False, "parallel_collection": False}
    with (
        setting_up(name),
        tempfile.TemporaryDirectory(prefix="benchmarl_mkt_") as folder,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        config = replace(config, save_folder=folder, **quiet)
        Experiment(task, algorithm, model, seed, config, critic_model).close()


@contextlib.contextmanager
def setting_up(name: str) -> Iterator[None]:
    """Tell in one line why an experiment cannot be set up.

    Args:
        name: what it is called in messages.

    Raises:
        ValueError: if anything fails. ``HYDRA_FULL_ERROR=1`` lets the original error through.
    """
    try:
        yield
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, ValueError | ImportError):
            places = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
            key, remedy = name, "HYDRA_FULL_ERROR=1 shows where"
            if "_setup_logger" in places:  # BenchMARL's
                key, remedy = f"{name}.loggers", f"use {name}.loggers=[csv], or mend it"
            kind = type(error).__name__
            message = f"{key}: cannot be set up ({kind}: {message:.300}); {remedy}"
        raise ValueError(message) from error
