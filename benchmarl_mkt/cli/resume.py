"""``benchmarl resume``: go on with a run that was stopped."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from benchmarl_mkt.cli.common import user_errors
from benchmarl_mkt.cli.composed import Job, command_given
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
    from benchmarl_mkt.resume.record import RECORD, read_run

    with user_errors():
        if len(arguments) != 1:
            raise ValueError(
                f"resume: {' '.join(arguments) or 'nothing'!r} given; usage: benchmarl resume "
                "FOLDER"
            )
        folder = Path(arguments[0]).resolve()
        record = read_run(folder)
        from omegaconf.errors import OmegaConfBaseException

        from benchmarl_mkt.configuration.composition import benchmarl_search_path
        from benchmarl_mkt.configuration.plan import check, plan
        from benchmarl_mkt.configuration.recorded import check_paths, recorded
        from benchmarl_mkt.quiet import quiet

        quiet()
        benchmarl_search_path()  # Hydra's plugins register what installed packages bring
        try:
            check_paths(record)
            cfg = recorded(record.config, record.name)
            check(planned := plan(cfg, record.config["choices"]["task"]))
        except (
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            OmegaConfBaseException,
        ) as error:
            raise ValueError(
                f"resume: {folder / RECORD}: {' '.join(str(error).split())}; if that cannot be "
                f"mended, give the command that began the run again, with hydra.run.dir={folder}"
            ) from error
    _log(folder)
    again = command_given() or f"benchmarl resume {folder}"
    run(Job(planned, record.config, record.overrides, folder, again))


def _log(folder: Path) -> None:
    """Log as Hydra does for a run: to the console, and to its file."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    handlers.append(logging.FileHandler(folder / "run.log"))
    form = "[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, handlers=handlers, force=True)
