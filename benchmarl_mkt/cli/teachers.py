"""``benchmarl teachers``: train or import teachers, and look at those in the store."""

from __future__ import annotations

import shlex
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarl_mkt.cli.common import Verb, make_console, stops, user_errors
from benchmarl_mkt.cli.jobs import Job, as_override, nothing_left, with_hydra

if TYPE_CHECKING:
    from benchmarl_mkt.teachers.imports import Expert


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("action", choices=("train", "import", "list", "show", "verify"))
    parser.add_argument("teachers", nargs="*", metavar="TEACHER")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="of import; default: the store")


def _main(options: Namespace) -> None:
    if options.action == "train":
        with_hydra("teachers train", options.overrides, _train)
        return
    import benchmarl_mkt

    benchmarl_mkt.register()
    names = options.teachers
    if options.action == "import":
        _import(names, options.out)
        return
    if options.out is not None:
        raise ValueError(f"teachers: {options.action} writes nothing; leave out --out")
    if (options.action == "show") != (len(names) == 1) and options.action != "verify":
        raise ValueError(f"teachers: {' '.join([options.action, *names])!r} given; show names one")
    paths = [_folder(name) for name in names]
    if options.action == "list":
        _list()
    elif options.action == "show":
        _show(*paths)
    else:
        _verify(paths)


def _train(job: Job) -> None:
    from benchmarl_mkt.algorithms import MktConfig
    from benchmarl_mkt.teachers.ensure import ensure_teachers

    with user_errors(), nothing_left(job.folder):
        if not isinstance(job.algorithm_config, MktConfig):
            raise ValueError("algorithm: teachers are trained for algorithm=mkt")
        settings = job.algorithm_config.teacher_settings
        with stops("continue with the same command"):
            ensure_teachers(settings, job.task, make_console())
    _list(settings.store)


def _import(arguments: list[str], out: Path | None) -> None:
    from benchmarl_mkt.teachers.imports import store_expert

    overrides = [argument for argument in arguments if "=" in argument]
    sources = [argument for argument in arguments if argument not in overrides]
    if len(sources) != 1:
        raise ValueError(f"teachers: import takes one expert, not {sources}")
    expert = read_expert(sources[0], overrides)
    path, (task,) = store_expert(expert, out), expert.metadata["task"]["tasks"]
    show_scores([path])
    entry, teachers = as_override([task_entry(task)]), as_override({task["name"]: str(path)})
    teach = shlex.join([f"task.tasks={entry}", f"algorithm.teachers={teachers}"])
    make_console().print(
        f"Expert: {path}\nTo teach: {teach}",
        soft_wrap=True,
        markup=False,
    )


def read_expert(source: str, overrides: list[str]) -> Expert:
    """Read an expert that can be imported.

    Args:
        source: a run's folder, a checkpoint or an ONNX file.
        overrides: Hydra's, where the source does not say what it is; of an ONNX file ``task``,
            ``task.KEY``, ``inputs``, ``outputs`` and ``states``.

    Raises:
        ValueError: if it cannot be imported.
    """
    from benchmarl_mkt.cli.jobs import composed
    from benchmarl_mkt.quiet import quiet
    from benchmarl_mkt.teachers.imports import RunSettings, read_run

    quiet()
    values = dict(override.split("=", 1) for override in overrides)
    if source.endswith(".onnx"):
        return _read_onnx(source, values)
    settings = None if set(values) <= {"task"} else RunSettings(*composed(overrides))
    return read_run(source, settings, values.get("task"))


def _read_onnx(source: str, given: dict[str, str]) -> Expert:
    import yaml

    from benchmarl_mkt.teachers.imports import RunSettings, read_onnx

    try:
        values = {key: yaml.safe_load(text) for key, text in given.items()}
    except yaml.YAMLError as error:
        raise ValueError(f"teachers: {' '.join(str(error).split()):.200}") from error
    names = {key: values.pop(key, {}) for key in ("inputs", "outputs", "states")}
    task = values.pop("task", None)
    unknown = [key for key in values if not key.startswith("task.")]
    if task is None or unknown:
        raise ValueError(
            f"teachers: import of an ONNX file needs task=ENVIRONMENT/TASK and takes task.KEY, "
            f"inputs, outputs and states{f', not {unknown[0]}' if unknown else ''}"
        )
    for key, value in names.items():
        if not isinstance(value, dict):
            raise ValueError(f"{key}: {value!r} must be a mapping, such as {{observation: obs}}")
    config = {key.removeprefix("task."): value for key, value in values.items()}
    settings = RunSettings({"task": task}, {"task": config})
    return read_onnx(source, settings, **names)


def task_entry(task: dict[str, Any]) -> Any:
    """A task as a set names it, without what is the default."""
    keys = ("task", "name", "config", "opponents")
    entry = {key: task[key] for key in keys if task.get(key)}
    if entry["name"] == entry["task"].split("/")[-1]:
        del entry["name"]
    return entry if len(entry) > 1 else entry["task"]


def _list(root: str | None = None) -> None:
    from benchmarl_mkt.teachers import TeacherStore

    store = TeacherStore(root)
    show_scores(store.entries())
    make_console().print(f"Store: {store.root}")


def show_scores(paths: list[Path]) -> None:
    """Print a table of teachers: how they were made, and how they play."""
    from rich.table import Table

    from benchmarl_mkt.teachers import load_teacher

    table = Table("teacher", "algorithm", "seed", "frames", "return", "95% CI", "random")
    for path in paths:
        try:
            data = load_teacher(path).metadata
        except (ValueError, ImportError) as error:
            why = "damaged" if isinstance(error, ValueError) else "needs benchmarl-mkt[onnx]"
            table.add_row(path.name, why, *["-"] * 5)
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
    make_console().print(table)


def _folder(name: str) -> Path:
    """The folder that ``name`` means: a teacher in the store, or a path.

    Raises:
        ValueError: if it means none or several.
    """
    from benchmarl_mkt.teachers import TeacherStore

    store, folder = TeacherStore(), Path(name).expanduser()
    if folder.name != name or folder.is_dir():
        return folder
    paths = [path for path in store.entries() if path.name.startswith(name)]
    exact = [path for path in paths if path.name == name] or paths
    if len(exact) != 1:
        names = ", ".join(path.name for path in paths) or "nothing"
        raise ValueError(
            f"teachers: {name!r} means {names} in {store.root}; see benchmarl teachers list"
        )
    return exact[0]


def _show(path: Path) -> None:
    from rich.table import Table

    from benchmarl_mkt.teachers import load_teacher

    data = load_teacher(path).metadata
    (task,) = data["task"]["tasks"]
    rows = {
        "folder": path,
        "task": task["task"],
        "team": ", ".join(f"{key} {value}" for key, value in data["specs"].items()),
        "opponents": task.get("opponents") or "-",
        **({"imported": _origin(data["expert"])} if "expert" in data else {}),
        "algorithm": f"{data['algorithm']}, seed {data['seed']}, {data['frames']:,} frames",
        "network": data["model"],
        "outputs": data["kind"],
        "temperature": f"{data['temperature']:.4g}",
        "score": _interval(data["score"]),
        "random": _interval(data["random"]),
        "versions": ", ".join(f"{key} {value}" for key, value in data["versions"].items()),
        "checksum": data["checksum"],
    }
    table = Table("", path.name, show_header=True)
    for key, value in rows.items():
        table.add_row(key, str(value))
    make_console().print(table)


def _origin(expert: dict[str, Any]) -> str:
    groups = ", ".join(f"{group['n_agents']} of {group['name']}" for group in expert["groups"])
    return f"{expert['source']} ({groups or 'ONNX'}; SHA-256 {expert['sha256']})"


def _interval(score: dict[str, Any]) -> str:
    episodes = f", {score['episodes']} episodes" if "episodes" in score else ""
    return f"{score['mean']:.2f} [{score['low']:.2f}, {score['high']:.2f}]{episodes}"


def _verify(paths: list[Path]) -> None:
    from benchmarl_mkt.teachers import TeacherStore, load_teacher

    store, console, damaged = TeacherStore(), make_console(), 0
    paths = paths or store.entries()
    for path in paths:
        try:
            load_teacher(path)
        except (ValueError, ImportError) as error:
            damaged += 1
            console.print(f"damaged  {path.name}: {error}", soft_wrap=True, markup=False)
        else:
            console.print(f"intact   {path.name}", soft_wrap=True, markup=False)
    console.print(f"{len(paths) - damaged} intact, {damaged} damaged; store: {store.root}")
    if damaged:
        sys.exit(1)


TEACHERS = Verb(
    "train, import, list, show or verify teachers",
    """Train or import teachers, or look at those in the store.

  train    train the teachers that a run with the same (Hydra's) overrides would need
  import   take the policy of a run of python -m benchmarl.run on a task with discrete actions
           (folder or checkpoint file), play 100 episodes with it and store it; a run without
           Hydra's record needs its overrides: algorithm=mappo task=vmas/balance. Or take a file
           FILE.onnx task=vmas/balance; inputs={observation: NAME}, outputs={logits: NAME} and
           states={INPUT: OUTPUT} say what is what where names do not
  list     show the teachers in the store, $BENCHMARL_MKT_STORE or the user's cache
  show     show what a teacher was trained on and how, and its score
  verify   read whole teachers (all of the store, if none is named) and compare their checksums;
           exit status 1 if one is damaged

TEACHER is a name in the store, as list shows it, the beginning of one, or a folder.""",
    """  benchmarl teachers train algorithm=mkt task=multitask/mpe
  benchmarl teachers import outputs/2026-01-31/12-00-00
  benchmarl teachers show mpe-simple-push""",
    _options,
    _main,
)
