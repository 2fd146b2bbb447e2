"""Whether an experiment's settings make sense, alone and together."""

from __future__ import annotations

import os
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Any

import torch
from benchmarl.experiment import ExperimentConfig

from benchmarl_mkt.paths import check_writable

# Lowest and highest value; the lowest of an open interval does not belong to it.
_CLOSED = {
    **dict.fromkeys(("gamma", "polyak_tau", "exploration_eps_init", "exploration_eps_end"), (0, 1)),
    **dict.fromkeys(("off_policy_init_random_frames", "checkpoint_interval"), (0, inf)),
    **dict.fromkeys(("off_policy_prb_alpha", "off_policy_prb_beta", "adam_eps"), (0, inf)),
    **dict.fromkeys(("max_n_iters", "max_n_frames", "hard_target_update_frequency"), (1, inf)),
    **dict.fromkeys(("evaluation_interval", "evaluation_episodes"), (1, inf)),
    **dict.fromkeys(("on_policy_n_minibatch_iters", "on_policy_minibatch_size"), (1, inf)),
    **dict.fromkeys(("off_policy_n_optimizer_steps", "off_policy_memory_size"), (1, inf)),
    **dict.fromkeys(("off_policy_train_batch_size", "exploration_anneal_frames"), (1, inf)),
    **{f"{kind}_policy_collected_frames_per_batch": (1, inf) for kind in ("on", "off")},
    **{f"{kind}_policy_n_envs_per_worker": (1, inf) for kind in ("on", "off")},
}
_OPEN = dict.fromkeys(("lr", "clip_grad_val"), (0, inf))
# The module that each of TorchRL's loggers needs.
_LOGGERS = {
    **{"csv": "csv", "wandb": "wandb", "tensorboard": "tensorboard"},
    **{"mlflow": "mlflow", "trackio": "trackio"},
}


def check_settings(config: ExperimentConfig, on_policy: bool, name: str = "experiment") -> None:
    """Check the settings that an algorithm of this kind reads, and BenchMARL's own rules.

    Args:
        config: the settings.
        on_policy: whether the algorithm is on-policy.
        name: what their keys are called in messages.

    Raises:
        ValueError: if one is out of range or does not fit another, or a device, a logger or a
            folder is not there.
    """
    kind, other = ("on", "off") if on_policy else ("off", "on")
    for key, value in vars(config).items():
        if not key.startswith(f"{other}_policy_"):
            _check_range(f"{name}.{key}", key, value)
    frames = config.collected_frames_per_batch(on_policy)
    envs = config.n_envs_per_worker(on_policy)
    batch, frames_key = config.train_minibatch_size(on_policy), f"{kind}_policy_collected_frames"
    if frames % envs:
        raise ValueError(
            f"{name}.{kind}_policy_n_envs_per_worker: {envs} environments cannot share "
            f"{frames} frames per batch; choose a divisor"
        )
    if on_policy and batch > frames:
        raise ValueError(
            f"{name}.on_policy_minibatch_size: {batch} is more than the {frames} frames of a "
            f"batch ({frames_key}_per_batch)"
        )
    if not on_policy and batch > config.off_policy_memory_size:
        raise ValueError(
            f"{name}.off_policy_memory_size: {config.off_policy_memory_size} frames are less than "
            f"a training batch ({batch}, off_policy_train_batch_size)"
        )
    try:
        config.validate(on_policy)
    except ValueError as error:
        raise ValueError(f"{name}.{error}; change it") from error
    _check_surroundings(config, name)


def _check_range(label: str, key: str, value: Any) -> None:
    (low, high), is_open = _CLOSED.get(key) or _OPEN.get(key, (None, None)), key in _OPEN
    if value is None or low is None:
        return
    if not (low < value if is_open else low <= value) or not value <= high or abs(value) == inf:
        top = f" and at most {high}" if high < inf else ""
        least = f"above {low}" if is_open else f"at least {low}"
        raise ValueError(f"{label}: {value} must be {least}{top}, and finite")


def _check_surroundings(config: ExperimentConfig, name: str) -> None:
    for key in ("sampling_device", "train_device", "buffer_device"):
        device = getattr(config, key)
        if (key, device) != ("buffer_device", "disk"):
            _check_device(f"{name}.{key}", device)
    for logger in config.loggers:
        if logger not in _LOGGERS:
            raise ValueError(f"{name}.loggers: {logger!r} is not one of {sorted(_LOGGERS)}")
    if config.restore_file is not None and not Path(config.restore_file).is_file():
        raise ValueError(f"{name}.restore_file: there is no file {config.restore_file}")
    if config.save_folder is not None:
        if not Path(config.save_folder).is_dir():
            raise ValueError(
                f"{name}.save_folder: there is no folder {config.save_folder}; make it first"
            )
        check_writable(f"{name}.save_folder", Path(config.save_folder))


def _check_device(label: str, device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{label}: {device!r} cannot be used ({reason:.120}); use cpu") from error


def check_loggers(config: ExperimentConfig) -> None:
    """Check that the loggers are installed, and wandb logged in. Teachers log nothing.

    Raises:
        ValueError: if one is not.
    """
    for logger in config.loggers:
        if find_spec(_LOGGERS[logger]) is None:
            raise ValueError(
                f"experiment.loggers: {logger} is not installed; pip install {_LOGGERS[logger]}, "
                "or use experiment.loggers=[csv]"
            )
    mode = config.wandb_extra_kwargs.get("mode") or os.environ.get("WANDB_MODE") or "online"
    if "wandb" in config.loggers and mode == "online":
        import wandb

        try:
            wandb.login()
        except Exception as error:
            raise ValueError(
                f"experiment.loggers: wandb cannot log in ({' '.join(str(error).split()):.200}); "
                "run wandb login, set WANDB_MODE=offline, or use experiment.loggers=[csv]"
            ) from error
