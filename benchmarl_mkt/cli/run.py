"""``benchmarl run``: one experiment, its missing teachers first, a comparison at its end."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarl_mkt.cli.common import make_console, stops, user_errors
from benchmarl_mkt.cli.composed import Job, with_hydra

if TYPE_CHECKING:
    from benchmarl_mkt.configuration.plan import Plan

SUMMARY = "run an experiment; with algorithm=mkt, train missing teachers first and compare"
HELP = """Usage: benchmarl run OVERRIDES ...

Run an experiment of BenchMARL's. With algorithm=mkt, train the teachers that are missing first and
show at the end who won. OVERRIDES are Hydra's, as for python -m benchmarl.run; its flags work, too
(--cfg job shows the whole configuration and runs nothing).

Examples:
  benchmarl run algorithm=mkt task=multitask/mpe
  benchmarl run algorithm=qmix task=multitask/mpe model=multitask experiment=mkt_quick
  benchmarl run algorithm=mkt algorithm.mixer=vdn task=multitask/custom \\
      'task.tasks=[vmas/navigation,vmas/balance]'
"""


def main(arguments: list[str]) -> None:
    """Run with Hydra's overrides and flags."""
    with_hydra("run", arguments, run)


def run(job: Job) -> None:
    """Run what the configuration asks for; finished runs are not run again."""
    from benchmarl_mkt import resume
    from benchmarl_mkt.configuration.plan import check
    from benchmarl_mkt.resume.record import open_run

    _use_one_thread()
    console, folder, plan = make_console(), job.folder, job.plan
    with stops(f"continue with: {job.again}"), contextlib.ExitStack() as stack:
        with user_errors():
            check(plan)
            opened = open_run(folder, job.overrides, job.config, _run_name(plan))
            record = stack.enter_context(opened)
        results = Path(plan.experiment.save_folder or folder) / record.name
        if record.finished:
            console.print(f"Finished already: {folder}", soft_wrap=True)
        else:
            _train(plan, results, _labels(job), console)
            record.finish(folder)
        resume.forget(results)


def _use_one_thread() -> None:
    """Let torch compute on one thread, unless the environment says how many.

    The networks are small: more threads gain little on idle cores, and on busy ones every step
    waits for the slowest. Sums also round the same way on every machine.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def _run_name(plan: Plan) -> str:
    """Name a new run's folder as BenchMARL does."""
    from torchrl.record.loggers import generate_exp_name

    parts = (plan.algorithm, plan.model)
    algorithm, model = (part.associated_class().__name__.lower() for part in parts)
    return generate_exp_name(f"{algorithm}_{plan.task.name.lower()}_{model}", "")


def _train(plan: Plan, folder: Path, labels: dict, console) -> None:
    """Train missing teachers and run the experiment, from where it was stopped; then report."""
    from benchmarl.experiment import Experiment

    from benchmarl_mkt import resume
    from benchmarl_mkt.best_policy import BestPolicy
    from benchmarl_mkt.callbacks import standard_callbacks
    from benchmarl_mkt.configuration.rehearsal import setting_up
    from benchmarl_mkt.environments import MultiTaskClass
    from benchmarl_mkt.reporting.summary import describe, summarise
    from benchmarl_mkt.teachers.ensure import ensure_teachers
    from benchmarl_mkt.teams import FOLDER, export_team

    if plan.wants_teachers:
        ensure_teachers(plan.algorithm, plan.task, console)
    best, config = BestPolicy(), plan.experiment
    if config.restore_file is None:
        config = replace(config, restore_file=resume.in_folder(folder))
    parts = (plan.task, plan.algorithm, plan.model, plan.seed, config, plan.critic_model)
    with user_errors(), setting_up("experiment"):
        experiment = Experiment(*parts, callbacks=[best, *standard_callbacks()])
    is_set = isinstance(plan.task, MultiTaskClass)
    if is_set:
        summary = describe(experiment, **labels)
        if summary["absolute_episodes"] is None:
            console.print(
                "No evaluations, so no best checkpoint: experiment.evaluation is false, or neither "
                "experiment.loggers nor experiment.create_json keeps them",
                soft_wrap=True,
            )
    resume.run(experiment)
    console.print(f"Results: {experiment.folder_name}", soft_wrap=True)
    if is_set:
        _show(summarise(experiment, summary, best), Path(experiment.folder_name), console)
        with best.in_use():
            team = export_team(experiment, Path(experiment.folder_name) / FOLDER)
        what = "final policy" if best.best is None else "best checkpoint"
        console.print(f"Team of the {what}: {team}", soft_wrap=True)


def _labels(job: Job) -> dict[str, object]:
    """What a run is called in reports: its method is the configuration group's choice."""
    choices = job.config["choices"]
    single = "_single" * bool(job.plan.task.config.get("only"))
    method = choices.get("method", choices["algorithm"]) + single
    return {"set": job.plan.name, "method": method, "overrides": job.overrides}


def _show(summary: dict, folder: Path, console) -> None:
    from benchmarl_mkt.reporting.plots import plot_learning_curves
    from benchmarl_mkt.reporting.tables import comparison_table

    console.print(comparison_table(summary))
    if summary["evaluations"] is not None:
        curves = folder / summary["evaluations"]
        picture = plot_learning_curves(curves, summary, folder / "learning_curves.png")
        console.print(f"Picture: {picture}")
