"""The teacher store: one folder per teacher, addressed by what it was trained from.

A folder appears by one rename, so it is complete or absent. A damaged one is named and stays:
nothing here deletes what is in the store.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from torch import Tensor

from benchmarl_mkt.files import default_store_path
from benchmarl_mkt.teams.folder import FORMAT, METADATA, write_team

# To be raised by hand when the code changes what a recipe gives.
RECIPE_VERSION = 1


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
            :func:`~benchmarl_mkt.teachers.settings.game_of`. Empty in the first recipes.
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
    def name(self) -> str:
        """The task's name, which the names of its teachers' folders begin with."""
        return re.sub(r"[^A-Za-z0-9]+", "-", str(self.task["task"]))

    @property
    def key(self) -> str:
        """Name of the teacher's folder: the task, and 16 digits of the digest."""
        return f"{self.name}-{self.digest[:16]}"

    def is_of(self, folder: Path) -> bool:
        """Whether the teacher in ``folder`` was trained from this recipe, however it is written."""
        try:
            content = json.loads((folder / METADATA).read_text())["recipe"]
            return Recipe(**content) == Recipe(**json.loads(json.dumps(asdict(self))))
        except (ValueError, LookupError, TypeError, OSError):
            return False


class TeacherStore:
    """Teachers on disk.

    Args:
        root: the store's folder, made when needed; by default ``$BENCHMARL_MKT_STORE`` or the
            user's cache.
    """

    def __init__(self, root: str | Path | None = None):
        self.root = Path(root).expanduser().resolve() if root else default_store_path()

    def path(self, recipe: Recipe) -> Path:
        """Where the recipe's teacher is, or would be.

        Earlier versions wrote some numbers otherwise (5 for 5.0), and so other addresses.
        """
        path = self.root / recipe.key
        others = () if path.exists() else self.root.glob(f"{recipe.name}-*")
        return next((other for other in others if recipe.is_of(other)), path)

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
        return write_team(self.path(recipe), weights, {**metadata, "recipe": asdict(recipe)})

    def entries(self) -> list[Path]:
        """Return the folders of all teachers, damaged ones too, sorted."""
        return sorted(path for path in self.root.glob("[!.]*") if path.is_dir())
