"""``benchmarl resume``: go on with a run that was stopped."""

from __future__ import annotations

import logging
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from benchmarl_mkt.cli.common import Verb
from benchmarl_mkt.cli.jobs import command_given, make_job, take_scripts
from benchmarl_mkt.cli.run import run


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER")


def _main(options: Namespace) -> None:
    from benchmarl_mkt.training.resume.record import RECORD, read_run

    folder = options.folder.resolve()
    record = read_run(folder)
    from omegaconf.errors import OmegaConfBaseException

    from benchmarl_mkt.cli.recorded import check_paths, recorded
    from benchmarl_mkt.presets import compose_config
    from benchmarl_mkt.quiet import quiet

    quiet()
    compose_config(["algorithm=mkt", "task=multitask/mpe"])  # plugins register what they bring
    again = command_given() or f"benchmarl resume {folder}"
    try:
        check_paths(record)
        cfg = recorded(record.config, record.name)
        job = make_job(cfg, record.config, record.overrides, folder, again)
        take_scripts(job, [])
    except (ValueError, TypeError, LookupError, AttributeError, OmegaConfBaseException) as error:
        raise ValueError(
            f"resume: {folder / RECORD}: {' '.join(str(error).split())}; if that cannot be "
            f"mended, give the command that began the run again, with hydra.run.dir={folder}"
        ) from error
    # Log as Hydra does for a run: to the console, and to its file.
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    handlers.append(logging.FileHandler(folder / "run.log"))
    form = "[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, handlers=handlers, force=True)
    run(job)


RESUME = Verb(
    "go on with a run that was stopped",
    """Go on with the run that was stopped, killed or lost its power in FOLDER, its
hydra.run.dir. It ends with the results of a run that was left alone.""",
    "  benchmarl resume runs/mpe",
    _options,
    _main,
)
