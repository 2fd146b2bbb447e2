"""Pictures of results."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle, product
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from benchmarl_mkt import statistics
from benchmarl_mkt.reporting.comparison import Comparison, Method
from benchmarl_mkt.reporting.labels import Labels
from benchmarl_mkt.reporting.runs import read_curves
from benchmarl_mkt.reporting.tables import LEVELS, estimates, reached, score_curve


def plot_learning_curves(json_path: Path, summary: Mapping[str, Any], out: Path) -> Path:
    """Draw the learning curves of a run's JSON, with the levels of its ``summary.json``, as PNG."""
    curves = read_curves(json_path)
    figure = Figure(figsize=(4.2 * len(curves), 3.4), layout="constrained")
    axes = figure.subplots(1, len(curves), squeeze=False)[0]
    for axis, (task, (frames, returns)) in zip(axes, curves.items()):
        mean, low, high = np.transpose([statistics.mean_interval(step) for step in returns])
        axis.plot(frames, mean, color="C0", label=summary["method"])
        axis.fill_between(frames, low, high, color="C0", alpha=0.2)
        row = summary["tasks"][task]
        if "teacher" in row:
            axis.axhline(row["teacher"]["mean"], color="C3", linestyle="--", label="teacher")
        axis.axhline(row["random"]["mean"], color="0.6", linestyle=":", label="random")
        axis.set(title=task, xlabel="frames of the run", ylabel="return")
    axes[0].legend(loc="lower right")
    figure.suptitle(f"{summary['method']} on {summary['set']}, seed {summary['seed']}")
    figure.savefig(out, dpi=120)
    return out


def plot_report(comparison: Comparison, labels: Labels, folder: Path) -> list[str]:
    """Draw a report's pictures into ``folder``, each as PNG and PDF; return their stems."""
    drawn = []
    with style.context(["default", _STYLE]):
        for draw in (_curves, _efficiency, _aggregate, _profile):
            figure, name = draw(comparison, labels), draw.__name__.removeprefix("_")
            if figure is not None:
                # Without dates and versions, the same results give the same bytes.
                figure.savefig(folder / f"{name}.png", metadata={"Software": None})
                figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
                drawn.append(name)
    return drawn


def _curves(comparison: Comparison, labels: Labels) -> Figure | None:
    """Returns over frames, a panel per task: mean of the seeds, band from lowest to highest."""
    methods = comparison.methods
    tasks = [t for t in comparison.tasks if any(comparison.curve(m, t) for m in methods)]
    if not tasks:
        return None
    columns = min(3, len(tasks))
    figure, axes = _panels(-(-len(tasks) // columns), columns)
    for i, (axis, task) in enumerate(zip(axes, tasks)):
        shown: list[Any] = []
        for method, look in looks(comparison).items():
            if (curve := comparison.curve(method, task)) is not None:
                frames, returns = curve
                _line(axis, frames, returns.mean(0), returns.min(0), returns.max(0), look)
                shown.append(returns[:, len(frames) // 4 :].ravel())
        for levels, look in ((comparison.random, _RANDOM), (comparison.teacher, _TEACHERS)):
            if task in levels:
                axis.axhline(levels[task], **look)
                shown.append(levels[task])
        axis.set_ylim(window(comparison, task, np.hstack(shown)))
        axis.set(title=labels.tasks.get(task, task), xlabel="frames of the run")
        axis.set_ylabel("" if i % columns else "return")
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    for axis in axes[len(tasks) :]:
        axis.remove()
    return _with_legend(figure)


def _efficiency(comparison: Comparison, labels: Labels) -> Figure | None:
    """IQM of the scores over frames, teachers' frames left out and counted; dots: level held."""
    figure, axes = _panels(1, 2, sharey=True)
    low, high = 0.0, 1.0
    for method, look in looks(comparison).items():
        if (curve := score_curve(comparison, method)) is None:
            continue
        frames, iqm = curve
        high = max(high, np.nanmax([iqm.value, iqm.high]))
        low = min(low, iqm.value[len(frames) // 4 :].min())
        reach = reached(comparison, method, LEVELS[0])[""]
        for axis, before in zip(axes, (0.0, method.frames("teacher_frames"))):
            if isnan(before):
                continue
            _line(axis, frames + before, *iqm, look)
            if reach is not None and reach.held is not None:
                at = reach.held * method.max_frames
                height, front = np.interp(at, frames, iqm.value), 2 + look["zorder"]
                axis.plot(at + before, height, "o", color=look["color"], mec="white", zorder=front)
    if not axes[0].lines:
        return None
    for axis, counted in zip(axes, ("own frames", "own and teachers' frames")):
        axis.axhline(1.0, **_TEACHERS)
        axis.set(xlabel=f"{counted} of each task", ylim=(max(low, -0.5) - 0.08, high + 0.08))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes[0].set_ylabel("score, IQM")
    return _with_legend(figure)


def _aggregate(comparison: Comparison, labels: Labels) -> Figure | None:
    """Estimates over all tasks with their intervals, a row per method."""
    methods = [m for m in comparison.methods if comparison.scores(m, "best") is not None]
    if not methods:
        return None
    lines, rows = looks(comparison), range(len(methods))
    shown = [estimates(comparison, method) for method in methods]
    titles = ("score, IQM", "optimality gap", f"P(> {comparison.methods[0].name})")
    figure = Figure(figsize=(9.6, 0.34 * len(methods) + 1.1), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for axis, name, title, at in zip(axes, shown[0], titles, (1.0, None, 0.5)):
        axis.use_sticky_edges = False  # room beside the bars
        for row, method, estimate in zip(rows, methods, (known[name] for known in shown)):
            if estimate is not None:
                value, low, high = estimate
                color = lines[method]["color"]
                axis.barh(row, high - low, 0.6, low, color=color, alpha=0.35)
                axis.plot([value, value], [row - 0.3, row + 0.3], color=color, linewidth=2.2)
        axis.set(title=title, yticks=rows, yticklabels=[m.label for m in methods])
        axis.set_ylim(len(methods) - 0.4, -0.6)
        axis.grid(axis="y", visible=False)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.tick_params(axis="y", length=0)
        if at is not None:
            axis.axvline(at, color=_TEACHERS["color"], linestyle="--", linewidth=1, zorder=1)
    axes[2].set_xlim(-0.03, 1.03)
    return figure


def _profile(comparison: Comparison, labels: Labels) -> Figure | None:
    """Fraction of runs and tasks with a score above a threshold, over the threshold."""
    scores = {method: comparison.scores(method, "best") or [] for method in comparison.methods}
    pooled = [stratum for strata in scores.values() for stratum in strata]
    if not pooled:
        return None
    low, high = np.min(np.hstack(pooled)), np.max(np.hstack(pooled))
    thresholds = np.linspace(max(min(1.0, low), -0.5) - 0.1, max(1.0, high) + 0.1, 401)
    figure, (axis,) = _panels(1, 1)
    for method, look in looks(comparison).items():
        if scores[method]:
            profile = statistics.performance_profile(scores[method], thresholds)
            _line(axis, thresholds, *profile, look)
    axis.axvline(1.0, **_TEACHERS)
    axis.set(xlabel="score τ", ylabel="fraction of runs above τ", ylim=(-0.03, 1.03))
    axis.margins(x=0)
    return _with_legend(figure)


_RANDOM = {"color": "0.55", "linestyle": ":", "linewidth": 1.3, "label": "uniform random"}
_TEACHERS = {"color": "0.15", "linestyle": "--", "linewidth": 1.1, "label": "teachers"}
# Okabe and Ito's colours, distinct for colour-blind readers; the blue is the reference's.
_REFERENCE = "#0072B2"
_COLORS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = ("-", (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (1.2, 1.2)))
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.92",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.dpi": 160,
    "pdf.fonttype": 42,  # what publishers ask for
    "text.parse_math": False,  # names of methods and tasks are no formulas
}


def window(comparison: Comparison, task: str, values: np.ndarray) -> tuple[float, float]:
    """Return the returns of ``task`` to show, lowest and highest, of curves with ``values``.

    What lies further below random play than half the way to the teachers is cut off: untrained and
    diverged teams would else squeeze everything.
    """
    low, high = values.min(), values.max()
    if task in comparison.scored:
        random, teacher = comparison.random[task], comparison.teacher[task]
        low = max(low, random - 0.5 * (teacher - random))
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def looks(comparison: Comparison) -> dict[Method, dict[str, Any]]:
    """Return matplotlib's options for the line of each method, its label among them."""
    first, *others = comparison.methods
    lines = {first: {"color": _REFERENCE, "linewidth": 2.2, "zorder": 3, "label": first.label}}
    for method, (dashes, color) in zip(others, cycle(product(_DASHES, _COLORS))):
        look = {"color": color, "linestyle": dashes, "linewidth": 1.4, "zorder": 2}
        lines[method] = {**look, "label": method.label}
    return lines


def _panels(rows: int, columns: int, **options: Any) -> tuple[Figure, np.ndarray]:
    size = (max(3.6 * columns, 5.4), 2.8 * rows)
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options).ravel()


def _line(axis: Axes, x, y, low, high, look: Mapping[str, Any]) -> None:
    axis.plot(x, y, **look)
    axis.fill_between(x, low, high, color=look["color"], alpha=0.13, linewidth=0, zorder=1)


def _with_legend(figure: Figure) -> Figure:
    entries: dict[str, Any] = {}
    for axis in figure.axes:
        entries.update(zip(*reversed(axis.get_legend_handles_labels())))
    width = 0.5 + 0.075 * max(map(len, entries))  # of an entry, in inches
    columns = int(np.clip(figure.get_figwidth() // width, 1, min(5, len(entries))))
    figure.set_figheight(figure.get_figheight() + 0.25 + 0.19 * -(-len(entries) // columns))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns)
    return figure
