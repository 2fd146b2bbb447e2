"""Every code block of README and documentation is run."""

from pathlib import Path

import pytest

from benchmarl_mkt import presets
from benchmarl_mkt.algorithms import mkt
from tests.conftest import write_tiny_experiment
from tests.docs.blocks import (
    PLAIN,
    blocks,
    call,
    check_command,
    commands,
    documents,
    run_command,
    run_python,
)
from tests.docs.blocks import small as with_small_budget
from tests.helpers import REPOSITORY

SLOW = [path for path in documents() if any(block.mark == "slow" for block in blocks(path))]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A checkout's folder with a finished run in ``runs/mpe``, as the tutorial makes it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("benchmarks", "conf", "docs"):
        (folder / name).symlink_to(REPOSITORY / name)
    tiny = write_tiny_experiment(folder)
    first = ["run", "algorithm=mkt", "task=multitask/mpe", "hydra.run.dir=runs/mpe"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("BENCHMARL_MKT_STORE", str(folder / "store"))
        assert call(with_small_budget(first, tiny)) == 0
    return folder


@pytest.fixture
def inside(workspace, monkeypatch):
    """The workspace as working directory; presets are small in Python, too."""
    tiny, read = workspace / "tiny.yaml", presets.experiment_preset
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("BENCHMARL_MKT_STORE", str(workspace / "store"))
    for module in (presets, mkt):
        monkeypatch.setattr(module, "experiment_preset", lambda *_: read(str(tiny)))
    return tiny


def run_blocks(path: Path, tiny: Path, slow: bool) -> None:
    """Run a page's blocks from the top."""
    namespace = {"__name__": "page"}
    for block in blocks(path):
        if block.language in PLAIN:
            continue
        try:
            if block.mark == "slow" and not slow:
                for words in commands(block.text):
                    if words[:2] == ["benchmarl", "run"]:
                        check_command(words)
            elif block.language == "python":
                run_python(block.text, namespace, path, block.line)
            else:
                for words in commands(block.text):
                    run_command(words, block.mark, tiny)
        except ImportError as error:
            if "pip install 'benchmarl-mkt[" not in str(error):  # an extra that is not here
                raise
        except Exception as error:
            name = f"{path.relative_to(REPOSITORY)}:{block.line}"
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_blocks(path, inside):
    run_blocks(path, inside, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("path", SLOW, ids=lambda path: path.name)
def test_all_blocks(path, inside):
    run_blocks(path, inside, slow=True)


def test_every_block_can_be_run_or_says_why_not():
    found = [(path, block) for path in documents() for block in blocks(path)]
    assert {block.language for _, block in found} <= {*PLAIN, "python", "console"}
    assert all(block.reason for _, block in found if block.mark in ("slow", "hours"))
    fences = sum(path.read_text().count("\n```") for path in documents())
    assert fences == 2 * len(found)


def test_a_wrong_block_is_noticed(tmp_path, inside):
    page = tmp_path / "page.md"
    for block, message in (
        ("```python\nassert 1 == 2\n```", "AssertionError"),
        ("```console\nbenchmarl run algorithm=mkt task=nothing\n```", "status 2"),
        ("```console\nbenchmarl evaluate runs/none\n```", "status 2"),
        ("```console\nmake sandwich\n```", "make"),
        ("```console\npip install -e '.[sandwich]'\n```", "AssertionError"),
        ("<!-- blocks: fails -->\n```console\nbenchmarl tasks\n```", "status 0"),
    ):
        page.write_text(f"Text\n\n{block}\n")
        with pytest.MonkeyPatch.context() as patch, pytest.raises(AssertionError, match=message):
            patch.setattr("tests.docs.test_blocks.REPOSITORY", tmp_path)
            run_blocks(page, inside, slow=False)
