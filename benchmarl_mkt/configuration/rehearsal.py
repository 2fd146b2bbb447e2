"""Set an experiment up and drop it: what no single check foresees fails here, before training."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
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
        ValueError: if anything fails. ``HYDRA_FULL_ERROR=1`` lets the original error through.
    """
    if isinstance(algorithm, MktConfig):
        alone = {"start": 1.0, "end": 1.0, "fraction": 1.0}
        algorithm = replace(algorithm, annealing=alone, teachers={})
    with tempfile.TemporaryDirectory(prefix="benchmarl_mkt_") as folder:
        quiet = {"loggers": [], "create_json": False, "parallel_collection": False}
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                Experiment(
                    task,
                    algorithm,
                    model,
                    seed,
                    replace(config, save_folder=folder, **quiet),
                    critic_model,
                ).close()
        except Exception as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            message = " ".join(str(error).split()) or type(error).__name__
            if not isinstance(error, ValueError | ImportError):
                message = (
                    f"{name}: cannot be set up ({type(error).__name__}: {message:.300}); "
                    "HYDRA_FULL_ERROR=1 shows where"
                )
            raise ValueError(message) from error
