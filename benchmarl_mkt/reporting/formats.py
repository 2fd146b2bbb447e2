"""Tables of estimates as Markdown, LaTeX (booktabs), CSV and for the terminal."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isclose, isfinite, isnan
from typing import Any, NamedTuple

import numpy as np
from rich.markup import escape
from rich.table import Table as RichTable

from benchmarl_mkt.statistics import Estimate, Interval


class Reach(NamedTuple):
    """When the mean of the seeds reaches a level first, and from when on it is held."""

    first: float | None  # fractions of training; None if that never happens
    held: float | None
    there: int  # how many of the seeds are at the level in their last evaluation
    seeds: int


Cell = str | int | float | Interval | Estimate | Reach | None


@dataclass(frozen=True)
class Table:
    """A table before it has a format."""

    name: str  # stem of its files
    title: str  # what it shows
    about: str  # of what it shows it
    header: Sequence[str]  # the first column is the row's name
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()  # what the reader has to know
    bold: frozenset[tuple[int, int]] = frozenset()  # (row, column)

    def markdown(self) -> str:
        """Return a Markdown table with its notes below."""
        rows = [
            [escape_markdown(name) for name in self.header],
            ["---:" if right else "---" for right in self._aligned_right],
            *self._texts(escape_markdown, "**{}**"),
        ]
        lines = [f"| {' | '.join(row)} |" for row in rows]
        notes = [f"{escape_markdown(note)}  " for note in self.notes]
        return "\n".join([*lines, "", *notes]).rstrip() + "\n"

    def latex(self) -> str:
        """Return a LaTeX table in the style of booktabs, to be included by ``\\input``."""
        alignment = "".join("r" if right else "l" for right in self._aligned_right)
        caption = " ".join([f"{self.title}, {self.about}.", *self.notes])
        rows = self._texts(_escape_latex, "\\textbf{{{}}}")
        lines = [
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{_escape_latex(caption)}}}",
            f"\\begin{{tabular}}{{{alignment}}}",
            "\\toprule",
            " & ".join(map(_escape_latex, self.header)) + " \\\\",
            "\\midrule",
            *(" & ".join(row) + " \\\\" for row in rows),
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
        ]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """Return CSV with all digits: an estimate takes one column for each of its parts."""
        columns = []
        for name, cells in zip(self.header, zip(*self.rows)):
            estimates = (c for c in cells if isinstance(c, Interval | Estimate | Reach))
            for part in next((estimate._fields for estimate in estimates), ("",)):
                values = (getattr(cell, part, None) if part else cell for cell in cells)
                columns.append([f"{name} {part}".strip(), *map(_exact, values)])
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(zip(*columns))
        return text.getvalue()

    def rich(self) -> RichTable:
        """Return a table for the terminal."""
        title, notes = escape(f"{self.title}, {self.about}"), escape(" ".join(self.notes))
        table = RichTable(title=title, caption=notes)
        for i, (name, right) in enumerate(zip(self.header, self._aligned_right)):
            table.add_column(escape(name), justify="right" if right else "left", no_wrap=not i)
        for row in self._texts(escape, "[bold]{}[/]"):
            table.add_row(*row)
        return table

    @property
    def _aligned_right(self) -> list[bool]:
        """Of each column whether it has numbers only."""
        return [not any(isinstance(cell, str) for cell in column) for column in zip(*self.rows)]

    def _texts(self, escaped: Callable[[str], str], bold: str) -> list[list[str]]:
        texts = [[escaped(cell_text(cell)) for cell in row] for row in self.rows]
        for row, column in self.bold:
            texts[row][column] = bold.format(texts[row][column])
        return texts


def cell_text(cell: Cell) -> str:
    """Format a cell as plain text: ``1.02 ± 0.05``, ``12,000``, ``-``.

    An interval that does not lie evenly around its mean is shown by its ends:
    ``0.95 [0.76, 0.99]``.
    """
    match cell:
        case None:
            return "-"
        case str():
            return cell
        case Interval() if isclose(cell.mean - cell.low, cell.high - cell.mean, abs_tol=1e-5):
            return f"{_decimals(cell.mean)} ± {_decimals(cell.half_width)}"
        case Interval() | Estimate():
            value, low, high = cell
            return _decimals(value) + (
                "" if isnan(low) else f" [{_decimals(low)}, {_decimals(high)}]"
            )
        case Reach():
            first, held = cell_text(cell.first), cell_text(cell.held)
            return f"{first} / {held} ({cell.there}/{cell.seeds})"
        case int():
            return f"{cell:,}"
        case _:
            return _decimals(cell)


def _decimals(value: float) -> str:
    """Two decimals, never minus zero; a dash for what is not a number."""
    return "-" if isnan(value) else f"{value:z.2f}"


def escape_markdown(text: str) -> str:
    """Let a text stand in Markdown, in a table too, as it is."""
    return re.sub(r"[\\|*<`]", r"\\\g<0>", text)


_LATEX: dict[str, str | int | None] = {
    **{character: "\\" + character for character in "_%&#${}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "±": "$\\pm$",
    "≥": "$\\geq$",
    "<": "$<$",
    ">": "$>$",
}


def _escape_latex(text: str) -> str:
    escaped = text.translate(str.maketrans(_LATEX))
    return "{}" + escaped if text[:1] in ("[", "*") else escaped  # else an argument of \\\\


def _exact(value: Any) -> str | int | float:
    if value is None or value != value:
        return ""
    return value if isinstance(value, str) else round(value, 6)


def plain(value: Any) -> Any:
    """Turn ``value`` into JSON's types, numbers to six decimals, not-a-number to null."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):  # NumPy's too
        return round(float(value), 6) if isfinite(value) else None
    return value
