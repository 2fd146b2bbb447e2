"""What the verbs share: errors of the input, options, the console."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console


class Verb(NamedTuple):
    """A command: its line in ``benchmarl --help``, the texts around its options, what it does."""

    summary: str
    help: str
    example: str
    configure: Callable[[argparse.ArgumentParser], None]
    main: Callable[[argparse.Namespace], None]


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turn errors of the input into one line and exit status 2."""
    try:
        yield
    except (ValueError, ImportError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).splitlines())}\n")
        sys.exit(2)


@contextlib.contextmanager
def stops(remedy: str) -> Iterator[None]:
    """Turn what stops a training, signals included, into one line that ends with ``remedy``."""
    from benchmarl_mkt.training.monitors import TrainingError
    from benchmarl_mkt.training.resume.signals import Stopped, stop_signals

    try:
        with stop_signals():
            yield
    except Stopped:
        sys.stderr.write(f"Stopped; {remedy}\n")
        raise
    except TrainingError as error:
        sys.stderr.write(f"error: {error}; {remedy}\n")
        sys.exit(1)
    except OSError as error:
        sys.stderr.write(f"error: {error}; what was saved before is intact; {remedy}\n")
        sys.exit(1)


def make_console() -> Console:
    """Return the console; a pipe or file is wide enough for the tables."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=130)


def natural(least: int) -> Callable[[str], int]:
    """Return the type of options that are whole numbers from ``least`` to 2**32 - 1."""

    def read(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) < 2**32:
            raise argparse.ArgumentTypeError(
                f"{text!r} must be a whole number from {least} to 2**32 - 1"
            )
        return int(text)

    return read


def writable(key: str, path: Path) -> Path:
    """Return the path of a file that can be written.

    Raises:
        ValueError: if it cannot, naming the option.
    """
    from benchmarl_mkt.files import check_writable

    check_writable(key, path.expanduser().parent)
    return path.expanduser()
