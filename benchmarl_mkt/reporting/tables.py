"""Tables of results: of one run, and of a report on many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table as RichTable

from benchmarl_mkt.reporting.comparison import Comparison, Method
from benchmarl_mkt.reporting.formats import Cell, Reach, Table, cell_text
from benchmarl_mkt.reporting.labels import Labels
from benchmarl_mkt.reporting.runs import PLAYERS, WIN_RATE
from benchmarl_mkt.statistics import (
    REPLICATIONS,
    Estimate,
    Interval,
    first_reached,
    held_from,
    interquartile_mean,
    mean_interval,
    optimality_gap,
    probability_of_improvement,
    stratified_bootstrap,
)

if TYPE_CHECKING:  # reports need no torch
    from benchmarl_mkt.teams.evaluation import Score

LEVELS = (0.95, 1.0)  # parts of the teachers' level whose reaching is reported
_LEVELS = {"random": "uniform random", "teacher": "teachers"}
_SCORE = "Score: 0 uniform random play, 1 the teachers, by their mean returns over the seeds."
_REACH = (
    "Fraction of training at which the mean of the seeds first reaches the level / from which "
    "every evaluation holds it (seeds that are at the level in their last evaluation)."
)
_BOLD = "Bold: the highest mean."


def comparison_table(summary: Mapping[str, Any]) -> RichTable:
    """Build the table of one run: task by task random, teacher, student, score and budget.

    Args:
        summary: content of a run's ``summary.json``.
    """
    table = RichTable(title=f"{summary['method']} on {summary['set']}, seed {summary['seed']}")
    table.add_column("task", no_wrap=True)
    for column in (*PLAYERS, "score", "winner", "frames"):
        table.add_column(column, justify="right", no_wrap=True)
    rows = summary["tasks"]
    for task, row in rows.items():
        taught = "teacher" in row
        table.add_row(
            task,
            *("\n".join(map(cell_text, _intervals(row, who))) or "-" for who in PLAYERS),
            f"{row['score']:.2f}" if taught and row["score"] is not None else "-",
            "\n".join(map(winner, _intervals(row, "lead"))) or "-",
            f"{row['teacher_frames']:,} + {row['frames']:,}" if taught else f"{row['frames']:,}",
        )
    best = summary["absolute_episodes"]
    table.caption = (
        f"Mean return and 95% interval over the same {summary['final_episodes']} fresh episodes, "
        "greedy; best: "
        + (f"the run's best checkpoint on {best} others. " if best else "none, no evaluations. ")
        + "Below: the rate of battles won. " * any("student_win_rate" in r for r in rows.values())
        + "Score: 0 uniform random, 1 the teacher. Winner: by the episodes' differences, 95%, else "
        "tie. Frames: the teacher's + the student's."
    )
    return table


def _intervals(row: Mapping[str, Any], name: str) -> list[Interval]:
    """What a summary says of ``name`` on one task: of the return and, if known, of the wins."""
    return [Interval(**row[name + kind]) for kind in ("", WIN_RATE) if name + kind in row]


def score_text(score: Score) -> str:
    """Format a mean return and, where victories are known, their rate, with their intervals."""
    text = cell_text(score.returns)
    return text if score.won is None else f"{text}, won {cell_text(score.won)}"


def winner(lead: Interval) -> str:
    """Say who won, by the interval of the student's lead over the teacher in each episode."""
    if lead.low > 0:
        return "student"
    return "teacher" if lead.high < 0 else "tie"


def report_tables(comparison: Comparison, labels: Labels) -> list[Table]:
    """Build the tables of a report in their order; those without any number are left out."""
    tables = [
        _measure(comparison, labels, "best", "returns", "Return of the best checkpoint"),
        _measure(comparison, labels, "student", "final", "Return of the final policy"),
        _measure(comparison, labels, "best_win_rate", "win_rate", "Win rate, best checkpoint"),
        _measure(comparison, labels, "student_win_rate", "final_win_rate", "Win rate at the end"),
        _scores(comparison, labels),
        _aggregate(comparison),
        _leads(comparison),
        _budget(comparison),
        _teacher_level(comparison, labels),
    ]
    return [table for table in tables if table is not None]


def over_seeds(values: np.ndarray, measure: str = "") -> Interval | None:
    """Mean of the seeds' values [n] with Student's t interval; without bounds if n is 1.

    The interval of a win rate (by the ``measure``'s name) ends at 0 and 1.
    """
    if not len(values):
        return None
    mean, low, high = mean_interval(values)
    if len(values) < 2:
        low = high = float("nan")
    elif measure.endswith(WIN_RATE):
        low, high = max(low, 0.0), min(high, 1.0)
    return Interval(mean, low, high)


def reached(comparison: Comparison, method: Method, level: float) -> dict[str, Reach | None]:
    """Say when a method reaches ``level``: by task, and at ``""`` the mean over the tasks."""
    found: dict[str, Reach | None] = dict.fromkeys([*comparison.scored, ""])
    for task in comparison.scored:
        if (curve := comparison.curve(method, task)) is not None:
            frames, returns = curve
            found[task] = reach(frames / method.max_frames, comparison.score(task, returns), level)
    if (curves := comparison.score_curves(method)) is not None:
        frames, scores = curves
        found[""] = reach(frames / method.max_frames, scores.mean(1), level)
    return found


def reach(at: np.ndarray, scores: np.ndarray, level: float) -> Reach:
    """Say when scores [seeds, n] at fractions of training [n] reach ``level`` and hold it."""
    mean = scores.mean(0)
    indices = (f(mean, level) for f in (first_reached, held_from))
    first, held = (None if index is None else float(at[index]) for index in indices)
    return Reach(first, held, int((scores[:, -1] >= level).sum()), len(scores))


def improvement(comparison: Comparison, method: Method, measure: str = "best") -> Estimate | None:
    """Probability that ``method`` beats the reference; None of itself or without scores."""
    reference = comparison.methods[0]
    own, others = (comparison.scores(m, measure) for m in (method, reference))
    if method is reference or own is None or others is None:
        return None
    return probability_of_improvement(own, others)


def aggregate(
    comparison: Comparison, method: Method, statistic: Callable, measure: str = "best"
) -> Estimate | None:
    """Bootstrap a statistic of the method's scores; None if it lacks one of the tasks."""
    scores = comparison.scores(method, measure)
    return None if scores is None else stratified_bootstrap(scores, statistic)


def _measure(
    comparison: Comparison, labels: Labels, measure: str, name: str, title: str
) -> Table | None:
    tasks = comparison.tasks
    methods = [m for m in comparison.methods if any(_counts(m, measure, tasks))]
    if not methods:
        return None
    kind = WIN_RATE if measure.endswith(WIN_RATE) else ""
    levels = [who for who in _LEVELS if comparison.levels[who + kind]]
    header, bold = ["method"], set()
    columns: list[list[Cell]] = []
    for task in tasks:
        cells = [over_seeds(method.values(measure, task), measure) for method in methods]
        bold |= {(len(levels) + row, len(header)) for row in _leader(cells)}
        header.append(labels.tasks.get(task, task))
        above = [comparison.levels[who + kind].get(task, np.empty(0)) for who in levels]
        columns.append([*(over_seeds(values, kind) for values in above), *cells])
        published = labels.published.get(task, {}) if measure == "best" else {}
        if published:
            header.append(f"{header[-1]}, paper")
            keys = (*levels, *(method.key for method in methods))
            columns.append([_float(published.get(key)) for key in keys])
    counts = [
        *(_range(len(seeds) for seeds in comparison.levels[who + kind].values()) for who in levels),
        *(_range(_counts(method, measure, tasks)) for method in methods),
    ]
    names = [*(_LEVELS[who] for who in levels), *(method.label for method in methods)]
    notes = ["Mean ± 95 % t interval over the seeds. " + _BOLD]
    notes += _averaged(methods) if measure.startswith("best") else []
    if labels.source and any(name.endswith(", paper") for name in header):
        notes.append(f"Paper: {labels.source}")
    return _table(
        *(comparison, name, title, [*header, "seeds"]),
        [list(row) for row in zip(names, *columns, counts)],
        *(notes, bold, [""] * len(levels) + [method.note for method in methods]),
    )


def _scores(comparison: Comparison, labels: Labels) -> Table | None:
    methods = [m for m in comparison.methods if any(_counts(m, "best", comparison.scored))]
    if not methods:
        return None
    header = ["method", *(labels.tasks.get(task, task) for task in comparison.scored)]
    columns = [
        [over_seeds(comparison.score(task, m.values("best", task))) for m in methods]
        for task in comparison.scored
    ]
    columns.append([over_seeds(comparison.mean_scores(m, "best")) for m in methods])
    bold = {(row, i + 1) for i, cells in enumerate(columns) for row in _leader(cells)}
    return _table(
        *(comparison, "scores", "Score of the best checkpoint", [*header, "mean of tasks"]),
        [list(row) for row in zip([m.label for m in methods], *columns)],
        [f"{_SCORE} Mean ± 95 % t interval over the seeds. {_BOLD}", *_averaged(methods)],
        bold,
    )


def _aggregate(comparison: Comparison) -> Table | None:
    rows = [
        [
            method.label,
            aggregate(comparison, method, interquartile_mean),
            aggregate(comparison, method, interquartile_mean, "student"),
            aggregate(comparison, method, optimality_gap),
            improvement(comparison, method),
            _range(_counts(method, "best", comparison.scored)),
        ]
        for method in comparison.methods
        if comparison.scores(method, "best") is not None
    ]
    if not rows:
        return None
    reference = comparison.methods[0].name
    return _table(
        *(comparison, "aggregate", "Scores over all tasks"),
        ["method", "IQM", "IQM, final policy", "optimality gap", f"P(> {reference})", "seeds"],
        rows,
        [
            f"{_SCORE} IQM: mean of the middle half of all runs and tasks. Optimality gap: mean "
            "shortfall below 1. P: probability that a run beats one of "
            f"{reference} on the same task. [95 % stratified bootstrap intervals, {REPLICATIONS:,} "
            "samples]; they are too narrow with few seeds and take the tasks of one run as "
            "independent, as rliable does. Best checkpoint where not said otherwise.",
            *_averaged(comparison.methods),
        ],
    )


def _leads(comparison: Comparison) -> Table | None:
    reference = comparison.methods[0]
    rows: list[list[Cell]] = []
    if len(final := comparison.leads(reference, "student", over="teacher")):
        rows.append([_LEVELS["teacher"], *_lead(final), None, None, len(final)])
    for method in comparison.methods[1:]:
        final, best = (comparison.leads(method, measure) for measure in ("student", "best"))
        if len(final):
            rows.append([method.label, *_lead(final), *_lead(best), len(final)])
    if not rows:
        return None
    header = ["final policy", "pairs ahead", "best checkpoint", "pairs ahead of best"]
    return _table(
        *(comparison, "leads", f"By how much {reference.name} is ahead in the same seed"),
        ["than", *header, "seeds"],
        rows,
        [
            "Mean difference of the scores over the tasks, in hundredths, ± 95 % t interval over "
            "the seeds; pairs of seed and task in which it is ahead. Final policies and teachers "
            "have played the same episodes."
        ],
    )


def _lead(leads: np.ndarray) -> tuple[Interval | None, str | None]:
    """Mean lead of [seeds, tasks] with its interval over the seeds, and how often there is one."""
    if not len(leads):
        return None, None
    return over_seeds(100 * leads.mean(1)), f"{int((leads > 0).sum())} of {leads.size}"


def _budget(comparison: Comparison) -> Table | None:
    rows: list[list[Cell]] = []
    for method in comparison.methods:
        own, teachers = (method.frames(which) for which in ("frames", "teacher_frames"))
        if isnan(own):
            continue
        levels = [reached(comparison, method, level)[""] for level in LEVELS]
        held = levels[0].held if levels[0] else None
        at = None if held is None else round(held * method.max_frames)
        counts = (round(own), round(teachers), round(own + teachers))
        total = None if at is None else at + round(teachers)
        rows.append([method.label, *counts, *levels, at, total])
    low, high = LEVELS
    header = ["own", "teachers'", "total", f"≥ {low:g}", f"≥ {high:g}", "own to it", "total to it"]
    return (
        None
        if not rows
        else _table(
            *(comparison, "budget", "Frames of each task, and to the teachers' level"),
            ["method", *header],
            rows,
            [
                f"≥ {low:g}, ≥ {high:g}: of the mean score over the tasks. {_REACH} To it: frames "
                f"until ≥ {low:g} is held."
            ],
        )
    )


def _teacher_level(comparison: Comparison, labels: Labels) -> Table | None:
    tasks = comparison.scored
    rows: list[list[Cell]] = []
    for method in comparison.methods:
        cells = [reached(comparison, method, level)[task] for level in LEVELS for task in tasks]
        if any(cells):
            rows.append([method.label, *cells])
    header = [f"{labels.tasks.get(task, task)} ≥ {level:g}" for level in LEVELS for task in tasks]
    return (
        None
        if not rows
        else _table(
            *(comparison, "teacher_level", "When each task is at its teacher's level"),
            ["method", *header],
            rows,
            [_REACH],
        )
    )


def _table(
    comparison: Comparison,
    name: str,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    notes: Sequence[str],
    bold: Iterable[tuple[int, int]] = (),
    remarks: Sequence[str] = (),
) -> Table:
    """Add what all tables have: the set, and remarks on methods, if any, as last column."""
    if any(remarks):
        header = [*header, "note"]
        rows = [[*row, remark] for row, remark in zip(rows, remarks)]
    return Table(name, title, comparison.set, header, rows, notes, frozenset(bold))


def _averaged(methods: Iterable[Method]) -> list[str]:
    """Say whose best checkpoint is of more candidates than the others'."""
    names = ", ".join(method.label for method in methods if method.averaged)
    return [
        f"Best of twice as many candidates: {names} (the averaged target network's weights were "
        "evaluated as well; the other methods' were not)."
    ] * bool(names)


def _counts(method: Method, measure: str, tasks: Iterable[str]) -> list[int]:
    return [len(method.values(measure, task)) for task in tasks]


def _range(counts: Iterable[int]) -> int | str:
    """Say how many: ``3``, or ``2-3`` where the tasks differ."""
    low, high = min(counts := list(counts), default=0), max(counts, default=0)
    return low if low == high else f"{low}-{high}"


def _leader(cells: Sequence[Interval | None]) -> list[int]:
    """Return the row of the highest mean, if there is something to compare."""
    known = [i for i, cell in enumerate(cells) if cell is not None]
    return [max(known, key=lambda i: cells[i].mean)] if len(known) > 1 else []


def _float(number: float | None) -> float | None:
    return None if number is None else float(number)
