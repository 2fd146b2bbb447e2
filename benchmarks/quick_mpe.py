"""The quick preset on the MPE set over several seeds: MKT, no teachers, the paper's settings.

    python benchmarks/quick_mpe.py run --seeds 0 1 2 --jobs 2    # skips what is there
    python benchmarks/quick_mpe.py table

Every run is one ``benchmarl run``; its evaluations (marl-eval JSON) and summary are copied to
``benchmarks/results/quick_mpe``. Every seed trains its own teachers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarl_mkt.reporting.runs import read_curves
from benchmarl_mkt.reporting.statistics import mean_interval, normalised_score

RESULTS = Path(__file__).resolve().parent / "results" / "quick_mpe"
METHODS = {
    "mkt": ["algorithm=mkt"],
    "no_teacher": ["algorithm=mkt", "algorithm.annealing={start:1,end:1,fraction:1}"],
    "paper": [
        "algorithm=mkt_paper",
        "experiment=mkt_quick",
        "algorithm.teacher_experiment=mkt_quick",
    ],
    "end_0.95": ["algorithm=mkt", "algorithm.annealing.end=0.95"],
    # BenchMARL's own, with the student's network: one trunk for all tasks.
    **{
        f"stock_{name}": [
            *(f"algorithm={name}", "experiment=mkt_quick"),
            *("model=multitask", "model@critic_model=multitask"),
        ]
        for name in ("qmix", "vdn", "mappo")
    },
}
QUARTER = 0.25


def run(method: str, seed: int) -> None:
    """Run one method with one seed unless its result is there; logs go beside the results."""
    target = RESULTS / f"{method}_seed{seed}.json"
    if target.exists():
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "benchmarl_mkt.cli", "run", "task=multitask/mpe"),
            *METHODS[method],
            *(f"seed={seed}", f"hydra.run.dir={folder}"),
        ]
        if not method.startswith("stock"):
            command.append(f"algorithm.teacher_seed={seed}")
        log = RESULTS / f"{method}_seed{seed}.log"
        with log.open("w") as handle:
            subprocess.run(
                command,
                check=True,
                stdout=handle,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        log.unlink()
        (curves,) = (p for p in Path(folder).glob("*/*.json") if p.stem == p.parent.name)
        summary = curves.parent / "summary.json"
        if summary.is_file():
            shutil.copy(summary, RESULTS / f"{method}_seed{seed}_summary.json")
        evaluations = json.loads(curves.read_text(), parse_float=lambda x: round(float(x), 3))
        target.write_text(json.dumps(evaluations, separators=(",", ":")) + "\n")


def scores(method: str, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read task -> (frames [n], normalised scores [n]); levels are those of the seed's MKT run."""
    levels = json.loads((RESULTS / f"mkt_seed{seed}_summary.json").read_text())["tasks"]
    return {
        task: (
            frames,
            normalised_score(
                returns.mean(1), levels[task]["random"]["mean"], levels[task]["teacher"]["mean"]
            ),
        )
        for task, (frames, returns) in read_curves(RESULTS / f"{method}_seed{seed}.json").items()
    }


def table() -> str:
    """Return the Markdown tables: teachers' returns, and scores per method and task."""
    seeds = sorted(int(p.stem.removeprefix("mkt_seed")) for p in RESULTS.glob("mkt_seed?.json"))
    summaries = [json.loads((RESULTS / f"mkt_seed{s}_summary.json").read_text()) for s in seeds]
    tasks = list(summaries[0]["tasks"])
    lines = [
        f"Returns of {summaries[0]['evaluation_episodes']} fresh greedy episodes, one column per "
        f"seed ({', '.join(map(str, seeds))}); each seed has its own teachers.",
        "",
        "| task | random | teacher | MKT student |",
        "|---|---|---|---|",
    ]
    for task in tasks:
        cells = [
            " / ".join(f"{s['tasks'][task][who]['mean']:.1f}" for s in summaries)
            for who in ("random", "teacher", "student")
        ]
        lines.append(f"| {task} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Scores (0 uniform random, 1 the teacher), mean ± 95 % interval over {len(seeds)} seeds; "
        "100 episodes per evaluation.",
        "",
        "| method | task | at a quarter of training | mean of the last 3 evaluations |",
        "|---|---|---|---|",
    ]
    for method in METHODS:
        done = [s for s in seeds if (RESULTS / f"{method}_seed{s}.json").exists()]
        if not done:
            continue
        per_seed = [scores(method, seed) for seed in done]
        quarter, final = [], []
        for task in tasks:
            frames, values = zip(*(s[task] for s in per_seed))
            at = [int(np.searchsorted(f, QUARTER * f[-1])) for f in frames]
            quarter.append(np.array([v[i] for v, i in zip(values, at)]))
            final.append(np.array([v[-3:].mean() for v in values]))
            lines.append(
                f"| {method} ({len(done)} seeds) | {task} | {_cell(quarter[-1])} | "
                f"{_cell(final[-1])} |"
            )
        lines.append(
            f"| {method} | **mean of tasks** | {_cell(np.mean(quarter, 0))} | "
            f"{_cell(np.mean(final, 0))} |"
        )
    return "\n".join(lines)


def plot() -> None:
    """Draw the normalised learning curves: mean over the seeds, and their range."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = {"mkt": "MKT (ours)", "paper": "MKT, paper's settings", "no_teacher": "no teachers"}
    tasks = list(scores("mkt", 0))
    figure, axes = pyplot.subplots(1, len(tasks), figsize=(12.6, 3.4), layout="constrained")
    for axis, task in zip(axes, tasks):
        for color, (method, label) in enumerate(names.items()):
            seeds = [s for s in range(10) if (RESULTS / f"{method}_seed{s}.json").exists()]
            curves = [scores(method, seed)[task] for seed in seeds]
            epochs, values = curves[0][0] / 25, np.array([curve[1] for curve in curves])
            axis.plot(epochs, values.mean(0), color=f"C{color}", label=label)
            axis.fill_between(
                epochs, values.min(0), values.max(0), color=f"C{color}", alpha=0.15, linewidth=0
            )
        axis.axhline(1.0, color="0.4", linestyle="--", linewidth=1)
        axis.set(title=task, xlabel="epochs", ylim=(-1.0, 1.3))
    axes[0].set_ylabel("score (0 random, 1 teacher)")
    axes[0].legend(loc="lower right")
    figure.savefig(RESULTS / "curves.png", dpi=110)


def _cell(values: np.ndarray) -> str:
    interval = mean_interval(values)
    return f"{interval.mean:.2f} ± {interval.half_width:.2f} (min {values.min():.2f})"


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["run", "table"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    arguments = parser.parse_args()
    if arguments.command == "run":
        work = [(m, s) for m in arguments.methods for s in arguments.seeds]
        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(lambda pair: run(*pair), work))
    text = table()
    (RESULTS / "table.md").write_text(text + "\n")
    plot()
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
