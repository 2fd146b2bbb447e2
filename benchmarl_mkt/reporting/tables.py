"""Tables of results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def comparison_table(summary: Mapping[str, Any]) -> Table:
    """Build the table of one run: task by task random, teacher, student, score and budget.

    Args:
        summary: content of a run's ``summary.json``.
    """
    table = Table(title=f"{summary['title']}, seed {summary['seed']}")
    table.add_column("task")
    for column in ("random", "teacher", "student", "95% CI", "score", "winner"):
        table.add_column(column, justify="right")
    for column in ("teacher frames", "student frames", "episodes"):
        table.add_column(column, justify="right")
    for task, row in summary["tasks"].items():
        student, teacher = row["student"], row.get("teacher")
        table.add_row(
            task,
            f"{row['random']['mean']:.2f}",
            f"{teacher['mean']:.2f}" if teacher else "-",
            f"{student['mean']:.2f}",
            f"[{student['low']:.2f}, {student['high']:.2f}]",
            f"{row['score']:.2f}" if teacher else "-",
            winner(row),
            f"{row['teacher_frames']:,}" if teacher else "-",
            f"{row['frames']:,}",
            f"{row['episodes']:,}",
        )
    table.caption = (
        f"Mean return of {summary['evaluation_episodes']} fresh episodes, greedy; score 0 is "
        "uniform random play, 1 the teacher."
    )
    return table


def winner(row: Mapping[str, Any]) -> str:
    """Say who won: the student or the teacher, if their 95 % intervals do not overlap, else tie."""
    teacher, student = row.get("teacher"), row["student"]
    if not teacher:
        return "-"
    if student["low"] > teacher["high"]:
        return "student"
    return "teacher" if teacher["low"] > student["high"] else "tie"
