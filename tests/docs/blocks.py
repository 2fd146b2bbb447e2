"""The code blocks of README and documentation, run with small budgets.

Python blocks of a document share one namespace. In console blocks every line is a command (with
prompts, every line that begins with ``$``); see :func:`run_command` for what is substituted. A
comment before a block, ``<!-- blocks: MARK reason -->``, says otherwise:

- ``fails``: the command must end with status 2;
- ``slow``: run in the slow tests, for the reason given, else only checked as far as a run checks
  its command line before it trains;
- ``hours``: too long even there: that the script knows the options is checked.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from sybil import Document, Sybil
from sybil.parsers.markdown import CodeBlockParser

from benchmarl_mkt.cli import main
from tests.helpers import REPOSITORY, TINY

# What is shown and not run.
PLAIN = {"text", "yaml", "bibtex"}
STOCK_BUDGET = [
    "task.max_steps=20",
    *(f"experiment.{key}={str(value).lower()}" for key, value in TINY.items()),
]
_MARK = re.compile(r"<!-- blocks: (fails|slow|hours)\b ?([^>]*?) *-->\s*\Z")
_STOCK = re.compile(r"algorithm=(qmix|vdn|mappo)\b|method=\w+_(multi|unshared)\b")


class Block(NamedTuple):
    """One fenced block: its language, its text, its mark with the reason, where it stands."""

    language: str
    text: str
    mark: str
    reason: str
    line: int


def documents() -> list[Path]:
    """Return all pages with blocks, the generated ones apart."""
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def blocks(path: Path) -> list[Block]:
    """Return the blocks of a page, in their order."""
    found: list[Block] = []

    def keep(example) -> None:
        mark = _MARK.search(example.document.text[: example.start])
        found.append(
            Block(
                example.region.lexemes["arguments"].split()[0],
                str(example.parsed),
                *(mark.groups() if mark else ("", "")),
                example.line,
            )
        )

    languages = set(re.findall(r"^```(\w+)", path.read_text(), re.MULTILINE))
    parsers = [CodeBlockParser(language, keep) for language in languages]
    document: Document = Sybil(parsers).parse(path)
    for example in document.examples():
        example.evaluate()
    return found


def run_python(text: str, namespace: dict, path: Path, line: int) -> None:
    """Run a Python block; a file that is shown must exist (examples have tests of their own)."""
    if shown := re.match(r'\s*--8<-- "(.+)"', text):
        assert (REPOSITORY / shown[1]).is_file(), shown[1]
        return
    exec(compile("\n" * line + text, str(path), "exec"), namespace)


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of every command in a console block."""
    lines = text.replace("\\\n", " ").splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    for line in lines:
        if words := shlex.split(line, comments=True):
            yield words


def run_command(words: list[str], mark: str, tiny: Path) -> None:
    """Run a command of a console block in the working directory.

    Trainings, stock BenchMARL's too, get the budget of ``tiny``, sweeps their first method and
    seed. ``make`` shows what it would do, installations are compared with the extras that there
    are. SMAX is left out where JaxMARL is not installed.

    Args:
        words: program and arguments.
        mark: of the block.
        tiny: YAML file of a small experiment.
    """
    program, *arguments = words
    if any("smax/" in word for word in words) and find_spec("jaxmarl") is None:
        return
    if program == "benchmarl":
        status = call(small(arguments, tiny))
        assert status == (2 if mark == "fails" else 0), f"status {status}"
    elif program == "make":
        subprocess.run(["make", "-n", *arguments], cwd=REPOSITORY, check=True, capture_output=True)
    elif program == "pip":
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
        for extras in re.findall(r"\[([\w,-]+)\]", " ".join(arguments)):
            assert set(extras.split(",")) <= set(project["optional-dependencies"])
    elif program == "python" and mark == "hours":
        script, *options = arguments
        known = run([script, *(o for o in options[:1] if not o.startswith("-")), "--help"])
        assert all(option in known for option in options if option.startswith("--"))
    elif program == "python":
        run([*arguments, *STOCK_BUDGET] if arguments[:2] == ["-m", "benchmarl.run"] else arguments)
    elif program == "pytest":
        run(
            ["-m", "pytest", "--collect-only", *arguments, str(REPOSITORY / "tests" / "objectives")]
        )
    elif program == "pre-commit":
        assert (REPOSITORY / ".pre-commit-config.yaml").is_file()
    else:
        raise AssertionError(f"nobody knows how to test {program!r}")


def check_command(words: list[str]) -> None:
    """Check what a run checks of its command line; of sweeps from a file nothing is checked."""
    from benchmarl_mkt.cli.jobs import KEYS, check_keys, make_job
    from benchmarl_mkt.presets import compose_config

    program, verb, *overrides = words
    assert (program, verb) == ("benchmarl", "run")
    if any(word.startswith("-") for word in overrides):
        return
    if "algorithm=mkt" in overrides and not any(o.startswith("model=") for o in overrides):
        overrides = ["model=multitask", "model@critic_model=multitask", *overrides]
    cfg = compose_config(overrides, with_hydras=True)
    choices = dict(cfg.hydra.runtime.choices)
    try:
        HydraConfig.instance().set_config(cfg)  # interpolations ask it for choices
        cfg = OmegaConf.masked_copy(cfg, KEYS)
        check_keys(cfg)
        make_job(cfg, {"choices": choices}, overrides, Path("x"), "")
    finally:
        HydraConfig.instance().cfg = None


def run(arguments: list[str]) -> str:
    """Run Python in a process of its own; return what it prints."""
    found = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr[-2000:]
    return found.stdout


def call(arguments: list[str]) -> int:
    """Run ``benchmarl`` in this process; return its exit status."""
    before, folder = sys.argv, Path.cwd()
    try:
        sys.argv = ["benchmarl"]
        main(arguments)
    except SystemExit as exit_:
        return int(exit_.code or 0)
    finally:
        sys.argv = before
        os.chdir(folder)
        GlobalHydra.instance().clear()
    return 0


def small(arguments: list[str], tiny: Path) -> list[str]:
    """Give ``run``, ``merge`` and ``teachers train`` the budget of ``tiny``."""
    if arguments[0] not in ("run", "merge") and arguments[:2] != ["teachers", "train"]:
        return arguments
    budget = [f"experiment.{key}={str(value).lower()}" for key, value in TINY.items()]
    if not _STOCK.search(" ".join(arguments)):
        budget.append(f"algorithm.teacher.experiment={tiny}")
    if arguments[0] == "merge":
        budget.append("task.final_episodes=20")
    if "--config-name" in arguments:  # a sweep
        arguments = [re.sub(r"^((?:\+method|seed)=\w+),.*", r"\1", word) for word in arguments]
        if not any(word.startswith("+method=") for word in arguments):
            arguments += ["+method=vdn_ours", "seed=0"]
    return [*arguments, *budget]
