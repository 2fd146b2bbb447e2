"""A team's folder: ``teacher.json`` and ``weights.safetensors``, complete or absent."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from benchmarl_mkt.files import sha256, to_disk

FORMAT = "benchmarl-mkt-teacher/1"
METADATA, WEIGHTS = "teacher.json", "weights.safetensors"


@dataclass(frozen=True)
class TeamSpecs:
    """Sizes of a team, which a teacher must share with the task it teaches."""

    n_agents: int
    observation_size: int
    n_actions: int


def write_team(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Path:
    """Write a team's folder by one rename; an existing one is kept.

    Args:
        path: the folder.
        weights: the network's ``state_dict``.
        metadata: content of ``teacher.json``; format and checksum are added.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        tensors = {  # a state_dict of tensordict parameters also holds their sizes
            name: value.detach().cpu().contiguous()
            for name, value in weights.items()
            if isinstance(value, Tensor)
        }
        save_file(tensors, temporary / WEIGHTS)
        content = json.loads(json.dumps({**metadata, "format": FORMAT}))
        content["checksum"] = checksum(temporary / WEIGHTS, content)
        (temporary / METADATA).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
        for written in (temporary / WEIGHTS, temporary / METADATA, temporary):
            to_disk(written)
        try:
            temporary.rename(path)
        except OSError:
            if not (path / METADATA).is_file():  # else somebody was first: theirs is the same
                raise
        to_disk(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def checksum(weights: Path, metadata: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the weights' file and all other metadata, as hexadecimal digits."""
    content = {key: value for key, value in metadata.items() if key != "checksum"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(sha256(weights).encode() + text.encode()).hexdigest()
