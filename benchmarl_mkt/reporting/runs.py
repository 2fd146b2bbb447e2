"""Read the results of runs: summaries and evaluations; nothing here needs torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = "benchmarl-mkt summary 1"
PLAYERS = ("random", "teacher", "student", "best")
WIN_RATE = "_win_rate"
MEASURES = (*PLAYERS, *(player + WIN_RATE for player in PLAYERS))
LIMIT = 10**15  # larger counts and returns are damage
_MALFORMED = (
    *(OSError, ValueError, TypeError, KeyError, AttributeError),
    *(IndexError, OverflowError, RecursionError),
)


@dataclass(frozen=True)
class Outcome:
    """What a run has achieved on one task.

    Attributes:
        means: mean over episodes of each of ``MEASURES`` that the run has.
        frames: the run's own frames of the task, if it has finished.
        teacher_frames: its teacher's frames of the task; 0 without a teacher.
        curve: frames [n] and mean return [n] of each evaluation, if there were any.
    """

    means: Mapping[str, float] = field(default_factory=dict)
    frames: int | None = None
    teacher_frames: int = 0
    curve: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class Run:
    """One run, finished or not.

    Attributes:
        where: its folder, as a report names it.
        set: the task set.
        method: what it is called.
        seed: its seed.
        finished: whether it has come to its end.
        max_frames: frames of each task that were planned.
        tasks: task -> outcome.
        averaged: whether its best policy is of twice the candidates: those of its evaluations, and
            each with the weights of the averaged target network.
        problems: what could not be read, one line each.
    """

    where: str
    set: str
    method: str
    seed: int
    finished: bool
    max_frames: int
    tasks: Mapping[str, Outcome]
    averaged: bool = False
    problems: tuple[str, ...] = ()

    @property
    def frames(self) -> int:
        """Frames of a task that were planned, if it has finished, else at the latest evaluation."""
        if self.finished:
            return self.max_frames
        curves = (outcome.curve for outcome in self.tasks.values())
        return max((int(curve[0][-1]) for curve in curves if curve is not None), default=0)


@dataclass(frozen=True)
class Damaged:
    """A summary that cannot be read."""

    where: str
    problem: str


def read_curves(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read a run's JSON (marl-eval shape): task -> frames [n], returns [n, episodes].

    Raises:
        ValueError: the file is missing or has another shape; the message names it.
    """
    try:
        (tasks,) = json.loads(path.read_bytes()).values()
        (algorithms,) = tasks.values()
        (seeds,) = algorithms.values()
        (run,) = seeds.values()
        steps = sorted(
            (value for key, value in run.items() if key.startswith("step_")),
            key=lambda step: step["step_count"],
        )
        names = [key.removesuffix("_return") for key in steps[0] if key.endswith("_return")]
        frames = np.array([_count(step, "step_count") for step in steps], dtype=np.int64)
        curves = {
            name: (frames, np.array([step[f"{name}_return"] for step in steps], dtype=np.float64))
            for name in names
        }
        for name, (_, returns) in curves.items():
            if returns.ndim != 2 or not returns.size or not (np.abs(returns) <= LIMIT).all():
                raise ValueError(f"{name}_return is not one list of numbers per evaluation")
    except _MALFORMED as error:
        raise ValueError(f"{path.name}: no evaluations can be read ({_reason(error)})") from None
    return curves


def read_runs(roots: Iterable[Path]) -> tuple[list[Run], list[Damaged]]:
    """Read every run below the folders ``roots``, in the order of their paths.

    Raises:
        ValueError: a folder is missing or has no ``summary.json`` below it.
    """
    runs, damaged, seen = [], [], set()
    for root in roots:
        if not root.is_dir():
            raise ValueError(f"RESULTS: there is no folder {root}")
        paths = sorted(root.rglob("summary.json"))
        if not paths:
            raise ValueError(f"RESULTS: no summary.json below {root}; is it a folder of runs?")
        for path in paths:
            if path.resolve() in seen:
                continue
            seen.add(path.resolve())
            where = (Path(root.resolve().name) / path.parent.relative_to(root)).as_posix()
            try:
                runs.append(read_run(path, where))
            except _MALFORMED as error:
                damaged.append(Damaged(where, f"summary.json: {_reason(error)}"))
    return runs, damaged


def read_run(path: Path, where: str) -> Run:
    """Read one run with all that is legible in it.

    Args:
        path: its ``summary.json``.
        where: its folder, as a report names it.

    Raises:
        ValueError: the summary is no JSON object of ``FORMAT`` with set, method and seed.
        OSError: it cannot be opened.
    """
    if not path.is_file():
        raise ValueError("not a file")
    summary = json.loads(path.read_bytes())
    if not isinstance(summary, dict) or summary.get("format") != FORMAT:
        raise ValueError(f"format: expected {FORMAT!r}")
    set_, method = _name(summary, "set"), _name(summary, "method")
    seed, max_frames = _count(summary, "seed"), _count(summary, "max_frames")
    finished, rows = _get(summary, "finished", bool), _get(summary, "tasks", dict)
    if not max_frames:
        raise ValueError("max_frames: expected a positive number")
    problems, curves = [], {}
    try:
        curves = _mean_curves(path.parent, summary.get("evaluations"))
    except ValueError as error:
        problems.append(str(error))
    tasks = {}
    for task in {**rows, **curves}:
        if task.isprintable():
            tasks[task] = _outcome(task, rows.get(task, {}), curves.get(task), problems)
        else:
            problems.append(f"tasks: {task!r:.80} is no name")
    if finished and not rows:
        problems.append("summary.json: finished, but without tasks")
    averaged = summary.get("averaged_weights") is True
    return Run(where, set_, method, seed, finished, max_frames, tasks, averaged, tuple(problems))


def _mean_curves(folder: Path, name: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    if name is None:
        raise ValueError("no evaluations were kept (experiment.create_json or evaluation: false)")
    if not isinstance(name, str) or Path(name).name != name:
        raise ValueError(f"evaluations: expected the name of a file beside it, got {name!r:.80}")
    curves = read_curves(folder / name)
    return {task: (frames, returns.mean(1)) for task, (frames, returns) in curves.items()}


def _outcome(task: str, row: Any, curve: Any, problems: list[str]) -> Outcome:
    if not isinstance(row, dict):
        problems.append(f"tasks.{task}: expected an object, got {row!r:.80}")
        row = {}
    means, counts = {}, {}
    for measure in MEASURES:
        if measure in row:
            try:
                means[measure] = _number(row[measure]["mean"])
            except _MALFORMED as error:
                problems.append(f"tasks.{task}.{measure}: {_reason(error)}")
    for key in ("frames", "teacher_frames"):
        if key in row:
            try:
                counts[key] = _count(row, key)
            except ValueError as error:
                problems.append(f"tasks.{task}.{error}")
    return Outcome(means, **counts, curve=curve)


def _get(row: Mapping[str, Any], key: str, kind: type) -> Any:
    if type(row.get(key)) is not kind:  # a bool is no int here
        raise ValueError(f"{key}: expected {kind.__name__}, got {row.get(key)!r:.80}")
    return row[key]


def _name(row: Mapping[str, Any], key: str) -> str:
    if not (name := _get(row, key, str)).strip() or not name.isprintable():
        raise ValueError(f"{key}: {name!r:.80} is no name")
    return name


def _count(row: Mapping[str, Any], key: str) -> int:
    if not 0 <= (count := _get(row, key, int)) <= LIMIT:
        raise ValueError(f"{key}: expected 0 to {LIMIT}")
    return count


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not abs(value) <= LIMIT:  # not a number fails here too
        raise ValueError(f"expected a number, got {value!r:.80}")
    return float(value)


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error} is missing"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__
