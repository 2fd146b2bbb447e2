"""``benchmarl evaluate``: score the team in a run's folder, on fresh episodes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from benchmarl_mkt.cli.common import add_playing, add_team, make_console

SUMMARY = "play fresh episodes with a run's best team"
HELP = """Play fresh greedy episodes with the team that a run left, and as many with uniform random
actions from the same initial states."""
EXAMPLE = "  benchmarl evaluate runs/mpe --episodes 500 --seed 1"


def configure(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    add_team(parser)
    add_playing(parser)


def main(options: Namespace) -> None:
    """Score the team in a run's folder against random play, on the same fresh episodes."""
    from rich.table import Table

    from benchmarl_mkt.reporting.tables import score_text
    from benchmarl_mkt.teams import evaluate_team, load_team

    results = evaluate_team(load_team(options.checkpoint), options.episodes, options.seed)
    table = Table("task", "team", "random", title=f"Greedy returns of {options.checkpoint}")
    for task, scores in results.items():
        table.add_row(task, score_text(scores["team"]), score_text(scores["random"]))
    table.caption = f"Mean and 95% interval over the same {options.episodes} fresh episodes."
    make_console().print(table)
