"""Runs of a task set side by side: methods, levels, scores and curves as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from math import isnan
from typing import Any

import numpy as np

from benchmarl_mkt.reporting.labels import Labels
from benchmarl_mkt.reporting.runs import WIN_RATE, Curve, Outcome, Run, Timing
from benchmarl_mkt.statistics import normalised_score

REFERENCE = "mkt"


@dataclass(frozen=True, eq=False)  # a key of dictionaries
class Method:
    """All runs of one method: seed -> task -> outcome; single-task runs of a seed are one row."""

    key: str
    name: str
    note: str
    outcomes: Mapping[int, Mapping[str, Outcome]]
    unfinished: bool  # no run of it has finished: its curves are those of unfinished runs
    max_frames: int
    averaged: bool  # whether the averaged weights of a run of it could be its best

    @property
    def label(self) -> str:
        """Its name, with a word on its state."""
        return f"{self.name} (unfinished)" if self.unfinished else self.name

    def means(self, measure: str, task: str) -> dict[int, float]:
        """Seed -> mean, of the seeds that have ``measure`` on ``task``."""
        rows = {seed: tasks[task].means for seed, tasks in self.outcomes.items() if task in tasks}
        return {seed: means[measure] for seed, means in rows.items() if measure in means}

    def values(self, measure: str, task: str) -> np.ndarray:
        """Means of the seeds that have ``measure`` on ``task`` [seeds]."""
        return np.array(list(self.means(measure, task).values()))

    def curves(self, task: str) -> dict[int, Curve]:
        """Seed -> curve, of the seeds that have one of ``task``."""
        rows = {seed: tasks[task].curve for seed, tasks in self.outcomes.items() if task in tasks}
        return {seed: curve for seed, curve in rows.items() if curve is not None}

    def has(self, measure: str, tasks: Iterable[str]) -> bool:
        """Whether it has ``measure`` on any of the tasks."""
        return any(len(self.values(measure, task)) for task in tasks)

    def frames(self, which: str, task: str | None = None) -> float:
        """Mean ``frames`` or ``teacher_frames`` of ``task``, by default of all tasks.

        It is nan if no run has finished.
        """
        every = [pair for tasks in self.outcomes.values() for pair in tasks.items()]
        rows = [outcome for name, outcome in every if task in (None, name)]
        counts = [getattr(row, which) for row in rows if row.frames is not None]
        return float(np.mean(counts)) if counts else float("nan")

    def timings(self, tasks: Iterable[str]) -> list[list[Timing]]:
        """Timings of the runs of each seed that has curves of all ``tasks`` [seeds, runs]."""
        rows = _complete([self.curves(task) for task in tasks])
        return [
            list(dict.fromkeys(self.outcomes[seed][task].timing for task in tasks)) for seed in rows
        ]

    def seconds(self, tasks: Iterable[str], frames: np.ndarray) -> np.ndarray | None:
        """Seconds of training until ``frames`` [n] of each of the ``tasks``, mean over the seeds.

        Tasks that were trained in runs of their own are taken one after another. None if a run does
        not know its time.
        """
        clocks = [[timing.clock for timing in runs] for runs in self.timings(tasks)]
        if not clocks or any(clock is None for runs in clocks for clock in runs):
            return None
        unknown = {"left": float("nan"), "right": float("nan")}
        at = [[np.interp(frames, *clock, **unknown) for clock in runs if clock] for runs in clocks]
        return np.mean([np.sum(runs, axis=0) for runs in at], axis=0)


@dataclass(frozen=True)
class Comparison:
    """The methods that were run on one task set."""

    set: str
    tasks: tuple[str, ...]
    methods: tuple[Method, ...]  # in the order of the rows; the first one is the reference
    # ``random`` and ``teacher`` (the reference's) -> task -> mean returns [seeds]; with
    # ``_win_rate`` behind them -> tasks that know victories -> mean rates [seeds].
    levels: Mapping[str, Mapping[str, np.ndarray]]

    @cached_property
    def random(self) -> dict[str, float]:
        """Task -> return of uniform random play, mean over the seeds."""
        return {task: float(values.mean()) for task, values in self.levels["random"].items()}

    @cached_property
    def teacher(self) -> dict[str, float]:
        """Task -> return of the reference's teachers, mean over the seeds."""
        return {task: float(values.mean()) for task, values in self.levels["teacher"].items()}

    @cached_property
    def scored(self) -> tuple[str, ...]:
        """Tasks with scores: both levels are known and the teachers are better than chance."""
        return tuple(task for task in self.tasks if not isnan(self.score(task, 0.0)))

    def only(self, keys: Iterable[str]) -> Comparison:
        """The reference and the methods ``keys`` alone, measured by the same levels."""
        keys = {self.methods[0].key, *keys}
        return replace(self, methods=tuple(m for m in self.methods if m.key in keys))

    def score(self, task: str, value: Any) -> Any:
        """Normalise returns of ``task``, an array or a number: 0 random play, 1 the teachers."""
        random, teacher = self.random.get(task), self.teacher.get(task)
        if random is None or teacher is None:
            return value * float("nan")
        return normalised_score(value, random, teacher)

    def scores(self, method: Method, measure: str) -> list[np.ndarray] | None:
        """Scores of every scored task [seeds], or None if the method lacks one of the tasks."""
        scores = [self.score(task, method.values(measure, task)) for task in self.scored]
        return scores if scores and all(map(len, scores)) else None

    def mean_scores(self, method: Method, measure: str) -> np.ndarray:
        """Means over the tasks of the seeds that have all of them [seeds]."""
        return np.array([scores.mean() for scores in self._scores(method, measure).values()])

    def leads(self, method: Method, measure: str, over: str | None = None) -> np.ndarray:
        """By how much the reference's scores are above the method's [seeds, scored tasks].

        In the seeds in which both have all of these tasks. ``over`` is the measure of the method,
        which may be the reference itself, if it is not the same.
        """
        own = self._scores(self.methods[0], measure)
        other = self._scores(method, over or measure)
        return np.array([scores - other[seed] for seed, scores in own.items() if seed in other])

    def curve(self, method: Method, task: str) -> Curve | None:
        """Frames [n] and returns [seeds, n] of the evaluations that all seeds share."""
        return _common(list(method.curves(task).values()))

    def score_curves(self, method: Method) -> Curve | None:
        """Frames [n] and scores [seeds, tasks, n] of the evaluations that seeds and tasks share."""
        rows = _complete([method.curves(task) for task in self.scored])
        shared = _common([curve for row in rows.values() for curve in row])
        if shared is None:
            return None
        frames, returns = shared
        returns = returns.reshape(len(rows), len(self.scored), len(frames))
        scores = [self.score(task, returns[:, i]) for i, task in enumerate(self.scored)]
        return frames, np.stack(scores, axis=1)

    def _scores(self, method: Method, measure: str) -> dict[int, np.ndarray]:
        rows = _complete([method.means(measure, task) for task in self.scored])
        return {
            seed: np.array(list(map(self.score, self.scored, row))) for seed, row in rows.items()
        }


def compare(runs: Iterable[Run], labels: Labels) -> tuple[list[Comparison], list[str]]:
    """Arrange runs: a comparison per task set, and a line on all that is left out or uneven."""
    by_set: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        by_set.setdefault(run.set, {}).setdefault(run.method, []).append(run)
    ranks = {key: rank for rank, key in enumerate(labels.methods or [REFERENCE])}
    remarks: list[str] = []
    comparisons = []
    for set_, by_method in sorted(by_set.items()):
        order = sorted(by_method, key=lambda key: (ranks.get(key, len(ranks)), key))
        methods = [_method(key, by_method[key], labels, remarks) for key in order]
        tasks = dict.fromkeys(
            task for m in methods for outcomes in m.outcomes.values() for task in outcomes
        )
        # Other methods' teachers may be others: only the first method that has any sets the level.
        taught = [m for m in methods if m.has("teacher", tasks)][:1]
        levels = {
            player + measure: _levels(having, player + measure, tasks)
            for player, having in (("random", methods), ("teacher", taught))
            for measure in ("", WIN_RATE)
        }
        comparisons.append(Comparison(set_, tuple(tasks), tuple(methods), levels))
    return comparisons, remarks


def _method(key: str, runs: Sequence[Run], labels: Labels, remarks: list[str]) -> Method:
    finished = [run for run in runs if run.finished]
    candidates: dict[tuple[int, str], list[Run]] = {}
    for run in sorted(finished or runs, key=lambda run: (run.seed, run.where)):
        for task in run.tasks:
            candidates.setdefault((run.seed, task), []).append(run)
    outcomes: dict[int, dict[str, Outcome]] = {}
    counting: list[Run] = []
    dropped: dict[str, list[str]] = {}
    for (seed, task), rivals in candidates.items():
        run = max(rivals, key=lambda run: run.frames)  # the first of equals
        outcomes.setdefault(seed, {})[task] = run.tasks[task]
        counting.append(run)
        for other in rivals:
            if other is not run:
                counts, not_ = (f"{r.where} ({r.frames:,} frames)" for r in (run, other))
                line = f"{key}, seed {seed}: {counts} counts, not {not_}; tasks: "
                dropped.setdefault(line, []).append(task)
    remarks += [line + ", ".join(tasks) for line, tasks in dropped.items()]
    budgets = sorted({run.max_frames for run in counting or runs[:1]})
    if len(budgets) > 1:
        planned = ", ".join(f"{budget:,}" for budget in budgets)
        remarks.append(f"{key} on {runs[0].set}: runs of different budgets ({planned} frames)")
    name, note = labels.methods.get(key, key), labels.notes.get(key, "")
    averaged = any(run.averaged for run in counting)
    return Method(key, name, note, outcomes, not finished, budgets[-1], averaged)


def _levels(methods: Sequence[Method], who: str, tasks: Iterable[str]) -> dict[str, np.ndarray]:
    # Methods of one seed share these levels up to the teachers: a seed counts once.
    levels = {}
    for task in tasks:
        by_seed: dict[int, list[float]] = {}
        for method in methods:
            for seed, mean in method.means(who, task).items():
                by_seed.setdefault(seed, []).append(mean)
        if by_seed:
            levels[task] = np.array([np.mean(by_seed[seed]) for seed in sorted(by_seed)])
    return levels


def _complete(rows: Sequence[Mapping[int, Any]]) -> dict[int, list[Any]]:
    """Seed -> what it has in each of the rows, of the seeds that are in all of them."""
    seeds = [seed for seed in rows[0] if all(seed in row for row in rows)] if rows else []
    return {seed: [row[seed] for row in rows] for seed in seeds}


def _common(curves: Sequence[Curve]) -> Curve | None:
    if not curves:
        return None
    shared = reduce(np.intersect1d, (frames for frames, _ in curves))
    if not len(shared):
        return None
    rows = [returns[np.searchsorted(frames, shared)] for frames, returns in curves]
    return shared, np.stack(rows)
