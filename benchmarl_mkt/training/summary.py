"""What a run is and what it has achieved, as plain JSON values beside its evaluations."""

from __future__ import annotations

import contextlib
import json
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from benchmarl.experiment import Experiment

from benchmarl_mkt.reporting.runs import FORMAT, WIN_RATE
from benchmarl_mkt.statistics import mean_interval, normalised_score, rate_lead
from benchmarl_mkt.teams.evaluation import Episodes, greedy_policy, play_on, random_policy, stage_of
from benchmarl_mkt.teams.export import Outputs, export_team, teams_of
from benchmarl_mkt.training.best_policy import BestPolicy
from benchmarl_mkt.training.monitors import Accounts
from benchmarl_mkt.training.resume.results import AtomicJsonWriter

_SEED = 20_000  # apart from the seeds of training and of the teachers' scoring
_ABSOLUTE_SEED = 30_000


def begin_summary(experiment: Experiment, **labels: Any) -> dict[str, Any]:
    """Write the ``summary.json`` of a run that begins; return its content.

    Args:
        experiment: the run, of a task set.
        labels: what the run is called: ``method``, ``overrides``. Its JSON is of that method, too.

    Returns:
        Without evaluations in a file, ``evaluations`` is None; without any evaluation, and so
        without a best policy, ``absolute_episodes`` is, too.
    """
    config, writes = experiment.config, experiment.logger.json_writer is not None
    # BenchMARL skips evaluations that nothing would record, without a word.
    evaluates = config.evaluation and (writes or len(config.loggers) > 0)
    task = experiment.task
    absolute = task.config["final_episodes"] or 10 * config.evaluation_episodes
    if writes:
        # BenchMARL writes to this one from now on; its own calls all variants of a method the same.
        experiment.logger.json_writer = AtomicJsonWriter(experiment.logger.json_writer)
        experiment.logger.json_writer.rename(labels["method"])
    summary = {
        "format": FORMAT,
        **labels,
        "set": f"{task.env_name()}/{task.set_name.lower()}",
        "algorithm": experiment.algorithm_name,
        "seed": experiment.seed,
        "finished": False,
        "max_frames": config.get_max_n_frames(experiment.on_policy),
        "evaluations": f"{experiment.name}.json" if evaluates and writes else None,
        "averaged_weights": getattr(experiment.algorithm, "averaged_weights", None) is not None,
        "final_episodes": task.final_episodes,
        "absolute_episodes": absolute if evaluates else None,
        "versions": {
            package: version(package)
            for package in ("benchmarl-mkt", "benchmarl", "torchrl", "tensordict", "torch")
        },
        "tasks": {},
    }
    return _write(experiment, summary)


def summarise(
    experiment: Experiment,
    summary: dict[str, Any],
    best: BestPolicy | None = None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Score random play, the teachers and the final policy on the same fresh episodes.

    The best policy of the run, if any was kept, is scored on other episodes, by default ten times
    those of an evaluation: the absolute metric of the marl-eval protocol (Gorsane et al.
    2022, https://arxiv.org/abs/2209.10485), which also replaces the one in the run's JSON.

    Args:
        experiment: the finished run.
        summary: what :func:`begin_summary` returned.
        best: the run's best policy.
        folder: where to write the team that was scored, the best one if any was kept.

    Returns:
        The completed summary, as written to ``summary.json``.
    """
    algorithm, seed = experiment.algorithm, _SEED + experiment.seed
    tasks, teachers = list(algorithm.group_map), getattr(algorithm, "teachers", {})
    teams, outputs = teams_of(experiment), Outputs()
    kept = None if best is None else best.best
    policies = {
        "random": random_policy(tasks),
        "student": greedy_policy(teams, outputs if kept is None else None),
    }
    if teachers:
        policies["teacher"] = greedy_policy(teachers)
    with stage_of(experiment) as env:
        final = summary["final_episodes"], seed
        played = {who: play_on(env, policy, *final) for who, policy in policies.items()}
        if best is not None and kept is not None:
            with best.in_use():
                absolute = summary["absolute_episodes"], _ABSOLUTE_SEED + experiment.seed
                played["best"] = play_on(env, greedy_policy(teams, outputs), *absolute)
            summary["best_at_frames"] = kept.frames
            _write_absolute_metrics(experiment, played["best"])
    if folder is not None:
        scored = {"score": played.get("best", played["student"]), "random": played["random"]}
        scores: dict[str, dict[str, Any]] = {
            task: {name: episodes.score(task).described for name, episodes in scored.items()}
            for task in tasks
        }
        for task, team in teams.items():
            scores[task]["temperature"] = outputs.temperature(task, team.kind)
        with contextlib.nullcontext() if best is None else best.in_use():
            export_team(experiment, folder, scores)
    summary["tasks"] = {task: _row(experiment, task, played) for task in tasks}
    summary["finished"] = True
    return _write(experiment, summary)


def _write_absolute_metrics(experiment: Experiment, played: Episodes) -> None:
    """Put the means of the best policy where BenchMARL keeps its luckiest episode."""
    writer = experiment.logger.json_writer
    if writer is None:
        return
    means = {f"{task}_return": [float(values.mean())] for task, values in played.returns.items()}
    means["return"] = [float(torch.stack(list(played.returns.values())).mean())]
    for task, flags in played.won.items():
        means[f"{task}_win_rate"] = [float(flags.float().mean())]
    writer.run_data["absolute_metrics"] = means
    writer.rewrite()


def _row(experiment: Experiment, task: str, played: dict[str, Episodes]) -> dict:
    algorithm = experiment.algorithm
    scores = {who: episodes.score(task) for who, episodes in played.items()}
    row: dict[str, Any] = {who: score.returns._asdict() for who, score in scores.items()}
    won = {who + WIN_RATE: score.won for who, score in scores.items() if score.won is not None}
    row.update({name: interval._asdict() for name, interval in won.items()})
    accounts = next((c.tasks for c in experiment.callbacks if isinstance(c, Accounts)), {})
    row.update(accounts.get(task, {"frames": experiment.total_frames}))
    if "teacher" in played:
        row.update(_lead(task, played["student"], played["teacher"]))
        row["teacher_frames"] = algorithm.teachers[task].metadata["frames"]
        row["temperature"] = algorithm.temperatures[task]
        means = (row[who]["mean"] for who in ("student", "random", "teacher"))
        score = normalised_score(*means)
        row["score"] = score if isfinite(score) else None
    return row


def _lead(task: str, student: Episodes, teacher: Episodes) -> dict[str, dict[str, float]]:
    """By how much the student is ahead in the same episodes: neither interval alone shows that."""
    lead = mean_interval((student.returns[task] - teacher.returns[task]).numpy())
    found = {"lead": lead._asdict()}
    if task in student.won:
        pair = (players.won[task].numpy() for players in (student, teacher))
        found["lead" + WIN_RATE] = rate_lead(*pair)._asdict()
    return found


def _write(experiment: Experiment, summary: dict[str, Any]) -> dict[str, Any]:
    path = Path(experiment.folder_name) / "summary.json"
    path.write_text(json.dumps(summary, indent=2) + "\n")
    return summary
