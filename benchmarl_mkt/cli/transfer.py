"""``benchmarl transfer``: a run's best team on tasks it was not trained on."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from benchmarl_mkt.cli.common import add_playing, add_team, make_console, writable

SUMMARY = "play new tasks with a run's best team, without training"
HELP = """Play tasks that the team has not been trained on with what it has for those it knows: the
embedding and head of a source task around the shared trunk. A source must have the new task's team
size, observation and actions. Every source is tried; the best one is scored on other, fresh
episodes."""
EXAMPLE = """  benchmarl transfer runs/smax smax/4s4z smax/5s3z --episodes 200

To train a new embedding and head around the trunk, kept as it is or not:
  benchmarl run +method=vdn_s_smax experiment=smax task=multitask/smax_stalkers_zealots \\
      task.only=4s4z algorithm.trunk=runs/smax algorithm.freeze_trunk=true

To go on from what transfers, as from a teacher (--save new_team):
  benchmarl run +method=mkt_smax experiment=smax task=multitask/smax_stalkers_zealots \\
      task.only=4s4z algorithm.trunk=runs/smax 'algorithm.teachers={4s4z: new_team/4s4z}'"""


def configure(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    add_team(parser)
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="a new task, such as smax/4s4z")
    add_playing(parser)
    parser.add_argument("--source", metavar="TASK", help="try the parts for this task alone")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the numbers there")
    parser.add_argument(
        "--save", type=Path, metavar="FOLDER", help="write the best parts there, as a team"
    )


def main(options: Namespace) -> None:
    """Show what transfers."""
    out, save = (
        path if path is None else writable(key, path)
        for key, path in (("out", options.out), ("save", options.save))
    )
    if save is not None and save.exists():
        raise ValueError(f"save: {save} is there already; name a new folder")
    from benchmarl_mkt.teams import load_team
    from benchmarl_mkt.teams.transfer import save_team, to_json, zero_shot

    team, playing = load_team(options.checkpoint), (options.episodes, options.seed)
    transfers = {task: zero_shot(team, task, *playing, options.source) for task in options.tasks}
    if save is not None:
        save_team(team, transfers.values(), options.episodes, save)
    if out is not None:
        numbers = {"episodes": options.episodes, "seed": options.seed, "tasks": to_json(transfers)}
        out.write_text(json.dumps(numbers, indent=2) + "\n")
    _show(transfers, options.checkpoint, options.episodes)


def _show(transfers: dict, checkpoint: str, episodes: int) -> None:
    from rich.table import Table

    from benchmarl_mkt.reporting.tables import score_text

    sources = sorted({source for transfer in transfers.values() for source in transfer.sources})
    columns = ("task", "random", *(f"as {source}" for source in sources), "best, fresh")
    table = Table(*columns, title=f"Without training: {checkpoint}")
    for task, transfer in transfers.items():
        tried = (transfer.sources.get(source) for source in sources)
        cells = ("-" if score is None else score_text(score) for score in tried)
        best = f"{score_text(transfer.score)} ({transfer.best})"
        table.add_row(task, score_text(transfer.random), *cells, best)
    table.caption = (
        f"Mean return and 95% interval over {episodes} greedy episodes; random and best play the "
        "same fresh ones, others than the best was chosen on."
    )
    make_console().print(table)
