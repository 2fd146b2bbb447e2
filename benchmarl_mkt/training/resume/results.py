"""A run's result files: no line lost or doubled, whenever it was killed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from benchmarl.experiment import Experiment
from benchmarl.experiment.logger import JsonWriter

from benchmarl_mkt.files import write_atomically


class AtomicJsonWriter(JsonWriter):
    """The experiment's own ``writer`` of evaluations, but its file is never seen half written."""

    path: Path
    data: dict[str, Any]

    def __init__(self, writer: JsonWriter):
        self.__dict__.update(writer.__dict__)

    def write(self, *args: Any, **kwargs: Any) -> None:
        """Add an evaluation; see BenchMARL's writer."""
        path, self.path = self.path, Path(os.devnull)
        try:
            super().write(*args, **kwargs)
        finally:
            self.path = path
        self.rewrite()

    def rename(self, algorithm: str) -> None:
        """Call the run's algorithm so: variants of one are apart when results are merged."""
        ((environment, tasks),) = self.data.items()
        ((task, algorithms),) = tasks.items()
        (seeds,) = algorithms.values()
        self.data = {environment: {task: {algorithm: seeds}}}

    def rewrite(self) -> None:
        """Write the evaluations in memory."""
        write_atomically(self.path, json.dumps(self.data, indent=4).encode())


def rewind(experiment: Experiment) -> None:
    """Cut an experiment's result files back to the iterations that it has done.

    Lines of later iterations, and an unfinished last line, are of a process that was killed.
    """
    done = experiment.n_iters_performed
    if done and experiment.logger.json_writer is not None:
        experiment.logger.json_writer.rewrite()
    for path in Path(experiment.folder_name).rglob(".*.tmp"):
        path.unlink()
    for path in Path(experiment.folder_name).glob("*/scalars/*.csv"):
        text = path.read_text()
        kept = "".join(line for line in text.splitlines(True) if _is_before(line, done))
        if kept != text:
            write_atomically(path, kept.encode())


def _is_before(line: str, iteration: int) -> bool:
    step, comma, _ = line.partition(",")
    return bool(comma) and line.endswith("\n") and step.isdigit() and int(step) < iteration


def sync_results(experiment: Experiment) -> None:
    """Put the lines written so far on the disk: a checkpoint after them must not outlive them.

    TorchRL's CSV logger also keeps every line in memory, where nobody reads it; it is let go.
    """
    for logger in experiment.logger.loggers:
        for file in getattr(logger.experiment, "files", {}).values():
            os.fsync(file.fileno())
        getattr(logger.experiment, "scalars", {}).clear()
