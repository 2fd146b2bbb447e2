"""Copy what reports need of finished runs: small files, to be kept in the repository.

    python benchmarks/collect.py runs/paper benchmarks/results/mpe_10k

Every finished run below the first folder gives METHOD/seed_N[/TASK]/{summary,evaluations}.json
below the second; evaluations are rounded to three decimals. A student's distillation.json has the
teachers' entropy and the ratio of the gradients at its evaluations.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def collect(runs: Path, results: Path) -> int:
    """Copy every finished run; return how many there were."""
    taken: dict[Path, Path] = {}
    for path in sorted(runs.rglob("summary.json")):
        summary = json.loads(path.read_text())
        if not summary["finished"]:
            continue
        folder = results / summary["method"] / f"seed_{summary['seed']}"
        if summary["method"].endswith("_single"):
            folder /= next(iter(summary["tasks"]))
        if folder in taken:
            sys.exit(f"{path.parent} and {taken[folder]} are of one method and seed: remove one")
        taken[folder] = path.parent
        folder.mkdir(parents=True, exist_ok=True)
        if summary["evaluations"] is not None:
            evaluations = json.loads((path.parent / summary["evaluations"]).read_text())
            compact = json.dumps(rounded(evaluations, 3), separators=(",", ":"))
            (folder / "evaluations.json").write_text(compact + "\n")
            summary["evaluations"] = "evaluations.json"
        (folder / "summary.json").write_text(json.dumps(rounded(summary), indent=1) + "\n")
        if signals := distillation(path.parent, summary["tasks"]):
            (folder / "distillation.json").write_text(json.dumps(signals, indent=1) + "\n")
    return len(taken)


def distillation(run: Path, tasks: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return what a run has logged under ``distillation/``: task -> signal -> values in a row."""
    found: dict[str, dict[str, str]] = {}
    for task in tasks:
        start = f"distillation_{task}_"
        for path in sorted(run.glob(f"*/scalars/{start}*.csv")):
            values = (float(line.split(",")[1]) for line in path.read_text().splitlines())
            signal = path.stem.removeprefix(start)
            found.setdefault(task, {})[signal] = " ".join(f"{value:.3g}" for value in values)
    return found


def rounded(value: Any, digits: int = 6) -> Any:
    """Round all numbers in nested lists and mappings."""
    match value:
        case dict():
            return {key: rounded(item, digits) for key, item in value.items()}
        case list():
            return [rounded(item, digits) for item in value]
        case float():
            return round(value, digits)
    return value


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("results", type=Path)
    arguments = parser.parse_args()
    sys.stdout.write(f"{collect(arguments.runs, arguments.results)} finished runs\n")


if __name__ == "__main__":
    main()
