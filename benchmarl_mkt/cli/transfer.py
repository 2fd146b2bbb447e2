"""``benchmarl transfer``: a run's best team on tasks it was not trained on."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarl_mkt.cli.common import make_console, read_options, user_errors, whole
from benchmarl_mkt.paths import check_writable

USAGE = (
    "checkpoint=FOLDER tasks=[TASK,...] [source=TASK] [episodes=100] [seed=0] [out=FILE.json] "
    "[save=FOLDER]"
)
SUMMARY = "play new tasks with a run's best team, without training"
HELP = f"""Usage: benchmarl transfer {USAGE}

Play tasks that the team has not been trained on with what it has for those it knows: the embedding
and head of a source task around the shared trunk. A source must have the new task's team size,
observation and actions. Every source is tried; the best one is scored on other, fresh episodes.

  source=TASK    try this one alone
  out=FILE.json  write the numbers there
  save=FOLDER    write the best parts there, as a team for the new tasks

Example:
  benchmarl transfer checkpoint=runs/smax 'tasks=[smax/4s4z,smax/5s3z]' episodes=200

To train a new embedding and head around the trunk, kept as it is or not:
  benchmarl run +method=vdn_s_smax experiment=smax task=multitask/smax_stalkers_zealots \\
      task.only=4s4z algorithm.trunk=runs/smax algorithm.freeze_trunk=true

To go on from what transfers, as from a teacher (save=new_team):
  benchmarl run +method=mkt_smax experiment=smax task=multitask/smax_stalkers_zealots \\
      task.only=4s4z algorithm.trunk=runs/smax 'algorithm.teachers={{4s4z: new_team/4s4z}}'
"""


def main(arguments: list[str]) -> None:
    """Show what transfers."""
    with user_errors():
        given = read_options("transfer", USAGE, arguments)
        numbers = {"episodes": whole(given, "episodes", 100, 1), "seed": whole(given, "seed", 0)}
        tasks = [name.strip() for name in given["tasks"].strip("[] ").split(",") if name.strip()]
        if not tasks:
            raise ValueError("tasks: name at least one, such as tasks=[smax/4s4z]")
        out, save = (Path(given[k]).expanduser() if k in given else None for k in ("out", "save"))
        for key, path in (("out", out), ("save", save)):
            if path is not None:
                check_writable(key, path.parent)
        if save is not None and save.exists():
            raise ValueError(f"save: {save} is there already; name a new folder")
        from benchmarl_mkt.teams import load_agents
        from benchmarl_mkt.transfer import save_team, to_json, zero_shot

        team = load_agents(given["checkpoint"])
        found = {
            task: zero_shot(team, task, source=given.get("source"), **numbers) for task in tasks
        }
    if save is not None:
        save_team(team, found.values(), numbers["episodes"], save)
    if out is not None:
        out.write_text(json.dumps({**numbers, "tasks": to_json(found)}, indent=2) + "\n")
    _show(found, given["checkpoint"], numbers["episodes"])


def _show(found: dict, checkpoint: str, episodes: int) -> None:
    from rich.table import Table

    from benchmarl_mkt.reporting.tables import score_text

    sources = sorted({source for transfer in found.values() for source in transfer.sources})
    columns = ("task", "random", *(f"as {source}" for source in sources), "best, fresh")
    table = Table(*columns, title=f"Without training: {checkpoint}")
    for task, transfer in found.items():
        tried = (transfer.sources.get(source) for source in sources)
        cells = ("-" if score is None else score_text(score) for score in tried)
        best = f"{score_text(transfer.score)} ({transfer.best})"
        table.add_row(task, score_text(transfer.random), *cells, best)
    table.caption = (
        f"Mean return and 95% interval over {episodes} greedy episodes; random and best play the "
        "same fresh ones, others than the best was chosen on."
    )
    make_console().print(table)
