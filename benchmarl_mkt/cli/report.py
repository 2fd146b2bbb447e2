"""``benchmarl report``: tables and pictures of many runs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from benchmarl_mkt.cli.common import make_console

SUMMARY = "write tables and pictures of the runs below folders"
HELP = """Read every run below the folders and write report.md, report.json, tables (Markdown,
LaTeX, CSV) and pictures (PNG, PDF): returns, scores with bootstrap intervals, learning curves.
Needs no torch."""
EXAMPLE = "  benchmarl report runs/paper --labels benchmarks/paper_labels.yaml"


def configure(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="folders of runs")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: RESULTS/report")
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="names, order and published numbers (YAML)"
    )


def main(options: Namespace) -> None:
    """Write the report."""
    from benchmarl_mkt.reporting.report import main as report

    report(options.results, options.labels, options.out, make_console())
