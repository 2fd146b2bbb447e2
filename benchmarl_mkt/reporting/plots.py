"""Pictures of results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarl_mkt.reporting.statistics import mean_interval


def read_curves(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read a run's JSON (marl-eval shape): task -> frames [n], returns [n, episodes]."""
    (tasks,) = json.loads(path.read_text()).values()
    (algorithms,) = tasks.values()
    (seeds,) = algorithms.values()
    (run,) = seeds.values()
    steps = sorted(
        (value for key, value in run.items() if key.startswith("step_")),
        key=lambda step: step["step_count"],
    )
    names = [key.removesuffix("_return") for key in steps[0] if key.endswith("_return")]
    frames = np.array([step["step_count"] for step in steps])
    return {name: (frames, np.array([step[f"{name}_return"] for step in steps])) for name in names}


def plot_learning_curves(json_path: Path, summary: Mapping[str, Any], out: Path) -> Path:
    """Draw a run's learning curves with each teacher's level as a line; write a PNG.

    Args:
        json_path: the run's JSON.
        summary: content of its ``summary.json``.
        out: the file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    curves = read_curves(json_path)
    figure, axes = pyplot.subplots(
        1, len(curves), figsize=(4.2 * len(curves), 3.4), squeeze=False, layout="constrained"
    )
    for axis, (task, (frames, returns)) in zip(axes[0], curves.items()):
        intervals = [mean_interval(step) for step in returns]
        axis.plot(frames, [i.mean for i in intervals], color="C0", label=summary["method"])
        axis.fill_between(
            frames, [i.low for i in intervals], [i.high for i in intervals], color="C0", alpha=0.2
        )
        row = summary["tasks"][task]
        if "teacher" in row:
            axis.axhline(row["teacher"]["mean"], color="C3", linestyle="--", label="teacher")
        axis.axhline(row["random"]["mean"], color="0.6", linestyle=":", label="random")
        axis.set(title=task, xlabel="frames of the task", ylabel="return")
    axes[0][0].legend(loc="lower right")
    figure.suptitle(f"{summary['method']} on {summary['set']}, seed {summary['seed']}")
    figure.savefig(out, dpi=120)
    pyplot.close(figure)
    return out
