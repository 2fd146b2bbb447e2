"""The version stands in one place, and the wheel that is built can be used."""

import os
import subprocess
import sys
import tomllib
import venv
import zipfile

import pytest
import yaml

import benchmarl_mkt
from tests.helpers import REPOSITORY


def test_one_version_everywhere():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert "version" not in project["project"]
    assert f"\n## {benchmarl_mkt.__version__} " in (REPOSITORY / "CHANGELOG.md").read_text()
    assert "version" not in yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())


def test_the_paper_is_cited_alike():
    cff = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())["preferred-citation"]
    page = (REPOSITORY / "docs" / "citing.md").read_text()
    authors = " and ".join(f"{a['family-names']}, {a['given-names']}" for a in cff["authors"])
    for text in (cff["title"], authors, cff["doi"], f"{cff['start']}--{cff['end']}"):
        assert f"{{{text}}}" in page


def test_everyone_runs_the_same_commands():
    """Workflows call what a developer calls; hooks are lint's programs."""
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())
    steps = [step.get("run") for job in workflow["jobs"].values() for step in job["steps"]]
    assert {".ci/run", "make compat"} <= set(steps)
    makefile = (REPOSITORY / "Makefile").read_text()
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"][0]
    for hook in hooks["hooks"]:
        assert f"$(BIN)/{hook['entry'].removesuffix(' --fix')}" in makefile


def run(*command, **kwargs):
    found = subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-2000:]
    return found.stdout


@pytest.mark.slow
def test_the_wheel_is_built_checked_installed_and_used(tmp_path):
    """In an environment with nothing but the wheel and what it asks for."""
    dist = tmp_path / "dist"
    run(sys.executable, "-m", "build", "--outdir", dist, cwd=REPOSITORY)
    (wheel,) = dist.glob("*.whl")
    run(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir())
    assert wheel.name.startswith(f"benchmarl_mkt-{benchmarl_mkt.__version__}-")
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("conf/algorithm/mkt.yaml", "py.typed", "cli/looking.py"):
        assert f"benchmarl_mkt/{name}" in names
    assert not [name for name in names if name.startswith(("tests", "docs", "benchmarks"))]
    venv.create(tmp_path / "env", with_pip=True)
    programs = tmp_path / "env" / "bin"
    pip = (programs / "python", "-m", "pip", "install", "--quiet")
    constraints = ("-c", REPOSITORY / "constraints.txt")
    run(*pip, *constraints, "torch", "torchvision")
    run(*pip, *constraints, f"{wheel}[mpe]")
    inside = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}  # no PYTHONPATH: the wheel alone
    for arguments, expected in (
        (["--help"], "Usage: benchmarl"),
        (["tasks", "multitask/mpe"], "simple_adversary"),
        (["run", "algorithm=mkt", "task=multitask/mpe", "--cfg", "job"], "mixer: qmix"),
    ):
        assert expected in run(programs / "benchmarl", *arguments, cwd=tmp_path, env=inside)
    code = "import benchmarl_mkt; print(benchmarl_mkt.__version__, benchmarl_mkt.__file__)"
    found = run(programs / "python", "-c", code, cwd=tmp_path, env=inside)
    assert found.split()[0] == benchmarl_mkt.__version__
    assert str(tmp_path / "env") in found
