"""Draw the win rates of runs from BenchMARL's JSON files; tell when they first reached a level.

python benchmarks/win_rates.py --out win_rates.png NAME=run.json ...
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarl_mkt.statistics import first_reached, rate_interval

LEVELS = (0.8, 0.9)


def win_rates(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read a run: task -> (frames [E], mean, low and high of each evaluation's win rate [E, 3])."""
    environments = json.loads(path.read_text())
    (algorithms,) = (found for tasks in environments.values() for found in tasks.values())
    (run,) = (found for seeds in algorithms.values() for found in seeds.values())
    steps = [step for name, step in run.items() if name.startswith("step_")]
    keys = [key for key in steps[0] if key.endswith("_win_rate")]
    frames = np.array([step["step_count"] for step in steps])
    return {
        key.removesuffix("_win_rate"): (frames, np.array([rate_interval(s[key]) for s in steps]))
        for key in keys
    }


def main() -> None:
    """Parse the command line, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    for run in arguments.runs:
        name, _, path = run.partition("=")
        for task, (frames, intervals) in win_rates(Path(path)).items():
            rates, low, high = intervals.T
            label = name if task == "agents" else f"{name}: {task}"
            (line,) = axis.plot(frames, rates, label=label)
            axis.fill_between(frames, low, high, color=line.get_color(), alpha=0.13, linewidth=0)
            reached = (first_reached(rates, level) for level in LEVELS)
            found = ("never" if i is None else f"{frames[i]:,} frames" for i in reached)
            levels = ", ".join(f"{lv} at {at}" for lv, at in zip(LEVELS, found))
            sys.stdout.write(f"{label}: best {rates.max():.2f}; {levels}\n")
    axis.set(xlabel="frames", ylabel="win rate, greedy; band: 95 % Wilson", ylim=(-0.02, 1.02))
    axis.legend()
    figure.savefig(arguments.out, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    main()
