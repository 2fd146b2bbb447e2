"""``benchmarl resume``: go on with a run that was stopped."""

from __future__ import annotations

from pathlib import Path

from benchmarl_mkt.cli.common import user_errors
from benchmarl_mkt.cli.composed import with_hydra
from benchmarl_mkt.cli.run import run

SUMMARY = "go on with a run that was stopped"
HELP = """Usage: benchmarl resume FOLDER

Go on with the run that was stopped, killed or lost its power in FOLDER, its hydra.run.dir. It ends
with the results of a run that was left alone.

Example:
  benchmarl resume runs/mpe
"""


def main(arguments: list[str]) -> None:
    """Resume the run in the one folder given."""
    from benchmarl_mkt.resume.record import read_run

    with user_errors():
        if len(arguments) != 1:
            raise ValueError(
                f"resume: {' '.join(arguments) or 'nothing'!r} given; usage: benchmarl resume "
                "FOLDER"
            )
        folder = Path(arguments[0]).resolve()
        record = read_run(folder)
    escaped = str(folder).replace("'", "\\'")
    with_hydra("resume", [*record.overrides, f"hydra.run.dir='{escaped}'"], run)
