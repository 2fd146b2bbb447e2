"""``benchmarl teachers``: train teachers, and look at those in the store."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from benchmarl_mkt.cli.common import Verb, make_console, stops, user_errors
from benchmarl_mkt.cli.jobs import Job, nothing_left, with_hydra


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("action", choices=("train", "list", "show", "verify"))
    parser.add_argument("teachers", nargs="*", metavar="TEACHER")


def _main(options: Namespace) -> None:
    if options.action == "train":
        with_hydra("teachers train", options.overrides, _train)
        return
    import benchmarl_mkt

    benchmarl_mkt.register()
    names = options.teachers
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


def _list(root: str | None = None) -> None:
    from rich.table import Table

    from benchmarl_mkt.teachers import TeacherStore, load_teacher

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
    console = make_console()
    console.print(table)
    console.print(f"Store: {store.root}")


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
        except ValueError as error:
            damaged += 1
            console.print(f"damaged  {path.name}: {error}", soft_wrap=True, markup=False)
        else:
            console.print(f"intact   {path.name}", soft_wrap=True, markup=False)
    console.print(f"{len(paths) - damaged} intact, {damaged} damaged; store: {store.root}")
    if damaged:
        sys.exit(1)


TEACHERS = Verb(
    "train, list, show or verify teachers",
    """Train teachers, or look at those in the store.

  train    train the teachers that a run with the same (Hydra's) overrides would need
  list     show the teachers in the store, $BENCHMARL_MKT_STORE or the user's cache
  show     show what a teacher was trained on and how, and its score
  verify   read whole teachers (all of the store, if none is named) and compare their checksums;
           exit status 1 if one is damaged

TEACHER is a name in the store, as list shows it, the beginning of one, or a folder.""",
    """  benchmarl teachers train algorithm=mkt task=multitask/mpe
  benchmarl teachers show mpe-simple-push""",
    _options,
    _main,
)
