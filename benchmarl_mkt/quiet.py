"""Logs quiet enough to read."""

from __future__ import annotations

import logging
import warnings


def quiet() -> None:
    """Silence what says nothing to a user: libraries' notices and BenchMARL's schema lookup."""
    warnings.filterwarnings("ignore", message="TaskConfig python dataclass not found")
    warnings.filterwarnings("ignore", message="No episode terminated this iteration")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    for name in ("torchrl", "matplotlib"):
        logging.getLogger(name).setLevel(logging.ERROR)
