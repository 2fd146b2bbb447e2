"""Where files live, how they are read and written. Hydra's plugin scan reads this: no torch."""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path
from typing import Any

import yaml

_PACKAGE = Path(__file__).resolve().parent


def conf_path() -> Path:
    """Return the folder of the shipped YAML files: inside a wheel, or at the top of a checkout."""
    packaged = _PACKAGE / "conf"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "conf"


def cache_path() -> Path:
    """Return this package's folder in the user's cache; it may not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "benchmarl_mkt"


def default_store_path() -> Path:
    """Return the teacher store: ``$BENCHMARL_MKT_STORE``, else a folder of the user's cache."""
    configured = os.environ.get("BENCHMARL_MKT_STORE")
    return Path(configured).expanduser().resolve() if configured else cache_path() / "teachers"


def work_where_the_command_does() -> None:
    """Go to ``$BENCHMARL_MKT_CWD``, which relative paths start from, in a worker of Ray's.

    Its process has begun in a folder of the cluster's; see ``benchmarks/paper_ray.yaml``.
    """
    os.chdir(os.environ["BENCHMARL_MKT_CWD"])


def check_writable(label: str, folder: Path) -> None:
    """Check that ``folder`` can be written to, or made, without touching it.

    Raises:
        ValueError: if it cannot.
    """
    folder = folder.expanduser().absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        reason = "no permission" if there.is_dir() else f"{there} is a file"
        raise ValueError(f"{label}: cannot write to {folder} ({reason}); choose another folder")


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file; its tags make no objects.

    Raises:
        ValueError: if the file cannot be read; the message is one line.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except Exception as error:  # YAML's own, and others of tags such as !!bool on what is none
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"cannot read {path} ({reason:.200})") from None


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is complete or, whatever happens, what it was before.

    Raises:
        OSError: if it cannot be written, naming it.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    to_disk(path.parent)  # the rename itself


def to_disk(path: Path) -> None:
    """Wait until what was written to a file, or renamed in a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Return the file's SHA-256 as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def moved(old: str, new: str) -> None:
    """Say where a module is now; its old place goes with the next release."""
    warnings.warn(f"{old} is {new} now", FutureWarning, stacklevel=3)
