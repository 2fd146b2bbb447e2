"""Results of runs as files, written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarl_mkt.reporting.runs import FORMAT

# Per task: uniform random play, the teachers.
LEVELS = {"push": (-30.0, -10.0), "tag": (0.0, 8.0)}


def summary(method: str = "mkt", seed: int = 0, **changes: Any) -> dict[str, Any]:
    """A summary of a run that has begun."""
    return {
        "format": FORMAT,
        "set": "multitask/two",
        "method": method,
        "algorithm": "mkt",
        "seed": seed,
        "finished": False,
        "overrides": [],
        "versions": {},
        "max_frames": 400,
        "evaluations": "evaluations.json",
        "final_episodes": 500,
        "absolute_episodes": 1000,
        "tasks": {},
        **changes,
    }


def row(task: str, best: float, student: float | None = None, taught: bool = True) -> dict:
    """A task of a finished run; ``best`` and ``student`` are scores."""
    random, teacher = LEVELS[task]
    means = {"random": 0.0, "best": best, "student": best if student is None else student}
    if taught:
        means["teacher"] = 1.0
    found = {
        who: {"mean": random + score * (teacher - random), "low": 0.0, "high": 0.0}
        for who, score in means.items()
    }
    return {**found, "frames": 400, **({"teacher_frames": 300} if taught else {})}


def evaluations(scores: dict[str, list[float]], seed: int = 0) -> dict[str, Any]:
    """Evaluations after 100, 200, ... frames: two episodes apart from the mean by one."""
    steps = {}
    for i in range(len(next(iter(scores.values()), []))):
        step: dict[str, Any] = {"step_count": 100 * (i + 1)}
        for task, values in scores.items():
            random, teacher = LEVELS[task]
            mean = random + values[i] * (teacher - random)
            step[f"{task}_return"] = [mean - 1, mean + 1]
        steps[f"step_{i}"] = {**step, "return": [0.0, 0.0]}
    return {"multitask": {"two": {"mkt": {f"seed_{seed}": steps}}}}


def write_run(folder: Path, content: Any, curves: Any = None) -> Path:
    """Write a run into its own folder below ``folder``; bytes are written as they are."""
    folder.mkdir(parents=True)
    for name, value in (("summary", content), ("evaluations", curves)):
        if value is not None:
            raw = value if isinstance(value, bytes) else json.dumps(value).encode()
            (folder / f"{name}.json").write_bytes(raw)
    return folder


def write_clock(run: Path, seconds: float, iterations: int = 4) -> Path:
    """Write what the CSV logger of a run leaves: ``seconds`` for each 100 frames."""
    folder = run / "name" / "scalars"
    folder.mkdir(parents=True)
    for name, per in (("timers_total_time", seconds), ("counters_total_frames", 100.0)):
        lines = [f"{i},{per * (i + 1)}\n" for i in range(iterations)]
        (folder / f"{name}.csv").write_text("".join(lines))
    return run


SCORES = {  # method -> seed -> task -> score of the best checkpoint
    "mkt": [{"push": 1.0, "tag": 1.2}, {"push": 1.1, "tag": 1.0}, {"push": 0.9, "tag": 1.1}],
    "other": [{"push": 0.5, "tag": 1.2}, {"push": 0.7, "tag": 0.4}, {"push": 0.6, "tag": 0.2}],
}


def write_results(folder: Path, scores: dict[str, list[dict[str, float]]] = SCORES) -> Path:
    """Write finished runs: curves rise to the best score and stay there."""
    for method, seeds in scores.items():
        for seed, tasks in enumerate(seeds):
            rows = {task: row(task, best, taught=method == "mkt") for task, best in tasks.items()}
            rise = (0.0, 0.5, 1.0, 1.0)
            curves = {task: [best * part for part in rise] for task, best in tasks.items()}
            write_run(
                folder / "two" / method / f"seed_{seed}",
                summary(method, seed, finished=True, tasks=rows),
                evaluations(curves, seed),
            )
    return folder
