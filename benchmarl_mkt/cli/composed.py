"""Verbs that take Hydra's overrides: compose, check, then hand the configuration to the job."""

from __future__ import annotations

import functools
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarl_mkt.cli.common import user_errors

if TYPE_CHECKING:
    from benchmarl_mkt.configuration.plan import Plan


class Job(NamedTuple):
    """One job of a command.

    Attributes:
        plan: what its configuration asks for.
        config: the configuration as plain values, with the ``choices`` of its groups.
        overrides: the command's that made it; a label.
        folder: its own.
        again: the command that goes on with it, once stopped.
    """

    plan: Plan
    config: dict[str, Any]
    overrides: list[str]
    folder: Path
    again: str


def with_hydra(command: str, arguments: list[str], work: Callable[[Job], None]) -> None:
    """Compose BenchMARL's configuration, check it, and call ``work(job)``.

    Args:
        command: the verb; ``"teachers train"`` is checked otherwise than a run.
        arguments: Hydra's overrides and flags, in any order.
        work: what is done, once for every job of a sweep.
    """
    from benchmarl_mkt.configuration.composition import (
        benchmarl_conf,
        check_keys,
        composed,
        jobs,
        split_flags,
    )
    from benchmarl_mkt.paths import check_writable

    with user_errors():
        flags, texts, overrides = split_flags(arguments)
        chosen = {override.split("=")[0].lstrip("+~"): override for override in overrides}
        if chosen.get("algorithm", "").startswith("algorithm=mkt"):
            for group in ("model", "model@critic_model"):
                if group not in chosen:
                    overrides = [f"{group}=multitask", *overrides]
        for key in ("hydra.run.dir", "hydra.sweep.dir"):
            check_writable(key, Path(chosen.get(key, "=.").partition("=")[2].strip("'\"")))
        for one in (planned := jobs([*overrides, *texts])):
            check_keys(one, flags.config_dir)

        import hydra

        from benchmarl_mkt.configuration.plan import check, plan, rehearsed
        from benchmarl_mkt.quiet import quiet

        quiet()
        for one in planned:
            with composed(one, flags.config_dir) as cfg:
                run = plan(cfg, cfg.hydra.runtime.choices.task)
                if len(planned) == 1:  # the jobs of a sweep are checked in their turn
                    check(run, for_teachers=command == "teachers train")
                    rehearsed(run)
    given = command_given()

    @functools.wraps(work)  # Hydra names the job after its module
    def of_hydra(cfg) -> None:
        import benchmarl_mkt

        benchmarl_mkt.register()  # a sweep's launcher may run this in a new process
        with user_errors():
            job = _job_of_hydra(cfg, given)
        work(job)

    sys.argv = [f"benchmarl {command}", *overrides, *texts]  # --info would take what follows it
    hydra.main(version_base=None, config_path=str(benchmarl_conf()), config_name="config")(
        of_hydra
    )()


def command_given() -> str | None:
    """The command line of a script of the user's own that calls us; None if there is none.

    What it registers is unknown elsewhere: its runs go on in it alone.
    """
    program = Path(sys.argv[0])
    own = Path(__file__).with_name("__main__.py")
    if program.stem in ("benchmarl", "benchmarl-mkt") or program == own:
        return None
    return shlex.join(sys.orig_argv)


def _job_of_hydra(cfg, given: str | None) -> Job:
    """Read from Hydra what its job is.

    Args:
        cfg: the job's configuration.
        given: see :func:`command_given`.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from benchmarl_mkt.configuration.composition import locate_presets
    from benchmarl_mkt.configuration.plan import plan

    config = HydraConfig.get()
    folder = Path(config.runtime.output_dir)
    again = f"benchmarl resume {folder}"
    if given is not None:
        key, where = "hydra.run.dir", folder
        if config.mode == RunMode.MULTIRUN:
            key, where = "hydra.sweep.dir", Path(config.runtime.cwd, config.sweep.dir)
        named = any(override.startswith(f"{key}=") for override in config.overrides.hydra)
        quote = "" if re.fullmatch(r"[\w/.-]+", str(where)) else "'"
        again = given if named else f"{given} {shlex.quote(f'{key}={quote}{where}{quote}')}"
    choices = {k: v for k, v in config.runtime.choices.items() if not k.startswith("hydra/")}
    locate_presets(cfg.algorithm, config.runtime.config_sources)
    plain = {"choices": choices, **OmegaConf.to_container(cfg, resolve=True)}
    return Job(plan(cfg, choices["task"]), plain, list(config.overrides.task), folder, again)
