"""Pictures of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from benchmarl_mkt.reporting.comparison import Comparison
from benchmarl_mkt.reporting.labels import Labels
from benchmarl_mkt.reporting.runs import read_curves
from benchmarl_mkt.reporting.tables import LEVELS, aggregate, improvement, reached
from benchmarl_mkt.statistics import (
    CURVE_REPLICATIONS,
    Estimate,
    interquartile_mean,
    mean_interval,
    optimality_gap,
    performance_profile,
    stratified_bootstrap,
)


def plot_learning_curves(json_path: Path, summary: Mapping[str, Any], out: Path) -> Path:
    """Draw a run's learning curves with each teacher's level as a line; write a PNG.

    Args:
        json_path: the run's JSON.
        summary: content of its ``summary.json``.
        out: the file to write.
    """
    curves = read_curves(json_path)
    figure = Figure(figsize=(4.2 * len(curves), 3.4), layout="constrained")
    axes = figure.subplots(1, len(curves), squeeze=False)
    for axis, (task, (frames, returns)) in zip(axes[0], curves.items()):
        intervals = [mean_interval(step) for step in returns]
        axis.plot(frames, [i.mean for i in intervals], color="C0", label=summary["method"])
        axis.fill_between(
            frames, [i.low for i in intervals], [i.high for i in intervals], color="C0", alpha=0.2
        )
        row = summary["tasks"][task]
        if "teacher" in row:
            axis.axhline(row["teacher"]["mean"], color="C3", linestyle="--", label="teacher")
        axis.axhline(row["random"]["mean"], color="0.6", linestyle=":", label="random")
        axis.set(title=task, xlabel="frames of the run", ylabel="return")
    axes[0][0].legend(loc="lower right")
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
    curves = {
        task: {
            method.key: curve
            for method in comparison.methods
            if (curve := comparison.curve(method, task)) is not None
        }
        for task in comparison.tasks
    }
    curves = {task: found for task, found in curves.items() if found}
    if not curves:
        return None
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure, axes = _panels(rows, columns)
    styles = _styles(comparison)
    for i, (axis, (task, found)) in enumerate(zip(axes, curves.items())):
        for key, (frames, returns) in found.items():
            _line(axis, frames, returns.mean(0), returns.min(0), returns.max(0), styles[key])
        levels = [comparison.random.get(task), comparison.teacher.get(task)]
        for level, look in zip(levels, (_RANDOM, _TEACHERS)):
            if level is not None:
                axis.axhline(level, **look)
        late = [returns[:, len(frames) // 4 :] for frames, returns in found.values()]
        axis.set_ylim(*_limits(late, levels))
        axis.set(title=labels.tasks.get(task, task), xlabel="frames of the run")
        axis.set_ylabel("" if i % columns else "return")
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    for axis in axes[len(curves) :]:
        axis.remove()
    return _with_legend(figure)


def _efficiency(comparison: Comparison, labels: Labels) -> Figure | None:
    """IQM of the scores over frames, teachers' frames left out and counted; dots: level held."""
    curves = {m: comparison.score_curves(m) for m in comparison.methods}
    if not any(curves.values()):
        return None
    figure, axes = _panels(1, 2, sharey=True)
    styles, low, high = _styles(comparison), 0.0, 1.0
    for method, curve in curves.items():
        if curve is None:
            continue
        frames, scores = curve
        iqm = stratified_bootstrap(
            list(scores.swapaxes(0, 1)), interquartile_mean, replications=CURVE_REPLICATIONS
        )
        high = max(high, np.nanmax([iqm.value, iqm.high]))
        low = min(low, iqm.value[len(frames) // 4 :].min())
        teachers = method.frames("teacher_frames")
        held = reached(comparison, method, LEVELS[0])[""].held
        for axis, before in zip(axes, (0, teachers)):
            if isnan(before):
                continue
            _line(axis, frames + before, *iqm, styles[method.key])
            if held is not None:
                at = held * method.max_frames
                height = np.interp(at, frames, iqm.value)
                color, front = styles[method.key]["color"], 2 + styles[method.key]["zorder"]
                axis.plot(at + before, height, "o", color=color, mec="white", zorder=front)
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
    reference = comparison.methods[0]
    panels: dict[str, list[Estimate | None]] = {
        "score, IQM": [aggregate(comparison, m, interquartile_mean) for m in methods],
        "optimality gap": [aggregate(comparison, m, optimality_gap) for m in methods],
        f"P(> {reference.name})": [improvement(comparison, m) for m in methods],
    }
    figure = Figure(figsize=(9.6, 0.34 * len(methods) + 1.1), layout="constrained")
    styles, rows = _styles(comparison), range(len(methods))
    for axis, (title, estimates) in zip(figure.subplots(1, 3, sharey=True), panels.items()):
        axis.use_sticky_edges = False  # room beside the bars
        for row, method, estimate in zip(rows, methods, estimates):
            if estimate is not None:
                color = styles[method.key]["color"]
                axis.barh(
                    row, estimate.high - estimate.low, 0.6, estimate.low, color=color, alpha=0.35
                )
                axis.plot([estimate.value] * 2, [row - 0.3, row + 0.3], color=color, linewidth=2.2)
        axis.set(title=title, yticks=rows, yticklabels=[m.label for m in methods])
        axis.set_ylim(len(methods) - 0.4, -0.6)
        axis.grid(axis="y", visible=False)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.tick_params(axis="y", length=0)
    for axis, at in zip(figure.axes, (1.0, None, 0.5)):
        if at is not None:
            axis.axvline(at, color=_TEACHERS["color"], linestyle="--", linewidth=1, zorder=1)
    figure.axes[2].set_xlim(-0.03, 1.03)
    return figure


def _profile(comparison: Comparison, labels: Labels) -> Figure | None:
    """Fraction of runs and tasks with a score above a threshold, over the threshold."""
    scores = {m: comparison.scores(m, "best") for m in comparison.methods}
    scores = {method: strata for method, strata in scores.items() if strata is not None}
    if not scores:
        return None
    pooled = np.concatenate([stratum for strata in scores.values() for stratum in strata])
    low, high = max(min(1.0, pooled.min()), -0.5), max(1.0, pooled.max())
    thresholds = np.linspace(low - 0.1, high + 0.1, 401)
    figure, (axis,) = _panels(1, 1)
    styles = _styles(comparison)
    for method, strata in scores.items():
        _line(axis, thresholds, *performance_profile(strata, thresholds), styles[method.key])
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


def _styles(comparison: Comparison) -> dict[str, dict[str, Any]]:
    reference, *others = comparison.methods
    looks = {
        method.key: {
            "color": _COLORS[i % len(_COLORS)],
            "linestyle": _DASHES[i // len(_COLORS) % len(_DASHES)],
            "linewidth": 1.4,
            "zorder": 2,
            "label": method.label,
        }
        for i, method in enumerate(others)
    }
    first = {"color": _REFERENCE, "linewidth": 2.2, "zorder": 3, "label": reference.label}
    return {reference.key: first, **looks}


def _panels(rows: int, columns: int, **options: Any) -> tuple[Figure, np.ndarray]:
    size = (max(3.6 * columns, 5.4), 2.8 * rows)
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options).ravel()


def _line(axis: Axes, x, y, low, high, look: Mapping[str, Any]) -> None:
    axis.plot(x, y, **look)
    axis.fill_between(x, low, high, color=look["color"], alpha=0.13, linewidth=0, zorder=1)


def _limits(late: Sequence[np.ndarray], levels: Sequence[float | None]) -> tuple[float, float]:
    """Limits that show the levels and the curves after a quarter of training.

    What lies further below random play than half the way to the teachers is cut off: untrained
    and diverged teams would else squeeze everything.
    """
    random, teacher = levels
    values = [
        x for x in (*levels, *(f(r) for r in late for f in (np.min, np.max))) if x is not None
    ]
    low, high = min(values), max(values)
    if random is not None and teacher is not None and teacher > random:
        low = max(low, random - 0.5 * (teacher - random))
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _with_legend(figure: Figure) -> Figure:
    entries: dict[str, Any] = {}
    for axis in figure.axes:
        entries.update(zip(*reversed(axis.get_legend_handles_labels())))
    width = 0.5 + 0.075 * max(map(len, entries))  # of an entry, in inches
    columns = int(np.clip(figure.get_figwidth() // width, 1, min(5, len(entries))))
    figure.set_figheight(figure.get_figheight() + 0.25 + 0.19 * -(-len(entries) // columns))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns)
    return figure
