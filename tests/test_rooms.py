"""Imports run one way: between rooms, and between the files of one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY

LINT = Path(sys.executable).with_name("lint-imports")


def lint(folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [LINT, "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_arrow_runs_one_way():
    result = lint(REPOSITORY)
    assert result.returncode == 0, result.stdout
    assert "2 kept, 0 broken" in result.stdout


@pytest.mark.parametrize(
    ("path", "line", "message"),
    [
        ("models/actions.py", "from benchmarl_mkt.teams import load_team", "models is not allowed"),
        ("teams/folder.py", "def f():\n    import benchmarl_mkt.training", "teams is not allowed"),
        ("teams/folder.py", "import benchmarl_mkt.teams.load", "No cycles are allowed in"),
        ("forgotten.py", "", "forgotten"),
    ],
)
def test_what_runs_uphill_is_told(tmp_path, path, line, message):
    """Lazy imports too, and circles within a room, and files that no row has."""
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    shutil.copytree(REPOSITORY / "benchmarl_mkt", tmp_path / "benchmarl_mkt")
    with (tmp_path / "benchmarl_mkt" / path).open("a") as file:
        file.write(f"\n{line}\n")
    result = lint(tmp_path)
    assert result.returncode == 1
    assert message in result.stdout
