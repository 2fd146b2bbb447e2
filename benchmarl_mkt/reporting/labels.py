"""What a report calls its methods, and the numbers it shows beside ours: an optional YAML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarl_mkt.files import read_yaml

FILE = "labels.yaml"


@dataclass(frozen=True)
class Labels:
    """Names, order and published numbers.

    Attributes:
        methods: method -> its name, in the order of the rows; the first one is the reference.
        notes: method -> what to know about it.
        groups: name of a group of tables and pictures -> its methods; the reference is in each.
        tasks: task -> its name.
        published: task -> method -> the return that ``source`` gives.
        source: where the published numbers are from, and what to know about them.
    """

    methods: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tasks: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    source: str = ""


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
    try:
        return _labels({} if content is None else content)
    except ValueError as error:
        raise ValueError(f"--labels: {path}: {error}") from None


def _labels(content: Any) -> Labels:
    keys = ("methods", "groups", "tasks", "published", "source")
    _mapping("the file", content, keys)
    methods = _mapping("methods", content.get("methods", {}))
    for method, label in methods.items():
        _mapping(f"methods.{method}", label, ("name", "note"))
        for key, value in label.items():
            _is(f"methods.{method}.{key}", value, str, "a text")
    groups = _mapping("groups", content.get("groups", {}))
    for group, members in groups.items():
        _is(f"groups.{group}", members, list, "a list of methods")
        for member in members:
            _is(f"groups.{group}", member, str, "a list of methods")
    tasks = _mapping("tasks", content.get("tasks", {}))
    for task, name in tasks.items():
        _is(f"tasks.{task}", name, str, "a text")
    published = _mapping("published", content.get("published", {}))
    for task, numbers in published.items():
        for method, number in _mapping(f"published.{task}", numbers).items():
            _is(f"published.{task}.{method}", number, int | float, "a number")
    source = content.get("source", "")
    _is("source", source, str, "a text")
    return Labels(
        methods={method: label.get("name", method) for method, label in methods.items()},
        notes={method: label["note"] for method, label in methods.items() if "note" in label},
        groups={group: tuple(members) for group, members in groups.items()},
        tasks=tasks,
        published=published,
        source=source,
    )


def _mapping(key: str, value: Any, allowed: tuple[str, ...] | None = None) -> dict[str, Any]:
    _is(key, value, dict, "a mapping")
    for name in value:
        _is(key, name, str, f"texts as keys (quote {name!r})")
        if allowed is not None and name not in allowed:
            raise ValueError(f"{key}: unknown key {name!r}; known are {', '.join(allowed)}")
    return value


def _is(key: str, value: Any, kind: Any, expected: str) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{key}: expected {expected}, got {value!r:.80}")
