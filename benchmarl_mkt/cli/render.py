"""``benchmarl render``: one episode of every task as an animated picture."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from benchmarl_mkt.cli.common import add_team, make_console, natural, writable

SUMMARY = "draw one episode of every task of a run's best team (GIF)"
HELP = """Play one greedy episode of every task with the team that a run left and write an animated
GIF, the tasks side by side with their returns. Needs no screen: MPE and VMAS are drawn from their
states, SMAX draws itself."""
EXAMPLE = "  benchmarl render runs/mpe --out team.gif --seed 3"


def configure(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    add_team(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.gif")
    parser.add_argument("--seed", type=natural(0), default=0, metavar="N", help="default 0")
    parser.add_argument("--steps", type=natural(1), metavar="N", help="at most so many steps")


def main(options: Namespace) -> None:
    """Write the GIF."""
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
