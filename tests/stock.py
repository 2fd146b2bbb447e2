"""Runs of stock BenchMARL on plain tasks, by its own command."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from pathlib import Path

import benchmarl.run
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from tests.helpers import TINY

COPIES = 102  # of evaluation
STEPS = 10  # so that there are 1,020 observations
NETWORKS = {
    "layers/mlp": ["model.num_cells=[16]"],
    "layers/gru": ["model.hidden_size=8", "model.n_layers=2", "model.mlp_num_cells=[16]"],
    "layers/lstm": ["model.hidden_size=8", "model.mlp_num_cells=[16]"],
}


def stock_run(folder: Path, *overrides: str, model: str = "layers/mlp") -> Path:
    """Train for two iterations as ``python -m benchmarl.run OVERRIDES`` does."""
    values = {**TINY, "evaluation": False, "lr": 0.01, "checkpoint_at_end": True}
    values |= {"create_json": False, "evaluation_episodes": COPIES}
    values["hard_target_update_frequency"] = 100  # so that target networks are others
    budget = [f"experiment.{key}={str(value).lower()}" for key, value in values.items()]
    root, before = logging.getLogger(), sys.argv
    handlers, level = list(root.handlers), root.level
    sys.argv = ["run", f"model={model}", *NETWORKS.get(model, []), *budget, *overrides]
    sys.argv.append(f"hydra.run.dir={folder}")
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            benchmarl.run.hydra_experiment()
    finally:
        sys.argv = before
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None
        root.handlers[:] = handlers
        root.setLevel(level)
    return folder
