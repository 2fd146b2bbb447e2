"""The documentation says what is so, and can be built without a network."""

import ast
import os
import re
import subprocess
import sys
from dataclasses import fields
from importlib import import_module

import pytest
import yaml

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.cli import VERBS
from benchmarl_mkt.environments import MultiTaskConfig
from benchmarl_mkt.models import MultiTaskModelConfig
from tests.helpers import REPOSITORY

DOCS = REPOSITORY / "docs"
ROW = re.compile(r"^\| [^|]+ \| ([^|]+) \| `([\w/.-]+)` \| `([\w.-]+)` \|$", re.MULTILINE)
ROWS = ROW.findall((DOCS / "paper.md").read_text())


def test_the_readme_is_short():
    assert (REPOSITORY / "README.md").stat().st_size <= 10_240


def test_the_folders_of_the_contributors_table_exist():
    table = (DOCS / "contributing.md").read_text().partition("## Where things are")[2]
    first_cells = " ".join(re.findall(r"^\| `([^|]+) \|", table, re.MULTILINE))
    folders = re.findall(r"(\w[\w/]*/)`", first_cells)
    assert len(folders) >= 15
    assert all((REPOSITORY / folder).is_dir() for folder in folders)


def test_the_map_has_all_equations_and_tables():
    text = (DOCS / "paper.md").read_text()
    lines = text.count("\n| ") - text.count("\n| paper |")
    assert len(ROWS) == lines >= 45  # every line of every table was read
    for part in (*(f"Eq. {i}" for i in range(1, 7)), "lines 4-13", "Table III", "Table IV"):
        assert part in text


@pytest.mark.parametrize(("what", "file", "symbol"), ROWS, ids=[f"{f}:{s}" for _, f, s in ROWS])
def test_what_the_map_names_is_there(what, file, symbol):
    path = REPOSITORY / file
    assert path.is_file()
    if path.suffix == ".py":
        found = import_module(file.removesuffix(".py").replace("/", "."))
        for part in symbol.split("."):
            found = getattr(found, part)
        return
    found = yaml.safe_load(path.read_text())
    for part in symbol.split("."):
        found = found[part]
    if value := re.fullmatch(r"`(.+)`", what):
        assert found == yaml.safe_load(value[1])


def test_every_setting_of_epymarls_table_exists():
    """Keys of ours, in the third table's and the second's columns."""
    text = (DOCS / "epymarl.md").read_text()
    presets = REPOSITORY / "conf"
    experiment = yaml.safe_load((presets / "experiment" / "mkt_paper.yaml").read_text())
    algorithm = yaml.safe_load((presets / "algorithm" / "mkt.yaml").read_text())["algorithm"]
    task = yaml.safe_load((presets / "task" / "multitask" / "mpe.yaml").read_text())
    keys = set(re.findall(r"`(experiment|algorithm|task)\.(\w+)", text))
    assert len(keys) >= 18
    for group, key in keys:
        assert key in {"experiment": experiment, "algorithm": algorithm, "task": task}[group]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    folder = tmp_path_factory.mktemp("site")
    environment = {
        **os.environ,
        **dict.fromkeys(("NO_MKDOCS_2_WARNING", "DISABLE_MKDOCS_2_WARNING"), "true"),
    }
    found = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-3000:]
    return folder


def test_the_site_needs_no_network(site):
    """Nothing that a page loads comes from elsewhere."""
    pages = list(site.rglob("*.html"))
    assert len(pages) >= 15
    loads = re.compile(r'<(?:script|img|link|iframe)[^>]*?(?:src|href)="?(https?:)?//', re.DOTALL)
    for page in [*pages, *site.rglob("*.css")]:
        text = page.read_text()
        assert not loads.search(text), page
        assert not re.search(r"@import|url\((?:https?:)?//", text), page


def test_every_picture_is_there(site):
    count = 0
    for page in site.rglob("*.html"):
        for source in re.findall(r'<img[^>]*?src="([^"]+)"', page.read_text()):
            count += 1
            assert (page.parent / source).resolve().is_file(), (page.name, source)
    assert count >= 6


def test_the_configuration_page_has_every_key_with_a_meaning(site):
    page = (site / "configuration.html").read_text()
    keys = [f"algorithm.{f.name}" for f in fields(MktConfig) if not f.name.startswith("teacher")]
    keys += ["algorithm.teachers", *(f"algorithm.teacher.{key}" for key in ("seed", "store"))]
    not_there = {"parallel_collection"}  # which is BenchMARL's experiment.parallel_collection
    keys += [field.name for field in fields(MultiTaskConfig) if field.name not in not_there]
    keys += [field.name for field in fields(MultiTaskModelConfig) if field.name != "trunk"]
    for key in keys:
        row = re.search(rf"<td><code>{re.escape(key)}</code></td>\s*<td>.*?</td>\s*<td>(.*?)</td>",
                        page, re.DOTALL)  # fmt: skip
        assert row, key
    for path in (REPOSITORY / "conf").rglob("*.yaml"):
        assert f"={path.relative_to(REPOSITORY / 'conf').with_suffix('').parts[-1]}" in page or (
            path.stem in page
        )


def test_formulas_are_mathml_and_roles_are_gone(site):
    page = (site / "reference.html").read_text()
    assert page.count("<math") >= 3
    assert not re.search(r":(?:class|func|meth|math|attr):", page)
    assert 'class="arithmatex"' not in page


def test_all_commands_are_described(site):
    page = (site / "commands.html").read_text()
    for verb in VERBS:
        assert f"benchmarl {verb}" in page


def test_the_examples_page_shows_the_files(site):
    page = (site / "examples.html").read_text()
    for path in (DOCS / "examples").rglob("*.py"):
        names = [node.name for node in ast.parse(path.read_text()).body if hasattr(node, "name")]
        assert all(name in page for name in names)
