"""``benchmarl render``: one episode of every task as an animated picture."""

from __future__ import annotations

from pathlib import Path

from benchmarl_mkt.cli.common import make_console, read_options, user_errors, whole

USAGE = "checkpoint=FOLDER out=FILE.gif [seed=0] [steps=N]"
SUMMARY = "draw one episode of every task of a run's best team (GIF)"
HELP = f"""Usage: benchmarl render {USAGE}

Play one greedy episode of every task with the team that a run left (FOLDER is the run's folder or
the team's) and write an animated GIF, the tasks side by side with their returns. Needs no screen:
MPE and VMAS are drawn from their states, SMAX draws itself.

  seed=0    of the environments
  steps=N   at most so many steps (default: the whole episode)

Example:
  benchmarl render checkpoint=runs/mpe out=team.gif seed=3
"""


def main(arguments: list[str]) -> None:
    """Write the GIF."""
    from benchmarl_mkt.paths import check_writable

    with user_errors():
        given = read_options("render", USAGE, arguments)
        seed = whole(given, "seed", 0)
        steps = whole(given, "steps", 1, 1) if "steps" in given else None
        out = Path(given["out"]).expanduser()
        if out.suffix.lower() != ".gif" or out.is_dir():
            raise ValueError(f"out: {given['out']!r} must be a file that ends with .gif")
        check_writable("out", out.parent)
        from benchmarl_mkt.rendering import record, write_gif
        from benchmarl_mkt.teams import load_agents

        episodes = record(load_agents(given["checkpoint"]), seed, steps)
    console = make_console()
    for task, episode in episodes.items():
        console.print(f"{task}: return {episode.returns[-1]:.2f}, {len(episode.frames) - 1} steps")
    console.print(f"Picture: {write_gif(episodes, out)}", soft_wrap=True)
