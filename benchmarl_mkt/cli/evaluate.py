"""``benchmarl evaluate``: score the team in a run's folder, on fresh episodes."""

from __future__ import annotations

from benchmarl_mkt.cli.common import make_console, read_options, user_errors, whole

USAGE = "checkpoint=FOLDER [episodes=100] [seed=0]"
SUMMARY = "play fresh episodes with a run's best team"
HELP = f"""Usage: benchmarl evaluate {USAGE}

Play fresh greedy episodes with the team that a run left (FOLDER is the run's folder or the team's),
and as many with uniform random actions from the same initial states.

Example:
  benchmarl evaluate checkpoint=runs/mpe episodes=500 seed=1
"""


def main(arguments: list[str]) -> None:
    """Score the team in a run's folder against random play, on the same fresh episodes."""
    from rich.table import Table

    with user_errors():
        given = read_options("evaluate", USAGE, arguments)
        numbers = {"episodes": whole(given, "episodes", 100, 1), "seed": whole(given, "seed", 0)}
        from benchmarl_mkt.teams import evaluate_team, load_agents

        found = evaluate_team(load_agents(given["checkpoint"]), **numbers)
    from benchmarl_mkt.reporting.tables import score_text

    table = Table("task", "team", "random", title=f"Greedy returns of {given['checkpoint']}")
    for task, scores in found.items():
        table.add_row(task, score_text(scores["team"]), score_text(scores["random"]))
    table.caption = f"Mean and 95% interval over the same {numbers['episodes']} fresh episodes."
    make_console().print(table)
