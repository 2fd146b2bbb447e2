"""Set an experiment up and drop it: what no single check foresees fails here, before training."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from benchmarl.algorithms.common import AlgorithmConfig
from benchmarl.environments.common import TaskClass
from benchmarl.experiment import Experiment, ExperimentConfig
from benchmarl.models.common import ModelConfig

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.environments import MultiTaskClass


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
    if isinstance(task, MultiTaskClass):
        task = copy.copy(task)
        task.config = {**task.config, "parallel_collection": False}
    with (
        setting_up(name),
        tempfile.TemporaryDirectory(prefix="benchmarl_mkt_") as folder,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        config = replace(config, save_folder=folder, **quiet, **_one_copy(config, algorithm))
        Experiment(task, algorithm, model, seed, config, critic_model).close()


def _one_copy(config: ExperimentConfig, algorithm: AlgorithmConfig) -> dict[str, Any]:
    """Settings with which one copy of the game plays as long as each of them would."""
    on_policy = algorithm.on_policy()
    frames = config.collected_frames_per_batch(on_policy) // config.n_envs_per_worker(on_policy)
    kind = "on_policy" if on_policy else "off_policy"
    return {
        f"{kind}_n_envs_per_worker": 1,
        f"{kind}_collected_frames_per_batch": frames,
        "on_policy_minibatch_size": min(config.on_policy_minibatch_size, frames),
        "evaluation_episodes": 1,
    }


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
