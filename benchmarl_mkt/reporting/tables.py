"""Tables of results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from benchmarl_mkt.reporting.statistics import Interval


def comparison_table(summary: Mapping[str, Any]) -> Table:
    """Build the table of one run: task by task random, teacher, student, score and budget.

    Args:
        summary: content of a run's ``summary.json``.
    """
    table = Table(title=f"{summary['method']} on {summary['set']}, seed {summary['seed']}")
    table.add_column("task", no_wrap=True)
    for column in ("random", "teacher", "student", "best", "score", "winner", "frames", "episodes"):
        table.add_column(column, justify="right", no_wrap=True)
    for task, row in summary["tasks"].items():
        taught = "teacher" in row
        table.add_row(
            task,
            plus_minus(row["random"]),
            plus_minus(row["teacher"]) if taught else "-",
            plus_minus(row["student"]),
            plus_minus(row["best"]) if "best" in row else "-",
            f"{row['score']:.2f}" if taught and row["score"] is not None else "-",
            winner(row),
            f"{row['teacher_frames']:,} + {row['frames']:,}" if taught else f"{row['frames']:,}",
            f"{row['episodes']:,}" if "episodes" in row else "-",
        )
    table.caption = (
        f"Mean return and 95% interval over the same {summary['final_episodes']} fresh episodes, "
        f"greedy; best: the run's best checkpoint on {summary['absolute_episodes']} others. Score: "
        "0 uniform random, 1 the teacher. Winner: intervals apart, else tie. Frames: the "
        "teacher's + the student's; episodes: the student's."
    )
    return table


def plus_minus(interval: Mapping[str, float]) -> str:
    """Format a mean with half its interval."""
    return f"{interval['mean']:.2f} ± {Interval(**interval).half_width:.2f}"


def winner(row: Mapping[str, Any]) -> str:
    """Say who won: the student or the teacher, if their 95 % intervals do not overlap, else tie."""
    if "teacher" not in row:
        return "-"
    teacher, student = row["teacher"], row["student"]
    if student["low"] > teacher["high"]:
        return "student"
    return "teacher" if teacher["low"] > student["high"] else "tie"
