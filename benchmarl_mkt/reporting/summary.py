"""What a finished run has achieved, as plain JSON values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarl.experiment import Experiment

from benchmarl_mkt.evaluation import episode_returns, random_returns
from benchmarl_mkt.reporting.statistics import mean_interval, normalised_score

EPISODES = 100
_SEED = 20_000  # apart from the seeds of training and of the teachers' scoring


def summarise(experiment: Experiment, title: str) -> dict[str, Any]:
    """Score the final student beside its teachers and random play on fresh episodes.

    Writes ``summary.json`` into the run's folder and returns its content.
    """
    algorithm, task = experiment.algorithm, experiment.task
    env = task.get_env_fun(EPISODES, False, _SEED + experiment.seed, "cpu")()
    returns = episode_returns(env, experiment.policy)
    env.close()
    random = random_returns(task, EPISODES, _SEED + experiment.seed)
    rows = {}
    for name in algorithm.tasks:
        student, chance = mean_interval(returns[name].numpy()), mean_interval(random[name].numpy())
        account = experiment.collector.accounts[name]
        rows[name] = {
            "random": chance._asdict(),
            "student": student._asdict(),
            "frames": account["frames"],
            "episodes": account["episodes"],
        }
        if name in algorithm.teachers:
            teacher = algorithm.teachers[name]
            rows[name]["teacher"] = teacher.score
            rows[name]["teacher_frames"] = teacher.metadata["frames"]
            rows[name]["temperature"] = algorithm.temperatures[name]
            rows[name]["score"] = normalised_score(
                student.mean, chance.mean, teacher.score["mean"]
            )
    summary = {
        "title": title,
        "seed": experiment.seed,
        "evaluation_episodes": EPISODES,
        "tasks": rows,
    }
    path = Path(experiment.folder_name) / "summary.json"
    path.write_text(json.dumps(summary, indent=2) + "\n")
    return summary
