"""What this package's callbacks have in common."""

from __future__ import annotations

from typing import Any

from benchmarl.experiment.callback import Callback


class RunCallback(Callback):
    """A callback that BenchMARL can pickle with an experiment, without the experiment."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "experiment": None}
