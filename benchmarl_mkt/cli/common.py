"""What the verbs share: errors of the input, options, the console."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


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


def add_team(parser: argparse.ArgumentParser) -> None:
    """Add the argument that says which team is meant."""
    parser.add_argument("checkpoint", metavar="FOLDER", help="a run's folder, or a team's")


def add_playing(parser: argparse.ArgumentParser) -> None:
    """Add how many episodes are played, from which seed."""
    parser.add_argument("--episodes", type=natural(1), default=100, metavar="N", help="default 100")
    parser.add_argument("--seed", type=natural(0), default=0, metavar="N", help="default 0")


def writable(key: str, path: Path) -> Path:
    """Return the path of a file that can be written.

    Raises:
        ValueError: if it cannot, naming the option.
    """
    from benchmarl_mkt.files import check_writable

    check_writable(key, path.expanduser().parent)
    return path.expanduser()
