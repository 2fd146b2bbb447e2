"""``benchmarl report``: tables and pictures of many runs."""

from __future__ import annotations

from benchmarl_mkt.cli.common import make_console, user_errors

SUMMARY = "write tables and pictures of the runs below folders"
HELP = """Usage: benchmarl report RESULTS [RESULTS ...] [--labels FILE] [--out FOLDER]

Read every run below the folders and write report.md, report.json, tables (Markdown, LaTeX, CSV) and
pictures (PNG, PDF): returns, scores with bootstrap intervals, learning curves. Needs no torch.

  --labels FILE   YAML that names methods and adds published numbers
  --out FOLDER    where the report goes (default: report/ in the first of RESULTS)

Example:
  benchmarl report runs/paper --labels benchmarks/paper_labels.yaml
"""


def main(arguments: list[str]) -> None:
    """Write the report."""
    from benchmarl_mkt.reporting.report import main as report

    with user_errors():
        report(arguments, make_console())
