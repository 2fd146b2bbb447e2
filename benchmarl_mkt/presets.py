"""BenchMARL's configuration and this package's, composed by Hydra without a command line."""

from __future__ import annotations

import contextlib
import copy
import functools
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarl.experiment import ExperimentConfig
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchmarl_mkt.files import conf_path

_SEARCH = "hydra.searchpath"


def benchmarl_conf() -> Path:
    """Return BenchMARL's folder of YAML files, without importing it."""
    spec = find_spec("benchmarl")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).with_name("conf")


def compose_config(overrides: list[str], with_hydras: bool = False) -> DictConfig:
    """Compose BenchMARL's configuration, ``with_hydras`` own or without.

    Within an application it is composed on that one's search path.

    Raises:
        HydraException, OmegaConfBaseException: if the composition fails.
    """
    with contextlib.ExitStack() as stack:
        if not GlobalHydra.instance().is_initialized():
            stack.enter_context(initialize_config_dir(str(benchmarl_conf()), version_base=None))
        if HydraConfig.initialized() and not any(o.startswith(_SEARCH) for o in overrides):
            own = HydraConfig.get().overrides.hydra
            overrides = [*overrides, *(o for o in own if o.startswith(_SEARCH))]
        return compose("config", overrides, return_hydra_config=with_hydras)


def compose_preset(group: str, name: str, key: str) -> DictConfig:
    """Compose one file of a configuration group.

    Args:
        group: ``experiment`` or ``model``.
        name: a choice of the group, or a path to a YAML file whose ``defaults`` may be choices or
            files beside it.
        key: what asks for it, for messages.

    Raises:
        ValueError: if there is no such file, or it cannot be composed.
    """
    shipped = (conf_path() / group / f"{name}.yaml").is_file()
    if shipped and not HydraConfig.initialized():  # no application, whose folders may have others
        return copy.deepcopy(_shipped(group, name))
    path = Path(name).expanduser()
    with tempfile.TemporaryDirectory() as folder:
        overrides = ["algorithm=mkt", "task=multitask/mpe"]
        if path.is_file():
            (Path(folder) / group).symlink_to(path.parent.resolve())
            overrides.append(f"{_SEARCH}=[file://{folder}]")
            name = path.stem
        try:
            return compose_config([*overrides, f"{group}={name}"])[group]
        except MissingConfigException as error:
            missing = (error.missing_cfg_file or name).removeprefix(f"{group}/")
            known = sorted(error.options or ())
            raise ValueError(
                f"{key}: there is no {group} {missing!r}; use one of {known} or a YAML file"
            ) from error
        except Exception as error:  # Hydra's, YAML's own, and others of tags such as !!bool
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{key}: cannot read {path} ({reason:.200})") from error


@functools.cache
def _shipped(group: str, name: str) -> DictConfig:
    return compose_config(["algorithm=mkt", "task=multitask/mpe", f"{group}={name}"])[group]


def experiment_preset(name: str, key: str = "experiment") -> ExperimentConfig:
    """Read an experiment preset with all it builds on, as BenchMARL's configuration object.

    See :func:`compose_preset` for ``name``, such as ``mkt_quick``, and ``key``.

    Raises:
        ValueError: as there, or if a key or type is wrong.
    """
    return experiment_config(compose_preset("experiment", name, key), f" (in {name})", key)


def experiment_config(values: Any, where: str, key: str) -> ExperimentConfig:
    """Type the values of an experiment; what is left out is BenchMARL's default.

    Raises:
        ValueError: if a key or type is wrong.
    """
    try:
        return OmegaConf.to_object(OmegaConf.merge(ExperimentConfig.get_from_yaml(), values))
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{key}.{error.full_key}: {reason}{where}") from error
