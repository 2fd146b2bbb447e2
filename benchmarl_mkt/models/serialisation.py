"""Model configurations as plain JSON values, and back without running code from a file."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from benchmarl.models import model_config_registry
from benchmarl.models.common import ModelConfig

_SAFE = "torch.nn."
# Settings of models that came later, with what held before. That is not written: teachers from
# before keep their addresses.
_ADDED = {"pooling": "sets"}


def model_to_dict(config: ModelConfig) -> dict[str, Any]:
    """Turn a registered model's configuration into JSON values, with its ``name``.

    Raises:
        ValueError: if the model is not registered by a name (sequences, ensembles), or a class in
            it is not one of torch.nn.
    """
    for name, config_class in model_config_registry.items():
        if type(config) is config_class:
            fields = ((k, _plain(v)) for k, v in asdict(config).items())
            return {"name": name, **{k: v for k, v in fields if _ADDED.get(k, _SAFE) != v}}
    raise ValueError(
        f"model: {type(config).__name__} is not in BenchMARL's model registry; "
        f"use one of {sorted(model_config_registry)}"
    )


def model_from_dict(data: dict[str, Any]) -> ModelConfig:
    """Rebuild a model's configuration; classes may only come from ``torch.nn``.

    Raises:
        ValueError: if the model is unknown, its fields are wrong or name another class.
    """
    fields = dict(data)
    name = fields.pop("name", None)
    if name not in model_config_registry:
        raise ValueError(f"model.name: {name!r} is not one of {sorted(model_config_registry)}")
    try:
        return model_config_registry[name](
            **{key: _class(key, value) for key, value in fields.items()}
        )
    except TypeError as error:
        raise ValueError(f"model: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, type):
        name = str(value.__name__)
        if getattr(torch.nn, name, None) is not value:
            raise ValueError(f"model: {value} must be a class of torch.nn")
        return f"{_SAFE}{name}"
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _class(key: str, value: Any) -> Any:
    if isinstance(value, dict):  # a trunk: checked here, its names are resolved by the model
        for inner_key, inner in value.items():
            _class(inner_key, inner)
        return value
    if not key.endswith("class") or value is None:
        return value
    found = getattr(torch.nn, str(value).removeprefix(_SAFE), None)
    if not isinstance(found, type):
        raise ValueError(f"model.{key}: {value!r} must be a class of torch.nn")
    return found
