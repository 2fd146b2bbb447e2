"""The verbs that look at what runs have left: evaluate, transfer, render, export, report."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from benchmarl_mkt.cli.common import Verb, make_console, natural, writable

if TYPE_CHECKING:
    from benchmarl_mkt.teams.transfer import Transfer


def _add_team(parser: ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="FOLDER", help="a run's folder, or a team's")


def _add_seed(parser: ArgumentParser) -> None:
    parser.add_argument("--seed", type=natural(0), default=0, metavar="N", help="default 0")


def _add_episodes(parser: ArgumentParser) -> None:
    parser.add_argument("--episodes", type=natural(1), default=100, metavar="N", help="default 100")


def _evaluate_options(parser: ArgumentParser) -> None:
    _add_team(parser)
    _add_episodes(parser)
    _add_seed(parser)


def _evaluate(options: Namespace) -> None:
    from rich.table import Table

    from benchmarl_mkt.reporting.tables import score_text
    from benchmarl_mkt.teams import evaluate_team, load_team

    results = evaluate_team(load_team(options.checkpoint), options.episodes, options.seed)
    table = Table("task", "team", "random", title=f"Greedy returns of {options.checkpoint}")
    for task, scores in results.items():
        table.add_row(task, score_text(scores["team"]), score_text(scores["random"]))
    table.caption = f"Mean and 95% interval over the same {options.episodes} fresh episodes."
    make_console().print(table)


EVALUATE = Verb(
    "play fresh episodes with a run's best team",
    """Play fresh greedy episodes with the team that a run left, and as many with uniform random
actions from the same initial states.""",
    "  benchmarl evaluate runs/mpe --episodes 500 --seed 1",
    _evaluate_options,
    _evaluate,
)


def _transfer_options(parser: ArgumentParser) -> None:
    _add_team(parser)
    parser.add_argument(
        "tasks", nargs="+", metavar="TASK", help="a new task, such as smax/4s4z, or an entry as in "
        "task.tasks, such as '{task: smax/custom, config: {allies: 6s4z}}'",
    )  # fmt: skip
    _add_episodes(parser)
    _add_seed(parser)
    parser.add_argument("--source", metavar="TASK", help="try the parts for this task alone")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the numbers there")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="write the best parts there")


def _transfer(options: Namespace) -> None:
    out = options.out and writable("out", options.out)
    save = options.save and writable("save", options.save)
    if save and save.exists():
        raise ValueError(f"save: {save} is there already; name a new folder")
    from benchmarl_mkt.environments.task_set import parse_tasks
    from benchmarl_mkt.teams import load_team
    from benchmarl_mkt.teams.transfer import save_team, to_json, zero_shot

    team, playing = load_team(options.checkpoint), (options.episodes, options.seed)
    tasks = {task: _entry(task) for task in options.tasks}
    if save:
        parse_tasks(list(tasks.values()))  # each needs a name of its own
    transfers = {
        task: zero_shot(team, entry, *playing, options.source) for task, entry in tasks.items()
    }
    if save:
        save_team(transfers.values(), save)
    if out:
        numbers = {"episodes": options.episodes, "seed": options.seed, "tasks": to_json(transfers)}
        out.write_text(json.dumps(numbers, indent=2) + "\n")
    make_console().print(_transfer_table(transfers, options))


def _entry(text: str) -> Any:
    """An entry of ``task.tasks`` as it is written there."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"tasks: {text} is neither a task's name nor a YAML mapping") from None


def _transfer_table(transfers: dict[str, Transfer], options: Namespace) -> Any:
    from rich.table import Table

    from benchmarl_mkt.reporting.tables import score_text

    sources = sorted({source for transfer in transfers.values() for source in transfer.sources})
    columns = ("task", "random", *(f"as {source}" for source in sources), "best, fresh")
    table = Table(*columns, title=f"Without training: {options.checkpoint}")
    for task, transfer in transfers.items():
        tried = (transfer.sources.get(source) for source in sources)
        cells = ("-" if score is None else score_text(score) for score in tried)
        best = f"{score_text(transfer.score)} ({transfer.best})"
        table.add_row(task, score_text(transfer.random), *cells, best)
    table.caption = (
        f"Mean return and 95% interval over {options.episodes} greedy episodes; random and best "
        "play the same fresh ones, others than the best was chosen on."
    )
    return table


TRANSFER = Verb(
    "play new tasks with a run's best team, without training",
    """Play tasks that the team has not been trained on with what it has for those it knows: the
embedding and head of a source task around the shared trunk. A source must have the new task's team
size, observation and actions. Every source is tried; the best one is scored on other, fresh
episodes. A team with model=multitask_entity plays tasks of any size whose types of entities it
knows, with all that it has.""",
    """  benchmarl transfer runs/smax smax/4s4z smax/5s3z --episodes 200
  benchmarl transfer runs/smax '{task: smax/custom, config: {allies: 6s4z, enemies: 5s5z}}'

To train a new embedding and head around the trunk, kept as it is or not:
  benchmarl run +method=vdn_s_smax experiment=smax task=multitask/smax_stalkers_zealots \\
      task.only=4s4z algorithm.trunk=runs/smax algorithm.freeze_trunk=true

To go on from what transfers, as from a teacher (--save new_team):
  benchmarl run +method=mkt_smax experiment=smax task=multitask/smax_stalkers_zealots \\
      task.only=4s4z algorithm.trunk=runs/smax 'algorithm.teachers={4s4z: new_team/4s4z}'""",
    _transfer_options,
    _transfer,
)


def _render_options(parser: ArgumentParser) -> None:
    _add_team(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.gif")
    _add_seed(parser)
    parser.add_argument("--steps", type=natural(1), metavar="N", help="at most so many steps")


def _render(options: Namespace) -> None:
    out = writable("out", options.out)
    if out.suffix.lower() != ".gif" or out.is_dir():
        raise ValueError(f"out: {str(out)!r} must be a file that ends with .gif")
    from benchmarl_mkt.rendering import record, write_gif
    from benchmarl_mkt.teams import load_team

    episodes = record(load_team(options.checkpoint), options.seed, options.steps)
    console = make_console()
    for task, episode in episodes.items():
        console.print(f"{task}: return {episode.returns[-1]:.2f}, {len(episode.frames) - 1} steps")
    console.print(f"Picture: {write_gif(episodes, out)}", soft_wrap=True)


RENDER = Verb(
    "draw one episode of every task of a run's best team (GIF)",
    """Play one greedy episode of every task with the team that a run left and write an animated
GIF, the tasks side by side with their returns. Needs no screen: MPE and VMAS are drawn from their
states, SMAX draws itself.""",
    "  benchmarl render runs/mpe --out team.gif --seed 3",
    _render_options,
    _render,
)


def _export_options(parser: ArgumentParser) -> None:
    _add_team(parser)
    parser.add_argument("task", metavar="TASK", help="one of the team's")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")
    parser.add_argument(
        "--entities", action="store_true", help="read lists of entities, for teams of any size"
    )


def _export(options: Namespace) -> None:
    out = writable("out", options.out)
    from benchmarl_mkt.teams import load_team
    from benchmarl_mkt.teams.onnx import export_entities, export_policy

    team = load_team(options.checkpoint)
    if options.task not in team:
        raise ValueError(f"task: {options.task!r} is not one of the team's: {', '.join(team)}")
    export = export_entities if options.entities else export_policy
    make_console().print(f"Policy: {export(team[options.task], out)}", soft_wrap=True)


EXPORT = Verb(
    "write the policy of one task as ONNX",
    """Write what the team that a run left does in one task as an ONNX file: observation
[B, agents, size] and action_mask [B, agents, actions] (true: available) to values and greedy
actions [B, agents]. With --entities a team with model=multitask_entity reads its own numbers and
lists of entities of any length instead. Needs pip install 'benchmarl-mkt[onnx]'. Recurrent teams
cannot be written; in Python benchmarl_mkt.teams.load_team runs any.""",
    "  benchmarl export runs/mpe simple_push --out push.onnx",
    _export_options,
    _export,
)


def _report_options(parser: ArgumentParser) -> None:
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="folders of runs")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: RESULTS/report")
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="names, order and published numbers (YAML)"
    )


def _report(options: Namespace) -> None:
    from benchmarl_mkt.reporting.report import main

    main(options.results, options.labels, options.out, make_console())


REPORT = Verb(
    "write tables and pictures of the runs below folders",
    """Read every run below the folders and write report.md, report.json, tables (Markdown, LaTeX,
CSV) and pictures (PNG, PDF): returns, scores with bootstrap intervals, learning curves. With pip
install 'benchmarl-mkt[report]' also report.html, one page to click in. Needs no torch.""",
    "  benchmarl report runs/paper --labels benchmarks/paper_labels.yaml",
    _report_options,
    _report,
)
