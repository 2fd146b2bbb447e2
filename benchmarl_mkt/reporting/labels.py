"""What a report calls its methods, and the numbers it shows beside ours: an optional YAML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarl_mkt.files import read_yaml

FILE = "labels.yaml"
_ANY = "any key"
_SHAPE: dict[str, Any] = {
    "methods": {_ANY: {"name": "a text", "note": "a text"}},
    "groups": {_ANY: "a list of methods"},
    "tasks": {_ANY: "a text"},
    "published": {_ANY: {_ANY: "a number"}},
    "source": "a text",
}
_TYPES: dict[str, Any] = {"a text": str, "a number": int | float, "a list of methods": list}


@dataclass(frozen=True)
class Labels:
    """Names, order and published numbers."""

    methods: Mapping[str, str] = field(default_factory=dict)  # names; the order is the rows'
    notes: Mapping[str, str] = field(default_factory=dict)  # method -> what to know about it
    # Name of a group of tables and pictures -> its methods; the first method is in each.
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tasks: Mapping[str, str] = field(default_factory=dict)  # names
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # task -> method ->
    source: str = ""  # where the published numbers are from, and what to know about them


def find_labels(roots: Iterable[Path]) -> Labels:
    """Read the first ``labels.yaml`` of the folders; empty labels if there is none."""
    for root in roots:
        if (root / FILE).is_file():
            return read_labels(root / FILE)
    return Labels()


def read_labels(path: Path) -> Labels:
    """Read labels from YAML, shaped as ``benchmarks/paper_labels.yaml``.

    Raises:
        ValueError: the file is missing or has another shape; the message names file and key.
    """
    try:
        content = read_yaml(path)
    except ValueError as error:
        raise ValueError(f"--labels: {error}") from None
    content = {} if content is None else content
    try:
        _check("the file", content, _SHAPE)
    except ValueError as error:
        raise ValueError(f"--labels: {path}: {error}") from None
    methods, groups = content.pop("methods", {}), content.pop("groups", {})
    return Labels(
        methods={method: label.get("name", method) for method, label in methods.items()},
        notes={method: label["note"] for method, label in methods.items() if "note" in label},
        groups={group: tuple(members) for group, members in groups.items()},
        **content,
    )


def _check(key: str, value: Any, shape: Any) -> None:
    """Compare the ``value`` of a ``key`` with a part of ``_SHAPE``."""
    if isinstance(shape, str):
        _is(key, value, _TYPES[shape], shape)
        for member in value if isinstance(value, list) else ():
            _is(key, member, str, shape)
        return
    _is(key, value, dict, "a mapping")
    for name, part in value.items():
        _is(key, name, str, f"texts as keys (quote {name!r})")
        if shape.keys().isdisjoint({name, _ANY}):
            raise ValueError(f"{key}: unknown key {name!r}; known are {', '.join(shape)}")
        inner = name if key == "the file" else f"{key}.{name}"
        _check(inner, part, shape.get(name) or shape[_ANY])


def _is(key: str, value: Any, kind: Any, expected: str) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{key}: expected {expected}, got {value!r:.80}")
