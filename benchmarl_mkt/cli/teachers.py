"""``benchmarl teachers``: train teachers, and look at those in the store."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarl_mkt.cli.common import make_console, stops, user_errors
from benchmarl_mkt.cli.composed import Job, with_hydra

SUMMARY = "train, list, show or verify teachers"
HELP = """Usage: benchmarl teachers train OVERRIDES ...
       benchmarl teachers list
       benchmarl teachers show TEACHER
       benchmarl teachers verify [TEACHER ...]

  train    train the teachers that a run with the same (Hydra's) overrides would need
  list     show the teachers in the store, $BENCHMARL_MKT_STORE or the user's cache
  show     show what a teacher was trained on and how, and its score
  verify   read whole teachers (all of the store, if none is named) and compare their checksums;
           exit status 1 if one is damaged

TEACHER is a name in the store, as list shows it, the beginning of one, or a folder.

Examples:
  benchmarl teachers train algorithm=mkt task=multitask/mpe
  benchmarl teachers show mpe-simple-push
"""


def main(arguments: list[str]) -> None:
    """Run ``train``, ``list``, ``show`` or ``verify``."""
    match arguments:
        case ["train", *given]:
            with_hydra("teachers train", given, _train)
        case ["list"]:
            _list()
        case ["show", name]:
            _show(name)
        case ["verify", *names]:
            _verify(names)
        case _:
            with user_errors():
                raise ValueError(
                    f"teachers: {' '.join(arguments) or 'nothing'!r} given; choose train, list, "
                    "show TEACHER or verify"
                )


def _train(job: Job) -> None:
    from benchmarl_mkt.configuration.plan import check
    from benchmarl_mkt.teachers.ensure import ensure_teachers

    algorithm = job.plan.algorithm
    with user_errors():
        check(job.plan, for_teachers=True)
    with stops("continue with the same command"):
        ensure_teachers(algorithm, job.plan.task, make_console())
    _list(algorithm.teacher_store)


def _list(root: str | None = None) -> None:
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
    console = make_console()
    console.print(table)
    console.print(f"Store: {store.root}")


def _find(name: str) -> Path:
    """The folder that ``name`` means: a teacher in the store, or a path.

    Raises:
        ValueError: if it means none or several.
    """
    from benchmarl_mkt.teachers import TeacherStore

    store, folder = TeacherStore(), Path(name).expanduser()
    if folder.name != name or folder.is_dir():
        return folder
    found = [path for path in store.entries() if path.name.startswith(name)]
    exact = [path for path in found if path.name == name] or found
    if len(exact) != 1:
        what = f"{', '.join(path.name for path in found)}" if found else "nothing"
        raise ValueError(
            f"teachers: {name!r} means {what} in {store.root}; see benchmarl teachers list"
        )
    return exact[0]


def _show(name: str) -> None:
    from rich.table import Table

    import benchmarl_mkt
    from benchmarl_mkt.teachers import load_teacher

    with user_errors():
        benchmarl_mkt.register()
        path = _find(name)
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
        **{who: _interval(data[who]) for who in ("score", "random")},
        "versions": ", ".join(f"{key} {value}" for key, value in data["versions"].items()),
        "checksum": data["checksum"],
    }
    table = Table("", path.name, show_header=True)
    for key, value in rows.items():
        table.add_row(key, str(value))
    make_console().print(table)


def _interval(score: dict) -> str:
    episodes = f", {score['episodes']} episodes" if "episodes" in score else ""
    return f"{score['mean']:.2f} [{score['low']:.2f}, {score['high']:.2f}]{episodes}"


def _verify(names: list[str]) -> None:
    import benchmarl_mkt
    from benchmarl_mkt.teachers import TeacherStore, load_teacher

    with user_errors():
        benchmarl_mkt.register()
        store = TeacherStore()
        paths = [_find(name) for name in names] or store.entries()
    console, damaged = make_console(), 0
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
