"""Read the results of runs: summaries and evaluations; nothing here needs torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

_T = TypeVar("_T")
Curve = tuple[np.ndarray, np.ndarray]  # frames [n]; returns [n], or [n, episodes]

FORMAT = "benchmarl-mkt summary 1"
PLAYERS = ("random", "teacher", "student", "best")
WIN_RATE = "_win_rate"
MEASURES = (*PLAYERS, *(player + WIN_RATE for player in PLAYERS))
LIMIT = 10**15  # larger counts and returns are damage
_MALFORMED = (
    OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError
)  # fmt: skip


@dataclass(frozen=True, eq=False)  # a run's tasks share one
class Timing:
    """How long a run has trained, its evaluations included."""

    seconds: float | None = None  # to its end
    machine: str | None = None  # that it ended on
    clock: Curve | None = None  # frames [n], increasing, and the seconds until each [n]


@dataclass(frozen=True)
class Outcome:
    """What a run has achieved on one task."""

    means: Mapping[str, float]  # over episodes, of each of MEASURES that the run has
    frames: int | None  # the run's own frames of the task, if it has finished
    teacher_frames: int  # 0 without a teacher
    curve: Curve | None  # mean return of each evaluation, if there were any
    timing: Timing = field(default_factory=Timing)


@dataclass(frozen=True)
class Run:
    """One run, finished or not."""

    where: str  # its folder, as a report names it
    set: str
    method: str
    seed: int
    finished: bool
    max_frames: int  # of each task, as planned
    tasks: Mapping[str, Outcome]
    # Whether its best policy is of twice the candidates: those of its evaluations, and each with
    # the weights of the averaged target network.
    averaged: bool
    problems: tuple[str, ...]  # what could not be read, one line each

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


def read_curves(path: Path) -> dict[str, Curve]:
    """Read a run's JSON (marl-eval shape): task -> frames [n], returns [n, episodes].

    Raises:
        ValueError: the file is missing or has another shape; the message names it.
    """
    try:
        run = json.loads(path.read_bytes())
        for _ in ("environment", "task", "algorithm", "seed"):
            (run,) = run.values()
        steps = [step for key, step in run.items() if key.startswith("step_")]
        steps.sort(key=lambda step: step["step_count"])
        frames = np.array([_field(step, "step_count", int) for step in steps])
        curves = {}
        for key in steps[0]:
            if key.endswith("_return"):
                returns = np.array([step[key] for step in steps], dtype=np.float64)
                if returns.ndim != 2 or not returns.size or not (np.abs(returns) <= LIMIT).all():
                    raise ValueError(f"{key} is not one list of numbers per evaluation")
                curves[key.removesuffix("_return")] = frames, returns
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
    """Read one run with all that is legible in it; ``path`` is its ``summary.json``.

    Raises:
        ValueError: the summary is no JSON object of ``FORMAT`` with set, method and seed.
        OSError: it cannot be opened.
    """
    if not path.is_file():
        raise ValueError("not a file")
    summary = json.loads(path.read_bytes())
    if not isinstance(summary, dict) or summary.get("format") != FORMAT:
        raise ValueError(f"format: expected {FORMAT!r}")
    set_, method = (_field(summary, key, str) for key in ("set", "method"))
    seed, max_frames = (_field(summary, key, int) for key in ("seed", "max_frames"))
    finished, rows = _field(summary, "finished", bool), _field(summary, "tasks", dict)
    if not max_frames:
        raise ValueError("max_frames: expected a positive number")
    name, problems = summary.get("evaluations"), []
    tasks, curves = {}, {}
    if name is None:
        problems.append("no evaluations were kept (experiment.create_json or evaluation: false)")
    elif not isinstance(name, str) or Path(name).name != name:
        problems.append(f"evaluations: expected the name of a file beside it, got {name!r:.80}")
    else:
        try:
            curves = read_curves(path.parent / name)
        except ValueError as error:
            problems.append(str(error))
    timing = _timing(summary, path.parent, problems)
    for task in {**rows, **curves}:
        if task.isprintable():
            tasks[task] = _outcome(task, rows.get(task, {}), curves.get(task), timing, problems)
        else:
            problems.append(f"tasks: {task!r:.80} is no name")
    if finished and not rows:
        problems.append("summary.json: finished, but without tasks")
    averaged = summary.get("averaged_weights") is True
    return Run(where, set_, method, seed, finished, max_frames, tasks, averaged, tuple(problems))


def _timing(summary: Mapping[str, Any], folder: Path, problems: list[str]) -> Timing:
    """Read what a summary and the CSV files of the run's logger know; older summaries do not."""
    seconds = machine = clock = None
    try:
        seconds = _number(summary["seconds"]) if "seconds" in summary else None
    except ValueError as error:
        problems.append(f"seconds: {_reason(error)}")
    try:
        machine = _field(summary, "machine", str) if "machine" in summary else None
    except ValueError as error:
        problems.append(_reason(error))
    try:
        logs = list(folder.glob("*/scalars/timers_total_time.csv"))
        if len(logs) == 1:
            times, frames = map(_scalars, (logs[0], logs[0].with_name("counters_total_frames.csv")))
            rows = np.array([(frames[step], times[step]) for step in times if step in frames])
            if not (np.diff(rows, axis=0) > 0).all() or not (abs(rows) <= LIMIT).all():
                raise ValueError("frames and seconds must increase")
            clock = (rows[:, 0], rows[:, 1]) if len(rows) else None
    except _MALFORMED as error:
        problems.append(f"timers_total_time.csv: {_reason(error)}")
    return Timing(seconds, machine, clock)


def _scalars(path: Path) -> dict[int, float]:
    """Read what a CSV logger has written, the lines that are whole: iteration -> value."""
    lines = path.read_text().rpartition("\n")[0].splitlines()
    return {int(step): float(value) for step, value in (line.split(",") for line in lines)}


def _outcome(
    task: str, row: Any, curve: Curve | None, timing: Timing, problems: list[str]
) -> Outcome:
    if not isinstance(row, dict):
        problems.append(f"tasks.{task}: expected an object, got {row!r:.80}")
        row = {}
    means, counts = {}, {}
    for measure in MEASURES:
        try:
            if measure in row:
                means[measure] = _number(row[measure]["mean"])
        except _MALFORMED as error:
            problems.append(f"tasks.{task}.{measure}: {_reason(error)}")
    for key in ("frames", "teacher_frames"):
        try:
            if key in row:
                counts[key] = _field(row, key, int)
        except ValueError as error:
            problems.append(f"tasks.{task}.{error}")
    if curve is not None:
        curve = curve[0], curve[1].mean(1)
    own, teachers = counts.get("frames"), counts.get("teacher_frames", 0)
    return Outcome(means, own, teachers, curve, timing)


def _field(row: Mapping[str, Any], key: str, kind: type[_T]) -> _T:
    """Return a value of a type: a text must be a name, an integer a count."""
    value = row.get(key)
    if type(value) is not kind:  # a bool is no int here
        raise ValueError(f"{key}: expected {kind.__name__}, got {value!r:.80}")
    if isinstance(value, str) and not (value.strip() and value.isprintable()):
        raise ValueError(f"{key}: {value!r:.80} is no name")
    if isinstance(value, int) and not 0 <= value <= LIMIT:
        raise ValueError(f"{key}: expected 0 to {LIMIT}")
    return value


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
