"""Reading YAML that users wrote: plain values, or one ValueError. No import of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file; its tags make no objects.

    Raises:
        ValueError: if the file cannot be read; the message is one line.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (
        *(OSError, ValueError, yaml.YAMLError, RecursionError, OverflowError),
        *(LookupError, AttributeError, TypeError),  # of tags such as !!bool on what is none
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"cannot read {path} ({reason:.200})") from None
