"""What the verbs share: errors of the input, options, the console."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


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
    from benchmarl_mkt.guards import TrainingError
    from benchmarl_mkt.resume.signals import Stopped, stop_signals

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


def make_console():
    """Return the console; a pipe or file is wide enough for the tables."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=130)


def read_options(verb: str, usage: str, arguments: list[str]) -> dict[str, str]:
    """Read ``KEY=VALUE`` arguments.

    Args:
        verb: the verb, for messages.
        usage: what it takes, such as ``"checkpoint=FOLDER [seed=0]"``; keys in brackets may be
            left out.
        arguments: what was given.

    Raises:
        ValueError: if an argument is not of that form, its key is unknown, or one is missing.
    """
    words = usage.split()
    known = {word.strip("[]").partition("=")[0] for word in words}
    needed = {word.partition("=")[0] for word in words if not word.startswith("[")}
    given = dict(option.split("=", 1) for option in arguments if "=" in option)
    if len(given) < len(arguments) or set(given) - known or needed - set(given):
        raise ValueError(
            f"{verb}: {' '.join(arguments) or 'nothing'!r} given; usage: benchmarl {verb} {usage}"
        )
    return given


def whole(given: dict[str, str], key: str, default: int, least: int = 0) -> int:
    """Read a whole number that is at least ``least`` and below 2**32.

    Raises:
        ValueError: if it is none.
    """
    text = given.get(key, str(default))
    if not text.isdecimal() or not least <= int(text) < 2**32:
        raise ValueError(f"{key}: {text!r} must be a whole number from {least} to 2**32 - 1")
    return int(text)
