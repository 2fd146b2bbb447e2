"""``benchmarl merge``: one team out of experts that are there."""

from __future__ import annotations

import functools
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarl_mkt.cli.common import Verb, make_console, user_errors
from benchmarl_mkt.cli.jobs import Job, as_override, is_flag, nothing_left, with_hydra
from benchmarl_mkt.cli.run import run
from benchmarl_mkt.cli.teachers import read_expert, show_scores, task_entry

if TYPE_CHECKING:
    from benchmarl_mkt.teachers.imports import Expert
    from benchmarl_mkt.teams import FrozenTeam


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="+", metavar="EXPERT", help="and overrides, as of run")


def _main(options: Namespace) -> None:
    import benchmarl_mkt
    from benchmarl_mkt.teachers.imports import Expert, store_expert

    benchmarl_mkt.register()
    arguments: list[str] = options.overrides
    sources = [
        argument
        for argument, before in zip(arguments, ["", *arguments])
        if not is_flag(argument, before)
        and ("=" not in argument or Path(argument).expanduser().exists())
    ]
    given = [argument for argument in arguments if argument not in sources]
    out = [argument.partition("=")[2] for argument in given if argument.startswith("out=")]
    if len(out) != 1 or not sources:
        raise ValueError("merge: name the experts' runs and one folder, out=FOLDER")
    experts = [_read(source) for source in sources]
    rest = [argument for argument in given if not argument.startswith("out=")]

    @functools.wraps(run)  # as which Hydra logs it
    def work(job: Job) -> None:  # the overrides are right
        with user_errors(), nothing_left(job.folder):
            for expert in experts:
                if isinstance(expert, Expert):
                    store_expert(expert)
            show_scores([Path(str(expert.path)) for expert in experts])
        run(job)

    with_hydra("run", [*_chosen(experts, out[0], rest), *rest], work, typed=given)


def _chosen(experts: list[Expert | FrozenTeam], out: str, rest: list[str]) -> list[str]:
    """The overrides of the run that makes one team of the experts."""
    entries: list[dict[str, Any]] = [expert.metadata["task"]["tasks"][0] for expert in experts]
    folders = {entry["name"]: str(expert.path) for entry, expert in zip(entries, experts)}
    chosen = [
        f"hydra.run.dir={as_override(out)}",
        f"hydra.sweep.dir={as_override(out)}",
        "task=multitask/custom",
        f"task.tasks={as_override([task_entry(entry) for entry in entries])}",
        f"algorithm.teachers={as_override(folders)}",
    ]
    for argument in rest:
        if argument.startswith("algorithm=") and not argument.startswith("algorithm=mkt"):
            raise ValueError(f"algorithm: merge trains a student of mkt; leave {argument} out")
    if any(argument.startswith("+method=") for argument in rest):
        return chosen  # a method chooses all the rest
    sizes = {expert.metadata["specs"]["n_agents"] for expert in experts}
    chosen.append("+method=merge")
    for wanted, override, why in (
        (len(sizes) > 1, "algorithm.mixer=vdn", "Teams of different sizes"),
        (all(map(_is_described, experts)), "model=multitask_entity", "All describe their entities"),
    ):
        key = override.partition("=")[0]
        if wanted and not any(argument.startswith(f"{key}=") for argument in rest):
            chosen.append(override)
            make_console().print(f"{why}: {override}")
    return chosen


def _is_described(expert: Expert | FrozenTeam) -> bool:
    """Whether it is known what an expert's observations are made of."""
    groups = expert.metadata.get("expert", {}).get("groups", [])
    return all("layout" in part for part in groups or [expert.metadata])


def _read(source: str) -> Expert | FrozenTeam:
    """Read an expert: a team's folder, or what can be imported."""
    from benchmarl_mkt.teams import load_teacher
    from benchmarl_mkt.teams.folder import METADATA

    if (Path(source).expanduser() / METADATA).is_file():
        return load_teacher(Path(source).expanduser().absolute())
    file, _, task = source.rpartition(":")
    if file.endswith(".onnx"):
        return read_expert(file, [f"task={task}"])
    if source.endswith(".onnx"):
        raise ValueError(f"merge: {source} does not say its task; write {source}:vmas/balance")
    return read_expert(source, [])


MERGE = Verb(
    "make one team out of experts that are there",
    """Import experts as teachers (see benchmarl teachers), make a set of their tasks, train one
student on it and compare it with them. An EXPERT is the folder of a run of
python -m benchmarl.run, a file FILE.onnx:TASK, or the folder of a teacher. Everything else is as
for benchmarl run: overrides, Hydra's flags, benchmarl resume FOLDER, the table at the end.""",
    """  benchmarl merge runs/balance runs/navigation out=runs/one
  benchmarl merge runs/balance push.onnx:mpe/simple_push out=runs/one experiment=mkt_10k""",
    _options,
    _main,
)
