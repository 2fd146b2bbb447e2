"""What a run is and what it has achieved, as plain JSON values beside its evaluations."""

from __future__ import annotations

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
from benchmarl_mkt.teams.export import Outputs, export_team, teams_of, versions
from benchmarl_mkt.training.best_policy import BestPolicy
from benchmarl_mkt.training.machine import machine_of
from benchmarl_mkt.training.monitors import Accounts
from benchmarl_mkt.training.resume.results import AtomicJsonWriter

_SEED = 20_000  # apart from the seeds of training and of the teachers' scoring
_ABSOLUTE_SEED = 30_000


def begin_summary(experiment: Experiment, **labels: Any) -> dict[str, Any]:
    """Write the ``summary.json`` of a run that begins; return its content.

    The run is of a task set; ``labels`` are what it is called: ``method``, ``overrides``. Its JSON
    is of that method, too. Without evaluations in a file, ``evaluations`` is None; without any
    evaluation, and so without a best policy, ``absolute_episodes`` is, too.
    """
    config, task, writer = experiment.config, experiment.task, experiment.logger.json_writer
    # BenchMARL skips evaluations that nothing would record, without a word.
    evaluates = config.evaluation and (writer is not None or len(config.loggers) > 0)
    absolute = task.config["final_episodes"] or 10 * config.evaluation_episodes
    if writer is not None:
        # BenchMARL writes to this one from now on; its own calls all variants of a method the same.
        experiment.logger.json_writer = writer = AtomicJsonWriter(writer)
        writer.rename(labels["method"])
    summary = {
        "format": FORMAT,
        **labels,
        "set": f"{task.env_name()}/{task.set_name.lower()}",
        "algorithm": experiment.algorithm_name,
        "seed": experiment.seed,
        "finished": False,
        "max_frames": config.get_max_n_frames(experiment.on_policy),
        "evaluations": f"{experiment.name}.json" if evaluates and writer else None,
        "averaged_weights": getattr(experiment.algorithm, "averaged_weights", None) is not None,
        "final_episodes": task.final_episodes,
        "absolute_episodes": absolute if evaluates else None,
        "versions": {"benchmarl-mkt": version("benchmarl-mkt"), **versions()},
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

    Returns the completed ``summary``, that of :func:`begin_summary`, as it is written.
    The best policy of the run, if any was kept, is scored on other episodes, by default ten times
    those of an evaluation: the absolute metric of the marl-eval protocol (Gorsane et al.
    2022, https://arxiv.org/abs/2209.10485), which also replaces the one in the run's JSON.

    The team that was scored, the best one if any was kept, is written into ``folder``.
    ``seconds`` are those of training, evaluations included; ``machine`` is the one it ended on.
    """
    teachers, teams = getattr(experiment.algorithm, "teachers", {}), teams_of(experiment)
    best, outputs = best or BestPolicy(), Outputs()
    kept = best.best
    policies = {
        "random": random_policy(teams),
        "student": greedy_policy(teams, outputs if kept is None else None),
    }
    if teachers:
        policies["teacher"] = greedy_policy(teachers)
    with stage_of(experiment) as env:
        final = summary["final_episodes"], _SEED + experiment.seed
        played = {who: play_on(env, policy, *final) for who, policy in policies.items()}
        with best.in_use():
            if kept is not None:
                absolute = summary["absolute_episodes"], _ABSOLUTE_SEED + experiment.seed
                played["best"] = play_on(env, greedy_policy(teams, outputs), *absolute)
                summary["best_at_frames"] = kept.frames
                _write_absolute_metrics(experiment, played["best"])
            if folder is not None:
                scored = played["student" if kept is None else "best"]
                scores = {
                    task: {
                        "score": scored.score(task).described,
                        "random": played["random"].score(task).described,
                        "temperature": outputs.temperature(task, team.kind),
                    }
                    for task, team in teams.items()
                }
                export_team(experiment, folder, scores)
    summary["tasks"] = {task: _row(experiment, task, played) for task in teams}
    # BenchMARL's own sum; a checkpoint has it, so it is of all parts of a resumed run.
    summary["seconds"] = round(float(experiment.total_time), 1)
    summary["machine"] = machine_of(experiment)
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
        student, teacher = played["student"], played["teacher"]
        # In the same episodes: neither interval alone shows who is ahead.
        differences = student.returns[task] - teacher.returns[task]
        row["lead"] = mean_interval(differences.numpy())._asdict()
        if task in student.won:
            pair = (players.won[task].numpy() for players in (student, teacher))
            row["lead" + WIN_RATE] = rate_lead(*pair)._asdict()
        row["teacher_frames"] = algorithm.teachers[task].metadata["frames"]
        row["temperature"] = algorithm.temperatures[task]
        score = normalised_score(*(row[who]["mean"] for who in ("student", "random", "teacher")))
        row["score"] = score if isfinite(score) else None
    return row


def _write(experiment: Experiment, summary: dict[str, Any]) -> dict[str, Any]:
    path = Path(experiment.folder_name) / "summary.json"
    path.write_text(json.dumps(summary, indent=2) + "\n")
    return summary
