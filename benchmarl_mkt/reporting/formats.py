"""Tables of estimates as Markdown, LaTeX (booktabs), CSV and for the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isclose, isnan
from typing import NamedTuple

from rich.markup import escape
from rich.table import Table as RichTable

from benchmarl_mkt.statistics import Estimate, Interval


class Reach(NamedTuple):
    """When the mean of the seeds reaches a level first, and from when on it is held.

    Attributes:
        first, held: fractions of training; None if that never happens.
        there: how many of the ``seeds`` are at the level in their last evaluation.
        seeds: how many there are.
    """

    first: float | None
    held: float | None
    there: int
    seeds: int


Cell = str | int | float | Interval | Estimate | Reach | None


@dataclass(frozen=True)
class Table:
    """A table before it has a format.

    Attributes:
        name: stem of its files.
        title: what it shows.
        about: of what it shows it.
        header: one text per column; the first column is the row's name.
        rows: the cells.
        notes: what the reader has to know.
        bold: (row, column) of emphasised cells.
    """

    name: str
    title: str
    about: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    bold: frozenset[tuple[int, int]] = frozenset()

    def markdown(self) -> str:
        """Return a Markdown table with its notes below."""
        lines = [
            _line(map(escape_markdown, self.header)),
            _line(["---", *["---:" if self._numeric(c) else "---" for c in self._columns()]]),
            *(_line(row) for row in self._texts(escape_markdown, "**{}**")),
        ]
        notes = [f"{escape_markdown(note)}  " for note in self.notes]
        return "\n".join([*lines, "", *notes]).rstrip() + "\n"

    def latex(self) -> str:
        """Return a LaTeX table in the style of booktabs, to be included by ``\\input``."""
        alignment = "l" + "".join("r" if self._numeric(c) else "l" for c in self._columns())
        rows = self._texts(_escape_latex, "\\textbf{{{}}}")
        caption = " ".join([f"{self.title}, {self.about}.", *self.notes])
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
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        parts = [_parts([row[i] for row in self.rows]) for i in range(len(self.header))]
        writer.writerow(
            f"{name} {part}".strip() for name, fields in zip(self.header, parts) for part in fields
        )
        for row in self.rows:
            writer.writerow(
                value for cell, fields in zip(row, parts) for value in _values(cell, fields)
            )
        return text.getvalue()

    def rich(self) -> RichTable:
        """Return a table for the terminal."""
        title, notes = escape(f"{self.title}, {self.about}"), escape(" ".join(self.notes))
        table = RichTable(title=title, caption=notes)
        table.add_column(escape(self.header[0]), no_wrap=True)
        for i, name in zip(self._columns(), self.header[1:]):
            table.add_column(escape(name), justify="right" if self._numeric(i) else "left")
        for row in self._texts(escape, "[bold]{}[/]"):
            table.add_row(*row)
        return table

    def _columns(self) -> range:
        return range(1, len(self.header))

    def _numeric(self, column: int) -> bool:
        return not any(isinstance(row[column], str) for row in self.rows)

    def _texts(self, escaped: Callable[[str], str], bold: str) -> list[list[str]]:
        return [
            [
                bold.format(text) if (i, j) in self.bold else text
                for j, text in enumerate(escaped(cell_text(cell)) for cell in row)
            ]
            for i, row in enumerate(self.rows)
        ]


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
            return f"{decimals(cell.mean)} ± {decimals(cell.half_width)}"
        case Interval() | Estimate():
            value, low, high = cell
            return decimals(value) + ("" if isnan(low) else f" [{decimals(low)}, {decimals(high)}]")
        case Reach():
            first, held = cell_text(cell.first), cell_text(cell.held)
            return f"{first} / {held} ({cell.there}/{cell.seeds})"
        case int():
            return f"{cell:,}"
        case _:
            return decimals(cell)


def decimals(value: float) -> str:
    """Two decimals, never minus zero; a dash for what is not a number."""
    return "-" if isnan(value) else f"{value:z.2f}"


def _line(cells) -> str:
    return f"| {' | '.join(cells)} |"


def escape_markdown(text: str) -> str:
    """Let a text stand in Markdown, in a table too, as it is."""
    for character in ("\\", "|", "*", "<", "`"):
        text = text.replace(character, "\\" + character)
    return text


_LATEX = {
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
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return "{}" + escaped if text[:1] in ("[", "*") else escaped  # else an argument of \\\\


def _parts(cells: Sequence[Cell]) -> tuple[str, ...]:
    return next((cell._fields for cell in cells if isinstance(cell, tuple)), ("",))


def _values(cell: Cell, parts: Sequence[str]) -> list[str | int | float]:
    if not isinstance(cell, tuple):
        return [_exact(cell), *[""] * (len(parts) - 1)]
    return [_exact(value) for value in cell]


def _exact(value: str | int | float | None) -> str | int | float:
    if value is None or value != value:
        return ""
    return value if isinstance(value, str) else round(value, 6)
