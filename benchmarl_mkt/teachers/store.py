"""The teacher store: one folder per teacher, addressed by what it was trained from.

A folder holds ``teacher.json`` (task, specs, training configuration, score, versions, checksum)
and ``weights.safetensors``. It appears by one rename, so it is complete or absent. The checksum is
over both files. A damaged folder is named and stays: nothing here deletes what is in the store.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors.torch import save_file
from torch import Tensor

from benchmarl_mkt.paths import default_store_path

FORMAT = "benchmarl-mkt-teacher/1"
# To be raised by hand when the code changes what a recipe gives.
RECIPE_VERSION = 1
METADATA, WEIGHTS = "teacher.json", "weights.safetensors"


@dataclass(frozen=True)
class TeacherSpecs:
    """Sizes that a teacher must share with the task it teaches."""

    n_agents: int
    observation_size: int
    n_actions: int


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a trained teacher; its digest is the teacher's address.

    Args:
        task: the task's configuration without the group's name, opponents by their checksums.
        algorithm: name and fields of the algorithm.
        model: name and fields of the model.
        experiment: the fields of the experiment's configuration that bear on training.
        seed: seed of the training.
        game: what the task is played by, with its version; see
            :func:`~benchmarl_mkt.teachers.find.game_of`. Empty in recipes written before it was.
    """

    task: Mapping[str, Any]
    algorithm: Mapping[str, Any]
    model: Mapping[str, Any]
    experiment: Mapping[str, Any]
    seed: int
    game: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of recipe and versions, as 64 hexadecimal digits."""
        content = {"format": FORMAT, "version": RECIPE_VERSION, **asdict(self)}
        if not self.game:
            del content["game"]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def key(self) -> str:
        """Name of the teacher's folder: the task, and 16 digits of the digest."""
        task = re.sub(r"[^A-Za-z0-9]+", "-", str(self.task["task"]))
        return f"{task}-{self.digest[:16]}"


class TeacherStore:
    """Teachers on disk.

    Args:
        root: the store's folder, made when needed; by default ``$BENCHMARL_MKT_STORE`` or the
            user's cache.
    """

    def __init__(self, root: str | Path | None = None):
        self.root = Path(root).expanduser().resolve() if root else default_store_path()

    def path(self, recipe: Recipe) -> Path:
        """Where the recipe's teacher is, or would be."""
        return self.root / recipe.key

    def __contains__(self, recipe: Recipe) -> bool:
        return self.path(recipe).exists()  # damaged or not: who loads it says so

    @contextlib.contextmanager
    def lock(self, recipe: Recipe) -> Iterator[None]:
        """Hold the recipe's lock: two processes train the same teacher once.

        The operating system frees the lock if the process dies.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / f".{recipe.key}.lock"):
            yield

    def save(self, recipe: Recipe, weights: Mapping[str, Tensor], metadata: Mapping) -> Path:
        """Write a teacher to its address; an existing one is kept. Returns its folder."""
        return write_teacher(self.path(recipe), weights, {**metadata, "recipe": asdict(recipe)})

    def entries(self) -> list[Path]:
        """Return the folders of all teachers, damaged ones too, sorted."""
        return sorted(path for path in self.root.glob("[!.]*") if path.is_dir())


def write_teacher(path: Path, weights: Mapping[str, Tensor], metadata: Mapping) -> Path:
    """Write a teacher's folder atomically; an existing one is kept."""
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
            _to_disk(written)
        try:
            temporary.rename(path)
        except OSError:
            if not (path / METADATA).is_file():  # else somebody was first: theirs is the same
                raise
        _to_disk(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def checksum(weights: Path, metadata: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the weights' file and all other metadata, as hexadecimal digits."""
    content = {key: value for key, value in metadata.items() if key != "checksum"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(sha256(weights).encode() + text.encode()).hexdigest()


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Return the file's SHA-256 as hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
