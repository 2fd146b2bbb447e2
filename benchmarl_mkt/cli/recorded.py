"""A run's configuration as its record has it: plain values, typed again without Hydra."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from benchmarl.algorithms import algorithm_config_registry
from benchmarl.experiment import ExperimentConfig
from omegaconf import DictConfig, OmegaConf

from benchmarl_mkt.cli.jobs import KEYS, check_keys
from benchmarl_mkt.training.resume.record import RunRecord, leaves

_LAYER = re.compile(r"torch(_geometric)?\.nn\.[A-Z]\w*")


def recorded(config: Mapping[str, Any], name: str) -> DictConfig:
    """Type the configuration of a run's record. Its texts stay texts: nothing looks them up.

    The experiment's ``name`` begins with its algorithm's.

    Raises:
        ValueError: if a key is unknown, has no value or one of a wrong type, or a text would be
            interpolated or names a class that is no layer (BenchMARL calls those).
    """
    content = {key: value for key, value in config.items() if key != "choices"}
    choices = config.get("choices")
    for group in ("task", "algorithm"):
        if not isinstance(choices, dict) or not isinstance(choices.get(group), str):
            raise ValueError(f"choices: {group} must be a text")
    if unknown := set(content) - set(KEYS):
        raise ValueError(f"{min(unknown)}: unknown key")
    for key in KEYS[1:]:
        if not isinstance(content.get(key), dict):
            raise ValueError(f"{key}: must be a mapping")
    for key, value in leaves(content):
        if isinstance(value, str) and "${" in value:
            raise ValueError(f"{key}: {value!r} must not be interpolated")
        is_class = any(part.endswith("class") for part in key.split("."))
        if is_class and value is not None and not _LAYER.fullmatch(str(value)):
            raise ValueError(f"{key}: {value!r} must be a class of torch.nn")
    algorithms = {
        c.associated_class().__name__.lower(): c for c in algorithm_config_registry.values()
    }
    known = [algorithm for algorithm in algorithms if name.startswith(f"{algorithm}_")]
    if not known:
        raise ValueError(f"algorithm: that of {name} is not registered")
    schemas = {"experiment": ExperimentConfig, "algorithm": algorithms[max(known, key=len)]}
    cfg = OmegaConf.create(content)
    for key, schema in schemas.items():
        cfg[key] = OmegaConf.merge(OmegaConf.structured(schema), content[key])
    check_keys(cfg)
    return cfg


def check_paths(record: RunRecord) -> None:
    """Check that the relative paths of a run's record mean here what they meant where it began.

    Raises:
        ValueError: if they do not.
    """
    if record.cwd is None or record.cwd == os.getcwd():
        return
    for key, value in leaves(record.config):
        relative = isinstance(value, str) and value and not os.path.isabs(value)
        if relative and os.path.exists(os.path.join(record.cwd, value)):
            raise ValueError(f"{key}: {value} lies in {record.cwd}; resume the run from there")
