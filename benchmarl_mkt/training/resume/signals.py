"""Stopping on SIGTERM and Ctrl-C: at once, or in a training at the end of its iteration."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing.connection import wait

_HANDLED = (signal.SIGTERM, signal.SIGINT)


class Stopped(SystemExit):
    """A signal asked to stop; the process exits with 128 + the signal's number, as a shell does."""

    def __init__(self, number: int):
        super().__init__(128 + number)


class _State:
    deferring = False
    received: int | None = None


def _receive(number: int, _frame: object) -> None:
    first, _State.received = _State.received is None, number
    # Schedulers send SIGTERM to all processes of a job, some twice; only Ctrl-C is impatience.
    if (first and not _State.deferring) or (not first and number == signal.SIGINT):
        raise Stopped(number)


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """Turn SIGTERM and Ctrl-C into :class:`Stopped` while the context lasts."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals in the main thread only
        return
    previous = {number: signal.signal(number, _receive) for number in _HANDLED}
    try:
        yield
    finally:
        _State.received = None
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Only note a signal, for :func:`raise_if_received`; a second Ctrl-C stops at once."""
    _State.deferring = True
    try:
        yield
    finally:
        _State.deferring = False


def received() -> bool:
    """Whether a signal has asked to stop."""
    return _State.received is not None


def raise_if_received() -> None:
    """Stop if a signal has asked to.

    Raises:
        Stopped: then.
    """
    if _State.received is not None:
        raise Stopped(_State.received)


def obey_parent() -> None:
    """Make this worker process stop as by SIGTERM when its parent asks it to, or is gone.

    A process pool would report an exception and wait for more work: outside of a training the
    process ends on the spot. Ctrl-C reaches all processes of a terminal: the parent answers it.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "not a worker process"

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_worker)


def _end_worker(number: int, _frame: object) -> None:
    _State.received = number
    if not _State.deferring:
        os._exit(128 + number)
