"""Verbs that take Hydra's overrides: compose, check, then hand the configuration to the job."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from benchmarl_mkt.cli.common import user_errors


def with_hydra(command: str, overrides: list[str], job: Callable) -> None:
    """Compose BenchMARL's configuration with ``overrides`` and call ``job(cfg)``.

    Args:
        command: the verb; ``"resume"`` and ``"teachers train"`` are checked otherwise than a run.
        overrides: Hydra's.
        job: what is done with the configuration, once for every job of a sweep.
    """
    from benchmarl_mkt.configuration.composition import (
        benchmarl_conf,
        check_classes,
        check_keys,
        composed,
        jobs,
    )
    from benchmarl_mkt.paths import check_writable

    chosen = {override.split("=")[0].lstrip("+~"): override for override in overrides}
    if chosen.get("algorithm", "").startswith("algorithm=mkt"):
        for group in ("model", "model@critic_model"):
            if group not in chosen:
                overrides = [f"{group}=multitask", *overrides]  # Hydra's flags may come last
    with user_errors():
        for key in ("hydra.run.dir", "hydra.sweep.dir"):
            check_writable(key, Path(chosen.get(key, "=.").partition("=")[2].strip("'\"")))
        for one in (planned := jobs(overrides)):
            check_keys(one)

        import hydra

        from benchmarl_mkt.configuration.plan import check, plan, rehearsed
        from benchmarl_mkt.quiet import quiet

        quiet()
        for one in planned:
            with composed(one) as cfg:
                if command == "resume":  # what it was told comes from a file
                    check_classes(cfg)
                run = plan(cfg)
                if len(planned) == 1:  # the jobs of a sweep are checked in their turn
                    check(run, for_teachers=command == "teachers train")
                    if command != "resume":  # which has begun already
                        rehearsed(run)
    sys.argv = [f"benchmarl {command}", *overrides]
    hydra.main(version_base=None, config_path=str(benchmarl_conf()), config_name="config")(job)()


def task_and_algorithm(cfg, for_teachers: bool = False):
    """Build task and algorithm configuration from Hydra's, checked against each other."""
    from benchmarl_mkt.configuration.plan import check, plan

    run = plan(cfg)
    check(run, for_teachers)
    return run.name, run.task, run.algorithm
