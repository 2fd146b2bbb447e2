"""Teachers by BenchMARL's own algorithms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from benchmarl.algorithms import algorithm_config_registry
from benchmarl.algorithms.common import AlgorithmConfig


def builtin_config(name: str, settings: Mapping[str, Any]) -> AlgorithmConfig:
    """Return BenchMARL's configuration of an algorithm, changed by ``settings``.

    Raises:
        ValueError: if it is none with discrete actions, or has no such setting.
    """
    known = sorted(
        other
        for other, kind in algorithm_config_registry.items()
        if kind.supports_discrete_actions() and not kind.__module__.startswith("benchmarl_mkt.")
    )
    if name not in known:
        raise ValueError(
            f"algorithm.teacher_algorithm.name: {name!r} must be mkt or one of {known}"
        )
    config = algorithm_config_registry[name].get_from_yaml()
    unknown = set(settings) - set(asdict(config))
    if unknown:
        raise ValueError(
            f"algorithm.teacher_algorithm: unknown {sorted(unknown)}; {name} has "
            f"{sorted(asdict(config))}"
        )
    return replace(config, **settings)
