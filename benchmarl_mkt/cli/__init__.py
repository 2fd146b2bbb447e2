"""The ``benchmarl`` command: one module for every verb.

A verb's module has ``SUMMARY`` (its line in ``benchmarl --help``), ``HELP`` and ``EXAMPLE`` (the
texts around its options), ``configure(parser)`` and ``main(options)``. It imports what is heavy
where it is used, so that help is given without torch.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from types import ModuleType
from typing import NoReturn

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
# These hand what follows to Hydra.
HYDRA_VERBS = {("run",): run.with_overrides, ("teachers", "train"): teachers.train}


class Parser(argparse.ArgumentParser):
    """Wrong arguments are a ValueError of one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{self.prog.removeprefix('benchmarl ')}: {message}; see {self.prog} -h")


def usage() -> str:
    """Return the text of ``benchmarl --help``."""
    lines = "\n".join(f"  {verb:<10}{module.SUMMARY}" for verb, module in VERBS.items())
    return (
        f"Usage: benchmarl COMMAND [ARGUMENTS ...]\n\nCommands:\n{lines}\n\n"
        "benchmarl COMMAND --help says more. Try:\n"
        "  benchmarl run algorithm=mkt task=multitask/mpe\n\n"
        "Exit status: 0 done, 1 failed on the way, 2 wrong input.\n"
    )


def make_parser(verb: str) -> Parser:
    """Return the parser of a verb's options."""
    module = VERBS[verb]
    parser = Parser(
        prog=f"benchmarl {verb}",
        description=module.HELP,
        epilog=f"Example:\n{module.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.configure(parser)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run one of :data:`VERBS`; exits with 2 if the input is wrong."""
    verb, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if verb in ("-h", "--help"):
        sys.stdout.write(usage())
        return
    with user_errors():
        if verb not in VERBS:
            raise ValueError(f"command: {' '.join([verb, *rest])!r} is unknown; see benchmarl -h")
        if not {"-h", "--help"} & set(rest):
            check_versions()
            for words, work in HYDRA_VERBS.items():
                given = [verb, *rest][: len(words)]
                if given == list(words):
                    return work([verb, *rest][len(words) :])
        options = make_parser(verb).parse_intermixed_args(_renewed(verb, rest))
        VERBS[verb].main(options)


def _renewed(verb: str, arguments: list[str]) -> list[str]:
    """Write ``KEY=VALUE``, as arguments were written before, as options are written now."""
    old = [argument for argument in arguments if re.match(r"[a-z]+=", argument)]
    if verb not in ("evaluate", "transfer", "render", "export") or not old:
        return arguments
    values = dict(argument.split("=", 1) for argument in old)
    tasks = [name.strip() for name in values.pop("tasks", "").strip("[] ").split(",")]
    first = [values.pop(key) for key in ("checkpoint", "task") if key in values]
    new = [argument for argument in arguments if argument not in old]
    new += [*first, *filter(None, tasks), *(f"--{key}={value}" for key, value in values.items())]
    sys.stderr.write(f"note: this is written so now: benchmarl {verb} {shlex.join(new)}\n")
    return new
