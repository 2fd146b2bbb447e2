"""Which schedule makes one team out of good experts soonest: a table and JSON.

    python benchmarks/schedules.py runs/schedules --suites smax vmas mpe [--seeds 0 1 2]

The experts lie in the folder, ``experts/smax/*`` and so on: what ``benchmarl teachers import`` or a
run has left. Those of the committed results: ``python -m benchmarl.run algorithm=mappo
model=multitask_entity experiment=smax seed=0 task=smax/BATTLE experiment.max_n_frames=N`` with
204,800 frames of 3m and 3s5z and 102,400 of 2s3z; the demo's teachers; MAPPO on vmas/balance and
IPPO on vmas/navigation with 60,000 frames (1,000 an iteration in 10 copies, minibatches of 500, 5
passes, lr 0.001).

Every contender is one ``benchmarl merge`` of them, one at a time; given again, the script runs what
is missing. A student's score is the mean over the tasks of its wins over its teachers' (SMAX), or
of where its return lies between random play, 0, and its teacher, 1.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarl_mkt.statistics import first_reached

LEVELS = (0.95, 1.0)
_OFTEN = ("experiment.evaluation_interval=5_120",)
SUITES = {
    "smax": (
        "experiment=smax", "+method=mkt_smax_mappo", "model=multitask_entity", "task.reward=mean",
        "experiment.max_n_frames=61_440", *_OFTEN,
    ),
    "vmas": ("experiment.max_n_frames=60_000", "experiment.evaluation_interval=3_000"),
    "mpe": ("experiment.max_n_frames=100_000", "experiment.evaluation_interval=2_500"),
    # The same with as many copies of a game at a time as on SMAX.
    "vmas_32": ("experiment=smax", "experiment.max_n_frames=61_440", *_OFTEN),
    "mpe_32": ("experiment=smax", "experiment.max_n_frames=102_400", *_OFTEN),
}  # fmt: skip
SCHEDULES = {
    "distillation alone": {"start": 0.0, "end": 0.0, "fraction": 0.6},
    "0.1 to 0.95 over 60 % (the paper)": {"start": 0.1, "end": 0.95, "fraction": 0.6},
    "0.1 to 0.95 over 30 %": {"start": 0.1, "end": 0.95, "fraction": 0.3},
    "0.1 to 0.95 over 10 %": {"start": 0.1, "end": 0.95, "fraction": 0.1},
    "0.1 to 0.5 over 60 %": {"start": 0.1, "end": 0.5, "fraction": 0.6},
}


def place(root: Path, suite: str, index: int, seed: int) -> Path:
    """The folder of a run."""
    return root / suite / f"schedule_{index}_seed_{seed}"


def is_done(folder: Path) -> bool:
    """Whether a run has come to its end."""
    summaries = [json.loads(path.read_text()) for path in folder.glob("**/summary.json")]
    return any(summary["finished"] for summary in summaries)


def run(root: Path, suite: str, index: int, seed: int) -> None:
    """Merge the experts of a suite."""
    folder, (name, schedule) = place(root, suite, index, seed), list(SCHEDULES.items())[index]
    shutil.rmtree(folder, ignore_errors=True)  # what was interrupted begins again
    folder.parent.mkdir(parents=True, exist_ok=True)
    experts = sorted(map(str, (root / "experts" / suite.partition("_")[0]).iterdir()))
    values = ",".join(f"{key}:{value}" for key, value in schedule.items())
    with (folder.parent / f"{folder.name}.log").open("w") as log:
        sys.stdout.write(f"{suite}, {name}, seed {seed}\n")
        subprocess.run(
            [
                sys.executable, "-m", "benchmarl_mkt.cli", "merge", *experts, f"out={folder}",
                *SUITES[suite], f"algorithm.annealing={{{values}}}", f"seed={seed}",
                "experiment.loggers=[csv]", "task.final_episodes=500",
            ],
            stdout=log, stderr=subprocess.STDOUT, check=True,
        )  # fmt: skip


def measure(folder: Path) -> dict[str, Any]:
    """What one run has reached: its curve, and its final policy over fresh episodes."""
    (path,) = folder.glob("**/summary.json")
    tasks = json.loads(path.read_text())["tasks"]
    wins = all("teacher_win_rate" in task for task in tasks.values())
    kind = "_win_rate" if wins else ""
    curves = []
    for name, task in tasks.items():
        column = "win_rate" if wins else "reward_episode_reward_mean"
        zero = 0.0 if wins else task["random"]["mean"]
        unit = task[f"teacher{kind}"]["mean"] - zero
        points = _column(path.parent, f"eval_{name}_{column}")
        curves.append({key: (value - zero) / unit for key, value in points.items()})
        task["final"] = (task[f"student{kind}"]["mean"] - zero) / unit
    frames = _column(path.parent, "counters_total_frames")
    scores = {frames[step]: fmean(curve[step] for curve in curves) for step in curves[0]}
    return {
        "frames": [int(step) for step in scores],
        "scores": [round(score, 3) for score in scores.values()],
        "final": {name: round(task["final"], 3) for name, task in tasks.items()},
        "teachers": {name: round(t[f"teacher{kind}"]["mean"], 3) for name, t in tasks.items()},
    }


def _column(folder: Path, name: str) -> dict[int, float]:
    """A logged value by iteration."""
    (path,) = folder.glob(f"**/scalars/{name}.csv")
    return {int(float(step)): float(value) for step, value in csv.reader(path.open())}


def table(measured: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """The measurements as Markdown: every seed's frames to a level, and final scores."""
    levels = [f"frames to {level:.0%}" for level in LEVELS]
    lines = [f"| suite | schedule | {' | '.join(levels)} | final score |", "|---|---|---|---|---|"]
    for suite, schedules in measured.items():
        for name, runs in schedules.items():
            cells = []
            for level in LEVELS:
                reached = [(run["frames"], first_reached(run["scores"], level)) for run in runs]
                cells.append(
                    ", ".join("-" if at is None else f"{frames[at]:,}" for frames, at in reached)
                )
            cells.append(", ".join(f"{fmean(run['final'].values()):.2f}" for run in runs))
            lines.append(f"| {suite} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing in the folder; print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--suites", nargs="+", choices=list(SUITES), default=list(SUITES))
    parser.add_argument("--schedules", nargs="+", type=int, default=list(range(len(SCHEDULES))))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="write JSON and Markdown there")
    parser.add_argument("--show", action="store_true", help="run nothing, show what is there")
    arguments = parser.parse_args()
    root, names = arguments.folder.absolute(), list(SCHEDULES)
    measured: dict[str, dict[str, list[dict[str, Any]]]] = {}
    wanted = itertools.product(arguments.suites, arguments.seeds, arguments.schedules)
    for suite, seed, index in wanted:
        folder = place(root, suite, index, seed)
        if not is_done(folder):
            if arguments.show:
                continue
            run(root, suite, index, seed)
        found = {"seed": seed, **measure(folder)}
        measured.setdefault(suite, {}).setdefault(names[index], []).append(found)
    if arguments.out:
        arguments.out.with_suffix(".json").write_text(json.dumps(measured, indent=1) + "\n")
        arguments.out.with_suffix(".md").write_text(table(measured) + "\n")
    sys.stdout.write(table(measured) + "\n")


if __name__ == "__main__":
    main()
