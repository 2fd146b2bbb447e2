"""Tables of results: of one run, and of a report on many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table as RichTable

from benchmarl_mkt import statistics
from benchmarl_mkt.reporting.comparison import Comparison, Method
from benchmarl_mkt.reporting.formats import Cell, Reach, Table, cell_text
from benchmarl_mkt.reporting.labels import Labels
from benchmarl_mkt.reporting.runs import PLAYERS, WIN_RATE
from benchmarl_mkt.statistics import Estimate, Interval

if TYPE_CHECKING:  # reports need no torch
    from benchmarl_mkt.teams.evaluation import Score

LEVELS = (0.95, 1.0)  # parts of the teachers' level whose reaching is reported
_LEVELS = {"random": "uniform random", "teacher": "teachers"}
_SCORE = "Score: 0 uniform random play, 1 the teachers, by their mean returns over the seeds."
_REACH = (
    "Fraction of training at which the mean of the seeds first reaches the level / from which "
    "every evaluation holds it (seeds that are at the level in their last evaluation)."
)
_MEAN = "Mean ± 95 % t interval over the seeds. Bold: the highest mean."


def comparison_table(summary: Mapping[str, Any]) -> RichTable:
    """Build the table of one run from its ``summary.json``, task by task."""
    rows = summary["tasks"]
    table = RichTable(title=f"{summary['method']} on {summary['set']}, seed {summary['seed']}")
    table.add_column("task", no_wrap=True)
    for column in (*PLAYERS, "score", "winner", "frames"):
        table.add_column(column, justify="right", no_wrap=True)
    for task, row in rows.items():
        score, frames = row.get("score"), f"{row['frames']:,}"
        table.add_row(
            task,
            *("\n".join(map(cell_text, _intervals(row, who))) or "-" for who in PLAYERS),
            "-" if score is None else f"{score:.2f}",
            "\n".join(map(winner, _intervals(row, "lead"))) or "-",
            f"{row['teacher_frames']:,} + {frames}" if "teacher" in row else frames,
        )
    others, won = summary["absolute_episodes"], ""
    best = f"the run's best checkpoint on {others} others" if others else "none, no evaluations"
    if any("student_win_rate" in row for row in rows.values()):
        won = "Below: the rate of battles won. "
    table.caption = (
        f"Mean return and 95% interval over the same {summary['final_episodes']} fresh episodes, "
        f"greedy; best: {best}. {won}Score: 0 uniform random, 1 the teacher. Winner: by the "
        "episodes' differences, 95%, else tie. Frames: the teacher's + the student's."
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
    return [table for table in tables if table.rows]


def over_seeds(values: np.ndarray, measure: str = "") -> Interval | None:
    """Mean of the seeds' values [n] with Student's t interval; without bounds if n is 1.

    The interval of a win rate (by the ``measure``'s name) ends at 0 and 1.
    """
    if not len(values):
        return None
    mean, low, high = statistics.mean_interval(values)
    if len(values) < 2:
        low = high = float("nan")
    elif measure.endswith(WIN_RATE):
        low, high = max(low, 0.0), min(high, 1.0)
    return Interval(mean, low, high)


def reached(comparison: Comparison, method: Method, level: float) -> dict[str, Reach | None]:
    """Say when a method reaches ``level``: by task, and at ``""`` the mean over the tasks."""
    curves = {}
    for task in comparison.scored:
        if (curve := comparison.curve(method, task)) is not None:
            curves[task] = curve[0], comparison.score(task, curve[1])
    if (curve := comparison.score_curves(method)) is not None:
        curves[""] = curve[0], curve[1].mean(1)
    reaches: dict[str, Reach | None] = dict.fromkeys([*comparison.scored, ""])
    for name, (frames, scores) in curves.items():
        at, mean = frames / method.max_frames, scores.mean(0)
        indices = (f(mean, level) for f in (statistics.first_reached, statistics.held_from))
        first, held = (None if index is None else float(at[index]) for index in indices)
        there = int((scores[:, -1] >= level).sum())
        reaches[name] = Reach(first, held, there, len(scores))
    return reaches


def estimates(
    comparison: Comparison, method: Method, measure: str = "best"
) -> dict[str, Estimate | None]:
    """IQM and optimality gap of a method's scores, and how probably they beat the reference's.

    None without scores on every task; the last one also for the reference itself.
    """
    iqm = gap = beats = None
    scores, others = (comparison.scores(m, measure) for m in (method, comparison.methods[0]))
    if scores is not None:
        iqm = statistics.stratified_bootstrap(scores, statistics.interquartile_mean)
        gap = statistics.stratified_bootstrap(scores, statistics.optimality_gap)
        if others is not None and method is not comparison.methods[0]:
            beats = statistics.probability_of_improvement(scores, others)
    return {"iqm": iqm, "optimality_gap": gap, "improvement": beats}


def score_curve(comparison: Comparison, method: Method) -> tuple[np.ndarray, Estimate] | None:
    """Frames [n] and the IQM of the scores of all tasks and seeds at each of them [n]."""
    if (curve := comparison.score_curves(method)) is None:
        return None
    frames, scores = curve
    iqm, draws = statistics.interquartile_mean, statistics.CURVE_REPLICATIONS
    strata = list(scores.swapaxes(0, 1))
    return frames, statistics.stratified_bootstrap(strata, iqm, replications=draws)


def _measure(comparison: Comparison, labels: Labels, measure: str, name: str, title: str) -> Table:
    tasks, kind = comparison.tasks, WIN_RATE if measure.endswith(WIN_RATE) else ""
    published = labels.published if measure == "best" else {}
    methods = [m for m in comparison.methods if m.has(measure, tasks)]
    levels = [who for who in _LEVELS if methods and comparison.levels[who + kind]]
    players = [(_LEVELS[who], who, comparison.levels[who + kind], "") for who in levels]
    for method in methods:
        values: Mapping[str, np.ndarray] = {t: method.values(measure, t) for t in tasks}
        players.append((method.label, method.key, values, method.note))
    rows: list[list[Cell]] = []
    for label, key, values, note in players:
        row: list[Cell] = [label]
        for task in tasks:
            row.append(over_seeds(values.get(task, np.empty(0)), measure))
            if published.get(task):
                number = published[task].get(key)
                row.append(None if number is None else float(number))
        rows.append([*row, _range(map(len, values.values())), note])
    header, notes = ["method"], [_MEAN]
    for task in tasks:
        header.append(labels.tasks.get(task, task))
        if published.get(task):
            header.append(f"{header[-1]}, paper")
    header += ["seeds", "note"]
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    if measure.startswith("best"):
        notes += _averaged(methods)
    if labels.source and any(published.get(task) for task in tasks):
        notes.append(f"Paper: {labels.source}")
    bold = _leaders(rows, len(levels))
    return Table(name, title, comparison.set, header, rows, notes, bold)


def _scores(comparison: Comparison, labels: Labels) -> Table:
    tasks = comparison.scored
    methods = [m for m in comparison.methods if m.has("best", tasks)]
    rows: list[list[Cell]] = []
    for method in methods:
        scores = [comparison.score(task, method.values("best", task)) for task in tasks]
        scores.append(comparison.mean_scores(method, "best"))
        rows.append([method.label, *map(over_seeds, scores)])
    header = ["method", *(labels.tasks.get(task, task) for task in tasks), "mean of tasks"]
    title = "Score of the best checkpoint"
    notes = [f"{_SCORE} {_MEAN}", *_averaged(methods)]
    return Table("scores", title, comparison.set, header, rows, notes, _leaders(rows))


def _aggregate(comparison: Comparison) -> Table:
    reference = comparison.methods[0].name
    rows: list[list[Cell]] = []
    for method in comparison.methods:
        best, final = (estimates(comparison, method, measure) for measure in ("best", "student"))
        seeds = _range(len(method.values("best", task)) for task in comparison.scored)
        if best["iqm"] is not None:
            gap, beats = best["optimality_gap"], best["improvement"]
            rows.append([method.label, best["iqm"], final["iqm"], gap, beats, seeds])
    header = ["method", "IQM", "IQM, final policy", "optimality gap", f"P(> {reference})", "seeds"]
    note = (
        f"{_SCORE} IQM: mean of the middle half of all runs and tasks. Optimality gap: mean "
        f"shortfall below 1. P: probability that a run beats one of {reference} on the same task. "
        f"[95 % stratified bootstrap intervals, {statistics.REPLICATIONS:,} samples]; they are too "
        "narrow with few seeds and take the tasks of one run as independent, as rliable does. "
        "Best checkpoint where not said otherwise."
    )
    notes = [note, *_averaged(comparison.methods)]
    return Table("aggregate", "Scores over all tasks", comparison.set, header, rows, notes)


def _leads(comparison: Comparison) -> Table:
    reference, *others = comparison.methods
    rows: list[list[Cell]] = []
    pairs = [(_LEVELS["teacher"], comparison.leads(reference, "student", "teacher"), np.empty(0))]
    for method in others:
        final, best = (comparison.leads(method, measure) for measure in ("student", "best"))
        pairs.append((method.label, final, best))
    for label, final, best in pairs:
        if len(final):
            rows.append([label, *_lead(final), *_lead(best), len(final)])
    title = f"By how much {reference.name} is ahead in the same seed"
    header = ["than", "final policy", "pairs ahead", "best checkpoint", "pairs ahead of best"]
    note = (
        "Mean difference of the scores over the tasks, in hundredths, ± 95 % t interval over the "
        "seeds; pairs of seed and task in which it is ahead. Final policies and teachers have "
        "played the same episodes."
    )
    return Table("leads", title, comparison.set, [*header, "seeds"], rows, [note])


def _lead(leads: np.ndarray) -> tuple[Interval | None, str | None]:
    """Mean lead of [seeds, tasks] with its interval over the seeds, and how often there is one."""
    if not len(leads):
        return None, None
    return over_seeds(100 * leads.mean(1)), f"{int((leads > 0).sum())} of {leads.size}"


def _budget(comparison: Comparison) -> Table:
    rows: list[list[Cell]] = []
    for method in comparison.methods:
        own, teachers = (method.frames(which) for which in ("frames", "teacher_frames"))
        if isnan(own):
            continue
        levels = [reached(comparison, method, level)[""] for level in LEVELS]
        held = None if levels[0] is None else levels[0].held
        at = None if held is None else round(held * method.max_frames)
        total = None if at is None else at + round(teachers)
        counts = (round(own), round(teachers), round(own + teachers))
        rows.append([method.label, *counts, *levels, at, total])
    low, high = (f"≥ {level:g}" for level in LEVELS)
    title = "Frames of each task, and to the teachers' level"
    header = ["method", "own", "teachers'", "total", low, high, "own to it", "total to it"]
    note = f"{low}, {high}: of the mean score over the tasks. {_REACH} To it: frames until {low} "
    return Table("budget", title, comparison.set, header, rows, [note + "is held."])


def _teacher_level(comparison: Comparison, labels: Labels) -> Table:
    columns = [(task, level) for level in LEVELS for task in comparison.scored]
    rows: list[list[Cell]] = []
    for method in comparison.methods:
        reaches = {level: reached(comparison, method, level) for level in LEVELS}
        cells = [reaches[level][task] for task, level in columns]
        if any(cells):
            rows.append([method.label, *cells])
    title = "When each task is at its teacher's level"
    header = ["method", *(f"{labels.tasks.get(task, task)} ≥ {level:g}" for task, level in columns)]
    return Table("teacher_level", title, comparison.set, header, rows, [_REACH])


def _averaged(methods: Iterable[Method]) -> list[str]:
    """Say whose best checkpoint is of more candidates than the others'."""
    names = ", ".join(method.label for method in methods if method.averaged)
    line = (
        f"Best of twice as many candidates: {names} (the averaged target network's weights were "
        "evaluated as well; the other methods' were not)."
    )
    return [line] if names else []


def _range(counts: Iterable[int]) -> int | str:
    """Say how many: ``3``, or ``2-3`` where the tasks differ."""
    counts = list(counts)
    low, high = min(counts, default=0), max(counts, default=0)
    return low if low == high else f"{low}-{high}"


def _leaders(rows: Sequence[Sequence[Cell]], first: int = 0) -> frozenset[tuple[int, int]]:
    """Of each column of intervals the row, from ``first`` on, of the highest of several means."""
    leaders = set()
    for column, cells in enumerate(zip(*rows)):
        means = {i: c.mean for i, c in enumerate(cells) if i >= first and isinstance(c, Interval)}
        if len(means) > 1:
            leaders.add((max(means, key=lambda row: means[row]), column))
    return frozenset(leaders)
