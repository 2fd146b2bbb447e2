"""What a run is and what it has achieved, as plain JSON values beside its evaluations."""

from __future__ import annotations

import json
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from benchmarl.experiment import Experiment

from benchmarl_mkt.accounts import Accounts
from benchmarl_mkt.best_policy import BestPolicy
from benchmarl_mkt.evaluation import Episodes, play_in, random_policy, teachers_policy
from benchmarl_mkt.reporting.runs import FORMAT, WIN_RATE
from benchmarl_mkt.reporting.statistics import normalised_score

EPISODES = 500
_SEED = 20_000  # apart from the seeds of training and of the teachers' scoring
_ABSOLUTE_SEED = 30_000


def describe(experiment: Experiment, **labels: Any) -> dict[str, Any]:
    """Write the ``summary.json`` of a run that begins; return its content.

    Args:
        experiment: the run, of a task set.
        labels: what the run is called: ``set``, ``method``, ``overrides``.
    """
    config = experiment.config
    summary = {
        "format": FORMAT,
        **labels,
        "algorithm": experiment.algorithm_name,
        "seed": experiment.seed,
        "finished": False,
        "max_frames": config.get_max_n_frames(experiment.on_policy),
        "evaluations": f"{experiment.name}.json",
        "final_episodes": EPISODES,
        "absolute_episodes": 10 * config.evaluation_episodes,
        "versions": {
            package: version(package)
            for package in ("benchmarl-mkt", "benchmarl", "torchrl", "tensordict", "torch")
        },
        "tasks": {},
    }
    return _write(experiment, summary)


def summarise(
    experiment: Experiment, summary: dict[str, Any], best: BestPolicy | None = None
) -> dict[str, Any]:
    """Score random play, the teachers and the final policy on the same fresh episodes.

    The best policy of the run, if any was kept, is scored on ten times the episodes of an
    evaluation, fresh ones again: the absolute metric of the marl-eval protocol (Gorsane et al.
    2022, https://arxiv.org/abs/2209.10485), which also replaces the one in the run's JSON.

    Args:
        experiment: the finished run.
        summary: what :func:`describe` returned.
        best: the run's best policy.

    Returns:
        The completed summary, as written to ``summary.json``.
    """
    algorithm, seed = experiment.algorithm, _SEED + experiment.seed
    tasks, teachers = list(algorithm.group_map), getattr(algorithm, "teachers", {})
    policies = {"random": random_policy(tasks), "student": experiment.policy}
    if teachers:
        policies["teacher"] = teachers_policy(teachers)
    played = {who: play_in(experiment, policy, EPISODES, seed) for who, policy in policies.items()}
    if best is not None and best.best is not None:
        with best.in_use():
            absolute = summary["absolute_episodes"], _ABSOLUTE_SEED + experiment.seed
            played["best"] = play_in(experiment, experiment.policy, *absolute)
        summary["best_at_frames"] = best.best.frames
        _write_absolute_metrics(experiment, played["best"])
    summary["tasks"] = {task: _row(experiment, task, played) for task in tasks}
    summary["finished"] = True
    return _write(experiment, summary)


def _write_absolute_metrics(experiment: Experiment, played: Episodes) -> None:
    """Put the means of the best policy where BenchMARL keeps its luckiest episode."""
    writer = experiment.logger.json_writer
    means = {f"{task}_return": [float(values.mean())] for task, values in played.returns.items()}
    means["return"] = [float(torch.stack(list(played.returns.values())).mean())]
    for task, flags in played.won.items():
        means[f"{task}_win_rate"] = [float(flags.float().mean())]
    writer.run_data["absolute_metrics"] = means
    Path(writer.path).write_text(json.dumps(writer.data, indent=4))


def _row(experiment: Experiment, task: str, played: dict[str, Episodes]) -> dict:
    algorithm = experiment.algorithm
    scores = {who: episodes.score(task) for who, episodes in played.items()}
    row = {who: score.returns._asdict() for who, score in scores.items()}
    won = {who + WIN_RATE: score.won for who, score in scores.items() if score.won is not None}
    row.update({name: interval._asdict() for name, interval in won.items()})
    accounts = next((c.tasks for c in experiment.callbacks if isinstance(c, Accounts)), {})
    row.update(accounts.get(task, {"frames": experiment.total_frames}))
    if "teacher" in played:
        row["teacher_frames"] = algorithm.teachers[task].metadata["frames"]
        row["temperature"] = algorithm.temperatures[task]
        means = (row[who]["mean"] for who in ("student", "random", "teacher"))
        score = normalised_score(*means)
        row["score"] = score if isfinite(score) else None
    return row


def _write(experiment: Experiment, summary: dict[str, Any]) -> dict[str, Any]:
    path = Path(experiment.folder_name) / "summary.json"
    path.write_text(json.dumps(summary, indent=2) + "\n")
    return summary
