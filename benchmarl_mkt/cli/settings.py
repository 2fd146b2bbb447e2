"""Whether an experiment's settings make sense, alone and together."""

from __future__ import annotations

import os
from importlib.util import find_spec
from math import inf
from pathlib import Path

import torch
from benchmarl.experiment import ExperimentConfig

from benchmarl_mkt.files import check_writable
from benchmarl_mkt.training.resume.checkpoint import read_benchmarls

# Lowest and highest values that BenchMARL takes without a word although training fails with others.
_LIMITS = {
    (0, 1): ("gamma", "polyak_tau", "exploration_eps_init", "exploration_eps_end"),
    (0, inf): (
        "off_policy_init_random_frames", "checkpoint_interval", "off_policy_prb_alpha",
        "off_policy_prb_beta", "adam_eps",
    ),
    (1, inf): (
        "max_n_iters", "max_n_frames", "hard_target_update_frequency", "evaluation_interval",
        "evaluation_episodes", "exploration_anneal_frames", "on_policy_n_minibatch_iters",
        "on_policy_minibatch_size", "off_policy_n_optimizer_steps", "off_policy_memory_size",
        "off_policy_train_batch_size", "on_policy_collected_frames_per_batch",
        "off_policy_collected_frames_per_batch", "on_policy_n_envs_per_worker",
        "off_policy_n_envs_per_worker",
    ),
}  # fmt: skip
_ABOVE_ZERO = ("lr", "clip_grad_val")
# The modules that TorchRL's loggers need.
_LOGGERS = ("csv", "wandb", "tensorboard", "mlflow", "trackio")


def check_settings(config: ExperimentConfig, on_policy: bool, name: str = "experiment") -> None:
    """Check the settings that an algorithm of this kind reads, and BenchMARL's own rules.

    ``name`` is what their keys are called in messages.

    Raises:
        ValueError: if one is out of range or does not fit another, or a device, a logger or a
            folder is not there.
    """
    kind, other = ("on", "off") if on_policy else ("off", "on")
    for (low, high), keys in _LIMITS.items():
        for key in keys:
            value = getattr(config, key)
            if value is None or key.startswith(other):
                continue
            if not low <= value <= high or value == inf:
                top = f" and at most {high}" if high < inf else ""
                raise ValueError(f"{name}.{key}: {value} must be at least {low}{top}, and finite")
    for key in _ABOVE_ZERO:
        value = getattr(config, key)
        if value is not None and not 0 < value < inf:
            raise ValueError(f"{name}.{key}: {value} must be above 0, and finite")
    frames = config.collected_frames_per_batch(on_policy)
    envs, batch = config.n_envs_per_worker(on_policy), config.train_minibatch_size(on_policy)
    if frames % envs:
        raise ValueError(
            f"{name}.{kind}_policy_n_envs_per_worker: {envs} environments cannot share "
            f"{frames} frames per batch; choose a divisor"
        )
    if on_policy and batch > frames:
        raise ValueError(
            f"{name}.on_policy_minibatch_size: {batch} is more than the {frames} frames of a "
            "batch (on_policy_collected_frames_per_batch)"
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


def _check_surroundings(config: ExperimentConfig, name: str) -> None:
    for key in ("sampling_device", "train_device", "buffer_device"):
        device = getattr(config, key)
        try:
            torch.empty(0, device="cpu" if (key, device) == ("buffer_device", "disk") else device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"{name}.{key}: {device!r} cannot be used ({str(error).splitlines()[0]:.120}); "
                "use cpu"
            ) from error
    for logger in config.loggers:
        if logger not in _LOGGERS:
            raise ValueError(f"{name}.loggers: {logger!r} is not one of {sorted(_LOGGERS)}")
    if config.restore_file is not None:
        if not Path(config.restore_file).is_file():
            raise ValueError(f"{name}.restore_file: there is no file {config.restore_file}")
        try:
            read_benchmarls(Path(config.restore_file))
        except ValueError as error:
            raise ValueError(f"{name}.restore_file: {error}; name another") from error
    if config.save_folder is not None:
        if not Path(config.save_folder).is_dir():
            raise ValueError(
                f"{name}.save_folder: there is no folder {config.save_folder}; make it first"
            )
        check_writable(f"{name}.save_folder", Path(config.save_folder))


def check_loggers(config: ExperimentConfig) -> None:
    """Check that the loggers are installed, and wandb logged in. Teachers log nothing.

    Raises:
        ValueError: if one is not.
    """
    for logger in config.loggers:
        if find_spec(logger) is None:
            raise ValueError(
                f"experiment.loggers: {logger} is not installed; pip install {logger}, "
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
