"""A report as one page that needs no other file and no network: curves and tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from benchmarl_mkt.reporting.comparison import Comparison, Method
from benchmarl_mkt.reporting.formats import Cell, Reach, Table, cell_text, plain
from benchmarl_mkt.reporting.labels import Labels
from benchmarl_mkt.reporting.plots import looks, window
from benchmarl_mkt.reporting.tables import over_seeds, score_curve
from benchmarl_mkt.statistics import Estimate, Interval

Section = tuple[str, Comparison, Sequence[Table]]  # title, what is compared, its tables

_TEMPLATE = Path(__file__).with_name("page.html")
_AXES = {"own": "own frames", "all": "all frames", "time": "wall-clock time"}
_CAPTION = (
    "Greedy evaluations during training. All tasks: interquartile mean of the scores (0 uniform "
    "random play, 1 the teachers) with its 95 % stratified bootstrap interval. A task: mean return "
    "over the seeds with its 95 % t interval. A single seed has no band. Dashed: teachers; dotted: "
    "uniform random play. What lies far below random play, and the ends of wide bands, is cut off. "
    "All frames: with the teachers' frames before the method's own (known of finished runs)."
)
_CLOCK = (
    "Wall-clock time: of training with its evaluations, not of the teachers' training; mean over "
    "the seeds; tasks with runs of their own are taken one after another."
)
_NO_CLOCK = "Wall-clock time: not known; only runs with CSV loggers keep it."


def write_page(
    path: Path, counted: str, remarks: Iterable[str], sections: Sequence[Section], labels: Labels
) -> None:
    """Write the page of a report; without Bokeh remove it, as it would be of other results.

    ``counted`` says how many runs there are.
    """
    try:
        from bokeh.resources import Resources
    except ImportError:
        path.unlink(missing_ok=True)
        return
    library = Resources(mode="inline", components=["bokeh", "bokeh-api"], log_level="warn")
    links = [f'<a href="#part-{i}">{escape(title)}</a>' for i, (title, *_) in enumerate(sections)]
    body = [f"<p>{escape(counted)}</p>", "<ul>", *(f"<li>{escape(r)}</li>" for r in remarks)]
    body += ["</ul>", *([f"<nav>{' '.join(links)}</nav>"] if len(links) > 1 else [])]
    pictures = []
    for i, (title, comparison, tables) in enumerate(sections):
        pictures.append(_picture(comparison, labels))
        body += [f'<section id="part-{i}"><h2>{escape(title)}</h2>']
        body += _frame(i, pictures[-1], comparison) if pictures[-1]["panels"] else []
        body += [*map(_table, tables), "</section>"]
    data = json.dumps(plain(pictures), separators=(",", ":"), ensure_ascii=False)
    parts = {
        "library": "\n".join(library.js_raw),
        "data": data.replace("<", "\\u003c"),  # no name ends the script
        "body": "\n".join(body),
    }
    text = re.sub(r"\{\{(\w+)\}\}", lambda part: parts[part[1]], _TEMPLATE.read_text("utf-8"))
    path.write_text(text, encoding="utf-8")


def _picture(comparison: Comparison, labels: Labels) -> dict[str, Any]:
    """Return what is drawn of a comparison: the methods' looks, and panels with their curves."""
    lines, panels, scores = [], [], []
    for index, (method, look) in enumerate(looks(comparison).items()):
        style = look.get("linestyle", "-")
        dash = [round(1.4 * part, 1) for part in style[1]] if isinstance(style, tuple) else []
        lines.append({**{key: look[key] for key in ("label", "color", "linewidth")}, "dash": dash})
        if (score := score_curve(comparison, method)) is not None:
            scores.append(_curve(index, method, None, comparison.scored, *score))
    if scores:
        later = np.hstack([0.0, 1.0, *(_later(curve["y"]) for curve in scores)])
        highest = np.nanmax([*later, *np.hstack([curve["high"] for curve in scores])])
        shown = max(later.min(), -0.5) - 0.08, highest + 0.08
        panel = {"title": "All tasks", "y": "score, IQM", "curves": scores, "shown": shown}
        panels.append({**panel, "levels": {"random": 0.0, "teacher": 1.0}})
    for task in comparison.tasks:
        curves = []
        for index, method in enumerate(comparison.methods):
            if (shared := comparison.curve(method, task)) is not None:
                frames, returns = shared
                means = Estimate(*np.transpose([over_seeds(step) or () for step in returns.T]))
                curves.append(_curve(index, method, task, [task], frames, means))
        if curves:
            known = {"random": comparison.random, "teacher": comparison.teacher}
            levels = {who: level[task] for who, level in known.items() if task in level}
            values = np.hstack([*levels.values(), *(_later(curve["y"]) for curve in curves)])
            panel = {"title": labels.tasks.get(task, task), "y": "return", "curves": curves}
            shown = window(comparison, task, values)
            panels.append({**panel, "levels": levels, "shown": shown})
    return {"lines": lines, "panels": panels}


def _later(values: np.ndarray) -> np.ndarray:
    """Leave out what a curve does in its first quarter: axes are of the rest."""
    return values[len(values) // 4 :]


def _curve(
    index: int,
    method: Method,
    task: str | None,
    tasks: Sequence[str],
    frames: np.ndarray,
    means: Estimate,
) -> dict[str, Any]:
    """Return a curve over each of ``_AXES``, None over one that its runs do not know."""
    before = method.frames("teacher_frames", task)
    x = {"own": frames, "all": None if np.isnan(before) else frames + before}
    x["time"] = method.seconds(tasks, frames)
    y, low, high = means
    return {"line": index, "x": x, "y": y, "low": low, "high": high}


def _frame(index: int, picture: Mapping[str, Any], comparison: Comparison) -> list[str]:
    """Return a picture's switch, legend, empty panels and caption."""
    curves = [curve for panel in picture["panels"] for curve in panel["curves"]]
    text = ["<fieldset><legend>Curves over</legend>"]
    for axis, name in _AXES.items():
        state = "checked" if axis == "own" else ""
        if all(curve["x"][axis] is None for curve in curves):
            state = "disabled"
        option = f'<input type="radio" name="x-{index}" value="{axis}" {state}>'
        text.append(f"<label>{option} {name}</label>")
    text += ["</fieldset>", '<div class="methods">']
    drawn = {curve["line"] for curve in curves}
    for i, line in enumerate(picture["lines"]):
        if i in drawn:
            dash, name = " ".join(map(str, line["dash"])), escape(line["label"])
            stroke = f'stroke="{line["color"]}" stroke-width="{line["linewidth"]}"'
            key = f'<svg><path d="M0 4h26" {stroke} stroke-dasharray="{dash}"/></svg>'
            text.append(f'<button aria-pressed="true" value="{i}">{key} {name}</button>')
    text += ['<button class="every">all / none</button></div>', '<div class="panels">']
    for panel in picture["panels"]:
        text.append(f'<div><h3>{escape(panel["title"])}</h3><div class="plot"></div></div>')
    text += ["</div>", *(f'<p class="note">{note}</p>' for note in (_CAPTION, *_times(comparison)))]
    return text


def _times(comparison: Comparison) -> list[str]:
    """Say what is known of the wall-clock time of methods, and of whose."""
    unclocked, trained, machines = [], [], set()
    for method in comparison.methods:
        runs = {o.timing: None for tasks in method.outcomes.values() for o in tasks.values()}
        seconds = [timing.seconds for timing in runs if timing.seconds is not None]
        machines |= {timing.machine for timing in runs if timing.machine is not None}
        if seconds:
            trained.append(f"{method.label} {np.mean(seconds) / 60:.1f}")
        if any(timing.clock is None for timing in runs):
            unclocked.append(method.label)
    notes = [_NO_CLOCK if len(unclocked) == len(comparison.methods) else _CLOCK]
    if unclocked and notes == [_CLOCK]:
        notes.append(f"Without a clock in every run, and so not drawn: {', '.join(unclocked)}.")
    if trained:
        notes.append(f"Minutes of training, mean of the runs: {', '.join(trained)}.")
    if machines:
        several = " Times on different machines do not compare." if len(machines) > 1 else ""
        notes.append(f"Machines: {'; '.join(sorted(machines))}.{several}")
    return [" ".join(map(escape, notes))]


def _table(table: Table) -> str:
    # A column of numbers may have gaps; to the right with all of it.
    right = [any(_value(cell) is not None for cell in column) for column in zip(*table.rows)]
    sides = [' class="right"' if is_right else "" for is_right in right]
    heads = [
        f'<th{side} aria-sort="none"><button>{escape(name)}</button></th>'
        for side, name in zip(sides, table.header)
    ]
    rows = [f"<tr>{''.join(heads)}</tr></thead><tbody>"]
    for i, cells in enumerate(table.rows):
        row = []
        for k, (side, cell) in enumerate(zip(sides, cells)):
            value = _value(cell)
            number = "" if value is None else f' data-value="{value}"'
            text = escape(cell_text(cell))
            text = f"<b>{text}</b>" if (i, k) in table.bold else text
            row.append(f"<td{side}{number}>{text}</td>")
        rows.append(f"<tr>{''.join(row)}</tr>")
    notes = [f'<p class="note">{escape(note)}</p>' for note in table.notes]
    begin = f'<h3>{escape(table.title)}</h3><div class="scroll"><table data-name="{table.name}">'
    return "\n".join([begin, "<thead>", *rows, "</tbody></table></div>", *notes])


def _value(cell: Cell) -> int | float | None:
    """Return the number that a cell is sorted by, the first that it shows, if it has one."""
    number = plain(cell[0] if isinstance(cell, Interval | Estimate | Reach) else cell)
    return None if isinstance(number, str) else number
