"""``benchmarl merge``: one team out of experts that are there."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from benchmarl_mkt.cli.common import Verb, make_console
from benchmarl_mkt.cli.jobs import as_override, with_hydra
from benchmarl_mkt.cli.run import run
from benchmarl_mkt.cli.teachers import import_expert, show_scores, task_entry


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("experts", nargs="+", metavar="EXPERT", help="and overrides, as of run")


def _main(options: Namespace) -> None:
    given = [argument for argument in options.experts if not _is_source(argument)]
    with_hydra("run", _overrides(options.experts), run, typed=given)


def _overrides(arguments: list[str]) -> list[str]:
    """Import the experts; return the overrides of the run that makes one team of them."""
    import benchmarl_mkt
    from benchmarl_mkt.teams import load_teacher

    benchmarl_mkt.register()
    sources = [argument for argument in arguments if _is_source(argument)]
    given = [argument for argument in arguments if argument not in sources]
    out = [argument.partition("=")[2] for argument in given if argument.startswith("out=")]
    if len(out) != 1 or not sources:
        raise ValueError("merge: name the experts' runs and one folder, out=FOLDER")
    paths = [_folder_of(source).absolute() for source in sources]
    teachers = [load_teacher(path) for path in paths]
    show_scores(paths)
    entries: list[dict[str, Any]] = [teacher.metadata["task"]["tasks"][0] for teacher in teachers]
    folders = {entry["name"]: str(path) for entry, path in zip(entries, paths)}
    sizes = {teacher.specs.n_agents for teacher in teachers}
    chosen = [
        f"hydra.run.dir={as_override(out[0])}",
        "algorithm=mkt",
        "task=multitask/custom",
        f"task.tasks={as_override([task_entry(entry) for entry in entries])}",
        f"algorithm.teachers={as_override(folders)}",
    ]
    rest = [argument for argument in given if not argument.startswith("out=")]
    if len(sizes) > 1 and not any(argument.startswith("algorithm.mixer=") for argument in rest):
        make_console().print("Teams of different sizes: algorithm.mixer=vdn")
        chosen.append("algorithm.mixer=vdn")
    return [*chosen, *rest]


def _is_source(argument: str) -> bool:
    return "=" not in argument or Path(argument).expanduser().exists()


def _folder_of(source: str) -> Path:
    """The folder of an expert: it is one already, or is imported into the store."""
    from benchmarl_mkt.teams.folder import METADATA

    if (Path(source).expanduser() / METADATA).is_file():
        return Path(source).expanduser()
    file, _, task = source.rpartition(":")
    if file.endswith(".onnx"):
        return import_expert(file, [f"task={task}"])
    if source.endswith(".onnx"):
        raise ValueError(f"merge: {source} does not say its task; write {source}:vmas/balance")
    return import_expert(source, [])


MERGE = Verb(
    "make one team out of experts that are there",
    """Import experts as teachers (see benchmarl teachers), make a set of their tasks, train one
student on it and compare it with them. An EXPERT is the folder of a run of
python -m benchmarl.run, a file FILE.onnx:TASK, or the folder of a teacher. Everything else is as
for benchmarl run: overrides, benchmarl resume FOLDER, the table at the end.""",
    """  benchmarl merge runs/balance runs/navigation out=runs/one
  benchmarl merge runs/balance push.onnx:mpe/simple_push out=runs/one experiment=mkt_10k""",
    _options,
    _main,
)
