"""``benchmarl report``: read results, write tables, pictures and all numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarl_mkt.reporting.comparison import Comparison, compare
from benchmarl_mkt.reporting.formats import Table, escape_markdown, plain
from benchmarl_mkt.reporting.labels import Labels, find_labels, read_labels
from benchmarl_mkt.reporting.page import write_page
from benchmarl_mkt.reporting.plots import plot_report
from benchmarl_mkt.reporting.runs import MEASURES, Damaged, Run, read_runs
from benchmarl_mkt.reporting.tables import LEVELS, estimates, over_seeds, reached, report_tables

PRINTED = ("returns", "aggregate")


def main(
    results: Sequence[Path], labels_file: Path | None, out: Path | None, console: Console
) -> None:
    """Write the report of the runs below folders, and show its main tables.

    Raises:
        ValueError: the input is wrong.
    """
    runs, damaged = read_runs(results)
    labels = read_labels(labels_file) if labels_file else find_labels(results)
    out = out or results[0] / "report"
    try:
        out.mkdir(parents=True, exist_ok=True)
        tables, remarks = write_report(runs, damaged, labels, out)
    except OSError as error:
        raise ValueError(f"--out: cannot write to {out} ({error.strerror})") from None
    for table in tables:
        if table.name in PRINTED:
            console.print(table.rich())
    page = f"Page: {out / 'report.html'}"
    if not (out / "report.html").is_file():
        page = "No report.html: bokeh not installed; pip install 'benchmarl-mkt[report]'"
    for line in [*remarks, f"Report: {out / 'report.md'}", page]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def write_report(
    runs: Sequence[Run], damaged: Sequence[Damaged], labels: Labels, out: Path
) -> tuple[list[Table], list[str]]:
    """Write ``report.md``, ``.json``, ``.html`` and a folder of tables and pictures per task set.

    ``out`` exists. Without Bokeh there is no ``report.html``. Returns all tables, in the order of
    the report, and its remarks on the runs.
    """
    comparisons, remarks = compare(runs, labels)
    remarks = [*_troubles(runs, damaged), *remarks]
    finished = sum(run.finished for run in runs)
    counted = f"{finished} finished runs, {len(runs) - finished} unfinished."
    text = ["# Results", "", counted, ""]
    text += [f"- {escape_markdown(remark)}" for remark in remarks]
    text += [""] if remarks else []
    tables: list[Table] = []
    folders: set[str] = set()
    sections = []
    for title, part in _parts(comparisons, labels):
        folder = out / _slug(title, folders)
        folder.mkdir(exist_ok=True)
        text += [f"## {escape_markdown(title)}", ""]
        sections.append((title, part, report_tables(part, labels)))
        for table in sections[-1][2]:
            texts = {"md": table.markdown(), "tex": table.latex(), "csv": table.csv()}
            for suffix, content in texts.items():
                (folder / f"{table.name}.{suffix}").write_text(content, encoding="utf-8")
            text += [f"### {escape_markdown(table.title)}", "", table.markdown()]
            tables.append(table)
        for picture in plot_report(part, labels, folder):
            text += [f"![{picture}]({folder.name}/{picture}.png)", "", _CAPTIONS[picture], ""]
    (out / "report.md").write_text("\n".join(text).rstrip() + "\n", encoding="utf-8")
    write_page(out / "report.html", counted, remarks, sections, labels)
    numbers = {"remarks": remarks, "sets": {c.set: _numbers(c) for c in comparisons}}
    (out / "report.json").write_text(json.dumps(plain(numbers), indent=1) + "\n")
    return tables, remarks


_CAPTIONS = {
    "curves": "Greedy evaluations during training: mean over the seeds, band from the lowest to "
    "the highest seed. What lies far below random play is cut off.",
    "efficiency": "Interquartile mean of the scores (0 uniform random play, 1 the teachers) of all "
    "tasks and seeds with its 95 % stratified bootstrap interval; left over the method's own "
    "frames, right with its teachers' frames counted before them (known of finished runs). Dot: "
    f"from there on the mean score stays at {LEVELS[0]} or above.",
    "aggregate": "Best checkpoints, all tasks and seeds: estimate and 95 % stratified bootstrap "
    "interval.",
    "profile": "Performance profile of the best checkpoints: fraction of runs and tasks with a "
    "score above τ, with its pointwise 95 % stratified bootstrap interval.",
}


def _parts(comparisons: Sequence[Comparison], labels: Labels) -> Iterator[tuple[str, Comparison]]:
    """Split comparisons into the groups of the labels; what is in no group comes last."""
    for comparison in comparisons:
        others = {method.key for method in comparison.methods[1:]}
        groups = dict(labels.groups)
        if groups:
            groups["others"] = tuple(others.difference(*groups.values()))
        members = {group: others.intersection(keys) for group, keys in groups.items()}
        if not any(members.values()):
            yield comparison.set, comparison
        for group, keys in members.items():
            if keys:
                yield f"{comparison.set}: {group}", comparison.only(keys)


def _troubles(runs: Sequence[Run], damaged: Sequence[Damaged]) -> list[str]:
    """Say of each run that is not finished or not wholly legible what is wrong with it."""
    lines = [f"{d.where}: damaged, left out ({d.problem})" for d in damaged]
    for run in runs:
        if not run.finished:
            share = f"{run.frames:,} of {run.max_frames:,} frames evaluated"
            lines.append(f"{run.where}: {run.method}, seed {run.seed} is unfinished ({share})")
        lines += [f"{run.where}: {problem}" for problem in run.problems]
    return sorted(lines)


def _slug(title: str, taken: set[str]) -> str:
    """Return a name for a folder that is not ``taken`` yet, and take it."""
    slug = re.sub(r"[^a-zA-Z0-9]+", "_", title).strip("_").lower() or "set"
    while slug in taken:
        slug += "_"
    taken.add(slug)
    return slug


def _numbers(comparison: Comparison) -> dict[str, Any]:
    methods = {}
    for method in comparison.methods:
        tasks: dict[str, Any] = {task: {} for task in comparison.tasks}
        for task, measure in product(tasks, MEASURES):
            values = method.values(measure, task)
            if (mean := over_seeds(values, measure)) is not None:
                tasks[task][measure] = {"seeds": values, **mean._asdict()}
                if measure in ("best", "student") and task in comparison.scored:
                    score = over_seeds(comparison.score(task, values))
                    tasks[task][measure]["score"] = score
        scores = {
            measure: {
                "mean_score": over_seeds(comparison.mean_scores(method, measure)),
                **estimates(comparison, method, measure),
            }
            for measure in ("best", "student")
        }
        methods[method.key] = {
            "name": method.name,
            "unfinished": method.unfinished,
            "seeds": list(method.outcomes),
            "max_frames": method.max_frames,
            "frames": method.frames("frames"),
            "teacher_frames": method.frames("teacher_frames"),
            "tasks": tasks,
            **scores,
            "reached": {str(level): reached(comparison, method, level) for level in LEVELS},
        }
    return {
        "tasks": comparison.tasks,
        "reference": comparison.methods[0].key,
        "random": comparison.levels["random"],
        "teacher": comparison.levels["teacher"],
        "methods": methods,
    }
