"""Seconds and frames to 0.8 greedy wins of single SMAX battles: a table, a picture and JSON.

    python benchmarks/time_to_win.py runs/time_to_win [--battles 3m 2s3z] [--jaxmarl FILE.json]

Every contender is a ``benchmarl run`` command, one at a time, whose evaluations are watched from
outside: seconds count from the command on, imports, compiling and evaluations included. Runs lie in
the folder; given again, the script goes on with those that are missing. The teacher at hand of
MKT-MARL is the team that MAPPO's run has left. "Cold" adds what a run of one iteration needs longer
with an empty cache of compiled battles.

``--jaxmarl`` adds curves measured by hand with JaxMARL's own baselines:
{battle: {name: {"seconds": [...], "frames": [...], "wins": [...]}}}.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from matplotlib.figure import Figure

from benchmarl_mkt.statistics import first_reached

LEVEL = 0.8
BATTLES = ("3m", "2s3z", "3s5z")
FRAMES = 204_800
EXPERIMENT = (
    "experiment=smax", "experiment.evaluation_interval=10_240", "task=multitask/custom",
    "task.reward=mean", "task.final_episodes=64",
)  # fmt: skip
ENTITY = ("model=multitask_entity",)
CONTENDERS = {
    "MAPPO": ("+method=mappo_smax", f"experiment.max_n_frames={FRAMES}"),
    "MAPPO, entity network": (
        *("+method=mappo_smax", f"experiment.max_n_frames={FRAMES // 2}"), *ENTITY,
    ),
    "our learner alone": ("+method=vdn_s_smax", f"experiment.max_n_frames={FRAMES}"),
    "MKT-MARL, teacher at hand": (
        "+method=mkt_smax_mappo", f"experiment.max_n_frames={FRAMES // 4}",
        "experiment.evaluation_interval=5_120",
    ),
    "MKT-MARL, entity network, teacher at hand": (
        "+method=mkt_smax_mappo", f"experiment.max_n_frames={FRAMES // 4}",
        "experiment.evaluation_interval=5_120", *ENTITY,
    ),
}  # fmt: skip
TEACHER = "MAPPO, entity network"


def watch(command: list[str], folder: Path, battle: str) -> dict[str, list]:
    """Run the command; note when its evaluations appear in the CSV file of their win rates."""
    shutil.rmtree(folder, ignore_errors=True)  # what was interrupted begins again
    batch = 2048 if "+method=mappo_smax" in command else 1024  # frames of an iteration
    start, curve = time.monotonic(), {"seconds": [], "frames": [], "wins": []}
    log = (folder.parent / f"{folder.name}.log").open("w")
    run = subprocess.Popen(
        [*command, f"hydra.run.dir={folder}", "experiment.loggers=[csv]"],
        stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    running = True
    while running:
        time.sleep(0.1)
        running = run.poll() is None
        for path in folder.glob(f"**/eval_{battle}_win_rate.csv"):
            lines = path.read_text().rpartition("\n")[0].splitlines()  # those that are complete
            for line in lines[len(curve["wins"]) :]:
                iteration, _, wins = line.partition(",")
                curve["seconds"].append(round(time.monotonic() - start, 1))
                curve["frames"].append((int(float(iteration)) + 1) * batch)
                curve["wins"].append(float(wins))
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)}: {log.name}")
    return curve


def place(folder: Path, battle: str, name: str) -> Path:
    """The folder of a contender's run."""
    return folder / re.sub(r"\W+", "_", f"{battle} {name}")


def first_iteration(battle: str, cache: str | None) -> float:
    """Seconds from the command to the end of a MAPPO run of one iteration, without scoring."""
    environment = dict(os.environ)
    if cache is not None:
        environment["JAX_COMPILATION_CACHE_DIR"] = cache
    with tempfile.TemporaryDirectory() as place:
        start = time.monotonic()
        subprocess.run(
            [
                "benchmarl", "run", "algorithm=mappo", f"task=smax/{battle}", "experiment=smax",
                "experiment.max_n_frames=2_048", "experiment.evaluation=false",
                f"hydra.run.dir={place}",
            ],
            check=True, capture_output=True, env=environment,
        )  # fmt: skip
        return time.monotonic() - start


def table(found: dict[str, dict]) -> str:
    """The measurements as Markdown."""
    lines = [
        f"| battle | contender | frames to {LEVEL} | seconds, warm | seconds, cold | best |",
        "|---|---|---|---|---|---|",
    ]
    for battle, entry in found.items():
        for name, curve in entry["curves"].items():
            at = first_reached(curve["wins"], LEVEL)
            frames = warm = cold = None
            if at is not None:
                frames, warm = curve["frames"][at], curve["seconds"][at]
                cold = warm + entry["compiling"]
            if name.startswith("JaxMARL"):  # which compiles anew in every run
                warm, cold = None, warm
            cells = ["-" if value is None else f"{value:,.0f}" for value in (frames, warm, cold)]
            lines.append(f"| {battle} | {name} | {' | '.join(cells)} | {max(curve['wins']):.2f} |")
    return "\n".join(lines)


def draw(found: dict[str, dict], path: Path) -> None:
    """Win rates over wall-clock seconds."""
    figure = Figure(figsize=(3.4 * len(found), 3.8), layout="constrained")
    axes = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
    for axis, (battle, entry) in zip(axes, found.items()):
        for index, (name, curve) in enumerate(entry["curves"].items()):
            axis.plot(curve["seconds"], curve["wins"], label=name, color=f"C{index}")
        axis.set(title=battle, xlabel="seconds from the command", ylim=(-0.02, 1.02))
        axis.axhline(LEVEL, color="grey", linewidth=0.5)
    axes[0].set_ylabel("win rate")
    handles = {name: line for axis in axes for line, name in zip(*axis.get_legend_handles_labels())}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=3, fontsize="small")
    figure.savefig(path, dpi=120, metadata={"Software": None})


def main() -> None:
    """Measure what is missing in the folder; print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--battles", nargs="+", default=BATTLES)
    parser.add_argument("--jaxmarl", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/time_to_win")
    arguments = parser.parse_args()
    by_hand = json.loads(arguments.jaxmarl.read_text()) if arguments.jaxmarl else {}
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    path = arguments.out.with_suffix(".json")
    found = json.loads(path.read_text()) if path.exists() else {}
    for battle in arguments.battles:
        entry = found.setdefault(battle, {"curves": {}})
        if "compiling" not in entry:
            with tempfile.TemporaryDirectory() as cache:
                cold = first_iteration(battle, cache)
            warm = min(first_iteration(battle, None) for _ in range(2))
            entry |= {"cold": cold, "warm": warm, "compiling": cold - warm}
        for name, overrides in CONTENDERS.items():
            if name in entry["curves"]:
                continue
            command = ["benchmarl", "run", *EXPERIMENT, f"task.tasks=[smax/{battle}]", *overrides]
            if name.startswith("MKT"):
                (team,) = place(folder, battle, TEACHER).glob(f"*/team/{battle}")
                command.append(f"algorithm.teachers={{{battle}: {team}}}")
            run = place(folder, battle, name)
            entry["curves"][name] = watch(command, run, battle)
            path.write_text(json.dumps(found, indent=1) + "\n")
        entry["curves"] |= by_hand.get(battle, {})
    path.write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(table(found) + "\n")
    arguments.out.with_suffix(".md").write_text(table(found) + "\n")
    draw(found, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
