"""The ``benchmarl`` command.

A verb imports what is heavy where it is used, so that help is given without torch.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from typing import NoReturn

from benchmarl_mkt.cli.common import Verb, user_errors
from benchmarl_mkt.cli.looking import EVALUATE, EXPORT, RENDER, REPORT, TRANSFER
from benchmarl_mkt.cli.merge import MERGE
from benchmarl_mkt.cli.resume import RESUME
from benchmarl_mkt.cli.run import RUN
from benchmarl_mkt.cli.tasks import TASKS
from benchmarl_mkt.cli.teachers import TEACHERS
from benchmarl_mkt.compatibility import check_versions

VERBS: dict[str, Verb] = {
    "run": RUN,
    "merge": MERGE,
    "resume": RESUME,
    "evaluate": EVALUATE,
    "transfer": TRANSFER,
    "render": RENDER,
    "export": EXPORT,
    "report": REPORT,
    "tasks": TASKS,
    "teachers": TEACHERS,
}


class Parser(argparse.ArgumentParser):
    """Wrong arguments are a ValueError of one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{self.prog.removeprefix('benchmarl ')}: {message}; see {self.prog} -h")


def usage() -> str:
    """Return the text of ``benchmarl --help``."""
    lines = "\n".join(f"  {name:<10}{verb.summary}" for name, verb in VERBS.items())
    return (
        f"Usage: benchmarl COMMAND [ARGUMENTS ...]\n\nCommands:\n{lines}\n\n"
        "benchmarl COMMAND --help says more. Try:\n"
        "  benchmarl run algorithm=mkt task=multitask/mpe\n\n"
        "Exit status: 0 done, 1 failed on the way, 2 wrong input.\n"
    )


def make_parser(name: str) -> Parser:
    """Return the parser of a verb's options."""
    verb = VERBS[name]
    parser = Parser(
        prog=f"benchmarl {name}",
        description=verb.help,
        epilog=f"Example:\n{verb.example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.configure(parser)
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
        if {"-h", "--help"} & set(rest):
            make_parser(verb).print_help()
            return
        check_versions()
        if verb in ("run", "merge"):
            options = argparse.Namespace(overrides=rest)
        elif [verb, *rest][:2] == ["teachers", "train"]:
            options = argparse.Namespace(action="train", overrides=rest[1:])
        else:
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
