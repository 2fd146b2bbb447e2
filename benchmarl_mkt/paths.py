"""Where files live. No import of torch: Hydra's plugin scan reads this module."""

from __future__ import annotations

import os
from pathlib import Path

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
    if configured:
        return Path(configured).expanduser().resolve()
    return cache_path() / "teachers"


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
