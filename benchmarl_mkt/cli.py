"""The ``benchmarl`` command."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

USAGE = """Usage: benchmarl COMMAND [OVERRIDES ...]

Commands:
  run               run an experiment; with algorithm=mkt, train missing teachers first and compare
  resume FOLDER     go on with the run that was stopped in FOLDER (its hydra.run.dir)
  evaluate          play fresh episodes with a run's best team: checkpoint=FOLDER [episodes=100]
                    [seed=0]
  teachers train    train the teachers that a run with the same overrides would need
  teachers list     show the teachers in the store
  report RESULTS    write tables and pictures of the runs below folders; see report --help

OVERRIDES are Hydra's, as for python -m benchmarl.run. Examples:
  benchmarl run algorithm=mkt task=multitask/mpe
  benchmarl run algorithm=qmix task=multitask/mpe model=multitask experiment=mkt_quick
  benchmarl run algorithm=mkt algorithm.mixer=vdn task=multitask/custom \\
      'task.tasks=[vmas/navigation,vmas/balance]'
"""


def main(arguments: list[str] | None = None) -> None:
    """Run a command of :data:`USAGE`; exits with 2 if the input is wrong."""
    arguments = sys.argv[1:] if arguments is None else arguments
    match arguments:
        case [] | ["-h" | "--help", *_]:
            sys.stdout.write(USAGE)
        case ["run", *overrides]:
            _with_hydra("run", overrides, _run)
        case ["resume", folder]:
            _resume(Path(folder).resolve())
        case ["evaluate", *options]:
            _evaluate(options)
        case ["teachers", "train", *overrides]:
            _with_hydra("teachers train", overrides, _train_teachers)
        case ["teachers", "list"]:
            _list_teachers()
        case ["report", *rest]:
            _report(rest)
        case _:
            with _user_errors():
                raise ValueError(f"command: {' '.join(arguments)!r} is unknown; see benchmarl -h")


def _with_hydra(command: str, overrides: list[str], job: Callable) -> None:
    """Compose BenchMARL's configuration with ``overrides`` and call ``job(cfg)``."""
    from benchmarl_mkt.configuration.composition import (
        benchmarl_conf,
        check_classes,
        check_keys,
        composed,
        jobs,
    )
    from benchmarl_mkt.paths import check_writable

    chosen = {override.split("=")[0].lstrip("+~"): override for override in overrides}
    if chosen.get("algorithm", "").startswith("algorithm=mkt"):
        for group in ("model", "model@critic_model"):
            if group not in chosen:
                overrides = [f"{group}=multitask", *overrides]  # Hydra's flags may come last
    with _user_errors():
        for key in ("hydra.run.dir", "hydra.sweep.dir"):
            check_writable(key, Path(chosen.get(key, "=.").partition("=")[2].strip("'\"")))
        for one in (planned := jobs(overrides)):
            check_keys(one)

        import hydra

        from benchmarl_mkt.configuration.plan import check, plan, rehearsed
        from benchmarl_mkt.quiet import quiet

        quiet()
        for one in planned:
            with composed(one) as cfg:
                if command == "resume":  # what it was told comes from a file
                    check_classes(cfg)
                run = plan(cfg)
                if len(planned) == 1:  # the jobs of a sweep are checked in their turn
                    check(run, for_teachers=command == "teachers train")
                    if command != "resume":  # which has begun already
                        rehearsed(run)
    sys.argv = [f"benchmarl {command}", *overrides]
    hydra.main(version_base=None, config_path=str(benchmarl_conf()), config_name="config")(job)()


def _resume(folder: Path) -> None:
    from benchmarl_mkt.resume.record import read_run

    with _user_errors():
        record = read_run(folder)
    escaped = str(folder).replace("'", "\\'")
    _with_hydra("resume", [*record.overrides, f"hydra.run.dir='{escaped}'"], _run)


@contextlib.contextmanager
def _user_errors() -> Iterator[None]:
    """Turn errors of the input into one line and exit status 2."""
    try:
        yield
    except (ValueError, ImportError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).splitlines())}\n")
        sys.exit(2)


@contextlib.contextmanager
def _stops(remedy: str) -> Iterator[None]:
    """Turn what stops a training, signals included, into one line that ends with ``remedy``."""
    from benchmarl_mkt.guards import TrainingError
    from benchmarl_mkt.resume.signals import Stopped, stop_signals

    try:
        with stop_signals():
            yield
    except Stopped:
        sys.stderr.write(f"Stopped; {remedy}\n")
        raise
    except TrainingError as error:
        sys.stderr.write(f"error: {error}; {remedy}\n")
        sys.exit(1)
    except OSError as error:
        sys.stderr.write(f"error: {error}; what was saved before is intact; {remedy}\n")
        sys.exit(1)


def _console():
    """Return the console; a pipe or file is wide enough for the tables."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=130)


def _task_and_algorithm(cfg, for_teachers: bool = False):
    """Build task and algorithm configuration from Hydra's, checked against each other."""
    from benchmarl_mkt.configuration.plan import check, plan

    run = plan(cfg)
    check(run, for_teachers)
    return run.name, run.task, run.algorithm


def _run(cfg) -> None:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    import benchmarl_mkt
    from benchmarl_mkt import resume
    from benchmarl_mkt.resume.record import open_run

    benchmarl_mkt.register()  # a sweep's launcher may run this in a new process
    console, hydra = _console(), HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    choices = {k: v for k, v in hydra.runtime.choices.items() if not k.startswith("hydra/")}
    config = {"choices": choices, **OmegaConf.to_container(cfg, resolve=True)}
    with _stops(f"continue with: benchmarl resume {folder}"), contextlib.ExitStack() as stack:
        with _user_errors():
            name, task, algorithm = _task_and_algorithm(cfg)
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
    from benchmarl_mkt.environments import MultiTaskClass
    from benchmarl_mkt.guards import GuardCallback
    from benchmarl_mkt.reporting.summary import describe, summarise
    from benchmarl_mkt.teachers.ensure import ensure_teachers
    from benchmarl_mkt.teams import FOLDER, export_team

    if isinstance(algorithm, MktConfig) and algorithm.uses_teacher:
        ensure_teachers(algorithm, task, console)
    best = BestPolicy()
    if cfg.experiment.restore_file is None:
        cfg.experiment.restore_file = resume.in_folder(folder)
    with _user_errors():
        experiment = load_experiment_from_hydra(
            cfg, name, callbacks=[best, resume.ResumeCallback(), GuardCallback()]
        )
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


def _evaluate(options: list[str]) -> None:
    """Score the team in a run's folder against random play, on the same fresh episodes."""
    from rich.table import Table

    import benchmarl_mkt

    given = dict(option.split("=", 1) for option in options if "=" in option)
    known = {"checkpoint", "episodes", "seed"}
    with _user_errors():
        if len(given) < len(options) or set(given) - known or "checkpoint" not in given:
            raise ValueError(
                f"evaluate: {' '.join(options) or 'nothing'!r} given; usage: benchmarl evaluate "
                "checkpoint=FOLDER [episodes=100] [seed=0]"
            )
        numbers = {"episodes": _whole(given, "episodes", 100, 1), "seed": _whole(given, "seed", 0)}
        benchmarl_mkt.register()
        from benchmarl_mkt.teams import evaluate_team, load_team

        found = evaluate_team(load_team(given["checkpoint"]), **numbers)
    from benchmarl_mkt.reporting.tables import plus_minus

    table = Table("task", "team", "random", title=f"Greedy returns of {given['checkpoint']}")
    for task, row in found.items():
        table.add_row(task, plus_minus(row["team"]), plus_minus(row["random"]))
    table.caption = f"Mean and 95% interval over the same {numbers['episodes']} fresh episodes."
    _console().print(table)


def _whole(given: dict[str, str], key: str, default: int, least: int = 0) -> int:
    """Read a whole number that is at least ``least`` and below 2**32."""
    text = given.get(key, str(default))
    if not text.isdecimal() or not least <= int(text) < 2**32:
        raise ValueError(f"{key}: {text!r} must be a whole number from {least} to 2**32 - 1")
    return int(text)


def _train_teachers(cfg) -> None:
    from benchmarl_mkt.teachers.ensure import ensure_teachers

    with _user_errors():
        _, task, algorithm = _task_and_algorithm(cfg, for_teachers=True)
    with _stops("continue with the same command"):
        ensure_teachers(algorithm, task, _console())
    _list_teachers(algorithm.teacher_store)


def _report(arguments: list[str]) -> None:
    from benchmarl_mkt.reporting.report import main as report

    with _user_errors():
        report(arguments, _console())


def _list_teachers(root: str | None = None) -> None:
    from rich.table import Table

    import benchmarl_mkt
    from benchmarl_mkt.teachers import TeacherStore, load_teacher

    benchmarl_mkt.register()
    table = Table("teacher", "algorithm", "seed", "frames", "return", "95% CI", "random")
    store = TeacherStore(root)
    for path in store.entries():
        try:
            data = load_teacher(path).metadata
        except ValueError:
            table.add_row(path.name, "damaged", *["-"] * 5)
            continue
        score = data["score"]
        table.add_row(
            path.name,
            data["algorithm"],
            str(data["seed"]),
            f"{data['frames']:,}",
            f"{score['mean']:.2f}",
            f"[{score['low']:.2f}, {score['high']:.2f}]",
            f"{data['random']['mean']:.2f}",
        )
    console = _console()
    console.print(table)
    console.print(f"Store: {store.root}")


if __name__ == "__main__":
    main()
