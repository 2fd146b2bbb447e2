"""``benchmarl export``: one task's team as an ONNX file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from benchmarl_mkt.cli.common import add_team, make_console, writable

SUMMARY = "write the policy of one task as ONNX"
HELP = """Write what the team that a run left does in one task as an ONNX file: observation
[B, agents, size] and action_mask [B, agents, actions] (true: available) to values and greedy
actions [B, agents]. Needs pip install 'benchmarl-mkt[onnx]'. Recurrent teams cannot be written; in
Python benchmarl_mkt.teams.load_team runs any."""
EXAMPLE = "  benchmarl export runs/mpe simple_push --out push.onnx"


def configure(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    add_team(parser)
    parser.add_argument("task", metavar="TASK", help="one of the team's")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")


def main(options: Namespace) -> None:
    """Write the file."""
    out = writable("out", options.out)
    from benchmarl_mkt.teams import load_team
    from benchmarl_mkt.teams.onnx import export_policy

    team = load_team(options.checkpoint)
    if options.task not in team:
        raise ValueError(f"task: {options.task!r} is not one of the team's: {', '.join(team)}")
    make_console().print(f"Policy: {export_policy(team[options.task], out)}", soft_wrap=True)
