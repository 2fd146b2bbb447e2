"""``benchmarl export``: one task's team as an ONNX file."""

from __future__ import annotations

from pathlib import Path

from benchmarl_mkt.cli.common import make_console, read_options, user_errors

USAGE = "checkpoint=FOLDER task=NAME out=FILE.onnx"
SUMMARY = "write the policy of one task as ONNX"
HELP = f"""Usage: benchmarl export {USAGE}

Write what the team that a run left does in one task as an ONNX file: observation [B, agents, size]
and action_mask [B, agents, actions] (true: available) to values and greedy actions [B, agents].
Needs pip install 'benchmarl-mkt[onnx]'. Recurrent teams cannot be written; in Python
benchmarl_mkt.teams.load_team runs any.

Example:
  benchmarl export checkpoint=runs/mpe task=simple_push out=push.onnx
"""


def main(arguments: list[str]) -> None:
    """Write the file."""
    from benchmarl_mkt.paths import check_writable

    with user_errors():
        given = read_options("export", USAGE, arguments)
        check_writable("out", Path(given["out"]).expanduser().parent)
        from benchmarl_mkt.export import export_policy
        from benchmarl_mkt.teams import load_team

        team = load_team(given["checkpoint"])
        if given["task"] not in team:
            raise ValueError(f"task: {given['task']!r} is not one of the team's: {', '.join(team)}")
        path = export_policy(team[given["task"]], given["out"])
    make_console().print(f"Policy: {path}", soft_wrap=True)
