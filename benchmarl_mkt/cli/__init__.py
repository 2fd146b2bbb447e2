"""The ``benchmarl`` command: one module for every verb.

A verb's module has ``SUMMARY`` (its line in ``benchmarl --help``), ``HELP`` (the text of
``benchmarl VERB --help``) and ``main(arguments)``. It imports what is heavy where it is used, so
that wrong input and help are answered without torch.
"""

from __future__ import annotations

import sys
from types import ModuleType

from benchmarl_mkt.cli import (
    evaluate,
    export,
    render,
    report,
    resume,
    run,
    tasks,
    teachers,
    transfer,
)
from benchmarl_mkt.cli.common import user_errors
from benchmarl_mkt.compatibility import check_versions

VERBS: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (run, resume, evaluate, transfer, render, export, report, tasks, teachers)
}


def usage() -> str:
    """Return the text of ``benchmarl --help``."""
    lines = (f"  {verb:<10}{module.SUMMARY}" for verb, module in VERBS.items())
    return "\n".join(
        (
            "Usage: benchmarl COMMAND [ARGUMENTS ...]",
            "",
            "Commands:",
            *lines,
            "",
            "benchmarl COMMAND --help says more. Try:",
            "  benchmarl run algorithm=mkt task=multitask/mpe",
            "",
            "Exit status: 0 done, 1 failed on the way, 2 wrong input.\n",
        )
    )


def main(arguments: list[str] | None = None) -> None:
    """Run one of :data:`VERBS`; exits with 2 if the input is wrong."""
    arguments = sys.argv[1:] if arguments is None else arguments
    match arguments:
        case [] | ["-h" | "--help", *_]:
            sys.stdout.write(usage())
        case [verb, *rest] if verb in VERBS and {"-h", "--help"} & set(rest):
            sys.stdout.write(VERBS[verb].HELP)
        case [verb, *rest] if verb in VERBS:
            with user_errors():
                check_versions()
            VERBS[verb].main(rest)
        case _:
            with user_errors():
                raise ValueError(f"command: {' '.join(arguments)!r} is unknown; see benchmarl -h")
