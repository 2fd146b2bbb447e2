"""Put what several runs do on new tasks into one Markdown table (the paper's Table V).

    python benchmarks/transfer_table.py run_0.json run_1.json run_2.json

The files are what ``benchmarl transfer ... --out FILE.json`` wrote. Cells: win rate, mean over the
runs with Student's 95 % interval.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarl_mkt.reporting.formats import Cell, Table
from benchmarl_mkt.reporting.runs import WIN_RATE
from benchmarl_mkt.reporting.tables import over_seeds


def table(runs: Sequence[dict[str, Any]]) -> Table:
    """Return the table of the runs' ``tasks``, which must have the same tasks and sources."""
    sources = list(next(iter(runs[0].values()))["sources"])
    header = ["task", "random", *(f"as {source}" for source in sources), "best source, fresh"]
    rows: list[list[Cell]] = []
    for task in runs[0]:
        found = [run[task] for run in runs]
        columns = [[entry["random"] for entry in found]]
        columns += [[entry["sources"][source] for entry in found] for source in sources]
        columns.append([entry["score"] for entry in found])
        rows.append([task, *map(cell, columns)])
    return Table("transfer", "Win rate without training", "new tasks", header, rows)


def cell(scores: Sequence[dict[str, Any]]) -> Cell:
    """Mean win rate of the runs, with its interval where there are several."""
    return over_seeds(np.array([score["win_rate"]["mean"] for score in scores]), WIN_RATE)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    files = parser.parse_args().files
    runs = [json.loads(file.read_text())["tasks"] for file in files]
    sys.stdout.write(table(runs).markdown())


if __name__ == "__main__":
    main()
