"""``benchmarl run``: one experiment, its missing teachers first, a comparison at its end."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from benchmarl_mkt.cli.common import make_console, stops, user_errors
from benchmarl_mkt.cli.composed import task_and_algorithm, with_hydra

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


def main(overrides: list[str]) -> None:
    """Run with Hydra's overrides."""
    with_hydra("run", overrides, run)


def run(cfg) -> None:
    """Run what the composed configuration asks for; finished runs are not run again."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    import benchmarl_mkt
    from benchmarl_mkt import resume
    from benchmarl_mkt.resume.record import open_run

    benchmarl_mkt.register()  # a sweep's launcher may run this in a new process
    _use_one_thread()
    console, hydra = make_console(), HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    choices = {k: v for k, v in hydra.runtime.choices.items() if not k.startswith("hydra/")}
    config = {"choices": choices, **OmegaConf.to_container(cfg, resolve=True)}
    with stops(f"continue with: benchmarl resume {folder}"), contextlib.ExitStack() as stack:
        with user_errors():
            name, task, algorithm = task_and_algorithm(cfg)
            run_name = _run_name(cfg, task, algorithm)
            opened = open_run(folder, list(hydra.overrides.task), config, run_name)
            record = stack.enter_context(opened)
        results = Path(cfg.experiment.save_folder or folder) / record.name
        if record.finished:
            console.print(f"Finished already: {folder}", soft_wrap=True)
        else:
            _train(cfg, name, task, algorithm, results, console)
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


def _run_name(cfg, task, algorithm) -> str:
    """Name a new run's folder as BenchMARL does."""
    from benchmarl.hydra_config import load_model_config_from_hydra
    from torchrl.record.loggers import generate_exp_name

    parts = (algorithm, load_model_config_from_hydra(cfg.model))
    algorithm_name, model = (part.associated_class().__name__.lower() for part in parts)
    return generate_exp_name(f"{algorithm_name}_{task.name.lower()}_{model}", "")


def _train(cfg, name: str, task, algorithm, folder: Path, console) -> None:
    """Train missing teachers and run the experiment, from where it was stopped; then report."""
    from benchmarl.hydra_config import load_experiment_from_hydra

    from benchmarl_mkt import resume
    from benchmarl_mkt.algorithms import MktConfig
    from benchmarl_mkt.best_policy import BestPolicy
    from benchmarl_mkt.callbacks import standard_callbacks
    from benchmarl_mkt.environments import MultiTaskClass
    from benchmarl_mkt.reporting.summary import describe, summarise
    from benchmarl_mkt.teachers.ensure import ensure_teachers
    from benchmarl_mkt.teams import FOLDER, export_team

    if isinstance(algorithm, MktConfig) and algorithm.uses_teacher:
        ensure_teachers(algorithm, task, console)
    best = BestPolicy()
    if cfg.experiment.restore_file is None:
        cfg.experiment.restore_file = resume.in_folder(folder)
    with user_errors():
        callbacks = [best, *standard_callbacks()]
        experiment = load_experiment_from_hydra(cfg, name, callbacks=callbacks)
    is_set = isinstance(task, MultiTaskClass)
    if is_set:
        summary = describe(experiment, **_labels(name, task))
    resume.run(experiment)
    console.print(f"Results: {experiment.folder_name}", soft_wrap=True)
    if is_set:
        _show(summarise(experiment, summary, best), Path(experiment.folder_name), console)
        with best.in_use():
            team = export_team(experiment, Path(experiment.folder_name) / FOLDER)
        console.print(f"Team of the best checkpoint: {team}", soft_wrap=True)


def _labels(name: str, task) -> dict[str, object]:
    """What a run is called in reports: its method is the configuration group's choice."""
    from hydra.core.hydra_config import HydraConfig

    config = HydraConfig.get()
    choices = config.runtime.choices
    return {
        "set": name,
        "method": choices.get("method", choices.algorithm) + "_single" * bool(task.config["only"]),
        "overrides": list(config.overrides.task),
    }


def _show(summary: dict, folder: Path, console) -> None:
    from benchmarl_mkt.reporting.plots import plot_learning_curves
    from benchmarl_mkt.reporting.tables import comparison_table

    console.print(comparison_table(summary))
    curves = folder / summary["evaluations"]
    if curves.is_file():
        picture = plot_learning_curves(curves, summary, folder / "learning_curves.png")
        console.print(f"Picture: {picture}")
