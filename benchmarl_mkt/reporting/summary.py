"""What a finished run has achieved, as plain JSON values."""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path
from typing import Any

from benchmarl.experiment import Experiment
from torch import Tensor

from benchmarl_mkt.evaluation import play, random_policy, teachers_policy
from benchmarl_mkt.reporting.statistics import mean_interval, normalised_score

EPISODES = 500
_SEED = 20_000  # apart from the seeds of training and of the teachers' scoring


def summarise(experiment: Experiment, title: str) -> dict[str, Any]:
    """Score random play, the teachers and the final student on the same fresh episodes.

    Writes ``summary.json`` into the run's folder and returns its content.
    """
    algorithm, seed = experiment.algorithm, _SEED + experiment.seed
    policies = {"random": random_policy(algorithm.tasks), "student": experiment.policy}
    if algorithm.teachers:
        policies["teacher"] = teachers_policy(algorithm.teachers)
    returns = {
        who: play(
            experiment.task,
            policy,
            EPISODES,
            seed,
            experiment.config.train_device,
            experiment.model_config,
        )
        for who, policy in policies.items()
    }
    summary = {
        "title": title,
        "seed": experiment.seed,
        "evaluation_episodes": EPISODES,
        "tasks": {task: _row(experiment, task, returns) for task in algorithm.tasks},
    }
    path = Path(experiment.folder_name) / "summary.json"
    path.write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def _row(experiment: Experiment, task: str, returns: dict[str, dict[str, Tensor]]) -> dict:
    algorithm = experiment.algorithm
    row = {who: mean_interval(per[task].numpy())._asdict() for who, per in returns.items()}
    row.update(experiment.collector.accounts[task])
    if task in algorithm.teachers:
        row["teacher_frames"] = algorithm.teachers[task].metadata["frames"]
        row["temperature"] = algorithm.temperatures[task]
        means = (row[who]["mean"] for who in ("student", "random", "teacher"))
        score = normalised_score(*means)
        row["score"] = score if isfinite(score) else None
    return row
