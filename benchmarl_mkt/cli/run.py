"""``benchmarl run``: one experiment, its missing teachers first, a comparison at its end."""

from __future__ import annotations

import contextlib
import os
import shutil
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarl_mkt.cli.common import Verb, make_console, stops, user_errors
from benchmarl_mkt.cli.jobs import Job, nothing_left, with_hydra

if TYPE_CHECKING:
    from benchmarl.experiment import Callback, Experiment
    from rich.console import Console

    from benchmarl_mkt.training.best_policy import BestPolicy


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE")


def _main(options: Namespace) -> None:
    with_hydra("run", options.overrides, run)


def run(job: Job) -> None:
    """Run what the configuration asks for; finished runs are not run again."""
    import torch

    from benchmarl_mkt.cli.settings import check_loggers
    from benchmarl_mkt.teachers.ensure import ensure_teachers
    from benchmarl_mkt.teachers.find import MissingTeachers
    from benchmarl_mkt.training import resume
    from benchmarl_mkt.training.best_policy import BestPolicy
    from benchmarl_mkt.training.machine import LearnerThreads, keep_memory, threads_for
    from benchmarl_mkt.training.resume.record import RECORD, open_run

    chosen = None  # how many threads the user wants
    if "OMP_NUM_THREADS" in os.environ:
        chosen = torch.get_num_threads()
    torch.set_num_threads(1)
    keep_memory()
    console, folder, best, threads = make_console(), job.folder, BestPolicy(), LearnerThreads()
    known = (folder / RECORD).exists()
    with stops(f"continue with: {job.again}"), contextlib.ExitStack() as stack:
        with user_errors(), nothing_left(folder, known):
            check_loggers(job.config)
            opened = open_run(folder, job.overrides, job.record, _run_name(job))
            record = stack.enter_context(opened)
            results = Path(job.config.save_folder or folder) / record.name
            if not record.finished:
                try:
                    experiment = _set_up(job, results, [best, threads])
                except MissingTeachers:
                    ensure_teachers(job.algorithm_config.teacher_settings, job.task, console)
                    experiment = _set_up(job, results, [best, threads])
        if record.finished:
            console.print(f"Finished already: {folder}", soft_wrap=True)
        else:
            fitting = threads_for(experiment) if job.alone else 1
            threads.count = record.threads or chosen or fitting
            record = record.note(folder, threads=threads.count)
            _train(job, experiment, best, console)
            record.note(folder, finished=True)
        resume.forget(results)


def _run_name(job: Job) -> str:
    """Name a new run's folder as BenchMARL does."""
    from torchrl.record.loggers import generate_exp_name

    parts = (job.algorithm_config, job.model_config)
    algorithm, model = (part.associated_class().__name__.lower() for part in parts)
    return generate_exp_name(f"{algorithm}_{job.task.name.lower()}_{model}", "")


def _train(job: Job, experiment: Experiment, best: BestPolicy, console: Console) -> None:
    """Run the experiment from where it was stopped; then report."""
    from benchmarl_mkt.environments import MultiTaskClass
    from benchmarl_mkt.training import resume
    from benchmarl_mkt.training.summary import begin_summary

    if not isinstance(job.task, MultiTaskClass):
        resume.run(experiment)
        console.print(f"Results: {experiment.folder_name}", soft_wrap=True)
        return
    summary = begin_summary(experiment, **_labels(job))
    if summary["absolute_episodes"] is None:
        console.print(
            "No evaluations, so no best checkpoint: experiment.evaluation is false, or neither "
            "experiment.loggers nor experiment.create_json keeps them",
            soft_wrap=True,
        )
    resume.run(experiment)
    console.print(f"Results: {experiment.folder_name}", soft_wrap=True)
    _report(experiment, summary, best, console)


def _set_up(job: Job, folder: Path, callbacks: list[Callback]) -> Experiment:
    """Build the experiment whose results lie in ``folder``; a new folder goes if that fails."""
    from benchmarl.experiment import Experiment

    from benchmarl_mkt.training import resume, standard_callbacks
    from benchmarl_mkt.training.forecast import Forecast
    from benchmarl_mkt.training.monitors import setting_up

    config, is_new = job.config, not folder.exists()
    if config.restore_file is None:
        config = replace(config, restore_file=resume.in_folder(folder))
    try:
        with setting_up("experiment"):
            return Experiment(
                job.task,
                job.algorithm_config,
                job.model_config,
                job.seed,
                config,
                job.critic_model_config,
                callbacks=[*callbacks, *standard_callbacks(), Forecast()],
            )
    except BaseException:
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _labels(job: Job) -> dict[str, Any]:
    """What a run is called in reports: its method is the configuration group's choice."""
    choices = job.record["choices"]
    method = choices.get("method", choices["algorithm"])
    if job.task.config.get("only"):
        method += "_single"
    return {"method": method, "overrides": job.overrides}


def _report(
    experiment: Experiment, summary: dict[str, Any], best: BestPolicy, console: Console
) -> None:
    """Compare who has played, draw the curves, leave the team."""
    from benchmarl_mkt.reporting.plots import plot_learning_curves
    from benchmarl_mkt.reporting.tables import comparison_table
    from benchmarl_mkt.teams import FOLDER
    from benchmarl_mkt.training.summary import summarise

    folder = Path(experiment.folder_name)
    summary = summarise(experiment, summary, best, folder / FOLDER)
    console.print(comparison_table(summary))
    if summary["evaluations"] is not None:
        curves = folder / summary["evaluations"]
        picture = plot_learning_curves(curves, summary, folder / "learning_curves.png")
        console.print(f"Picture: {picture}")
    what = "final policy" if best.best is None else "best checkpoint"
    console.print(f"Team of the {what}: {folder / FOLDER}", soft_wrap=True)


RUN = Verb(
    "run an experiment; with algorithm=mkt, train missing teachers first and compare",
    """Run an experiment of BenchMARL's. With algorithm=mkt, train the teachers that are missing
first and show at the end who won. OVERRIDES are Hydra's, as for python -m benchmarl.run; its flags
work, too (--cfg job shows the whole configuration and runs nothing).""",
    """  benchmarl run algorithm=mkt task=multitask/mpe
  benchmarl run algorithm=qmix task=multitask/mpe model=multitask experiment=mkt_quick
  benchmarl run algorithm=mkt algorithm.mixer=vdn task=multitask/custom \\
      'task.tasks=[vmas/navigation,vmas/balance]'""",
    _options,
    _main,
)
