"""No file that is read can make this package run code: no pickle, no tag of YAML, no name.

Every test plants, where a file belongs, one that would leave a mark.
"""

import ast
import hashlib
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

import benchmarl_mkt
from benchmarl_mkt.environments import FrozenPolicy
from benchmarl_mkt.reporting.labels import read_labels
from benchmarl_mkt.reporting.runs import read_curves, read_run
from benchmarl_mkt.resume import record
from benchmarl_mkt.resume.checkpoint import latest_checkpoint, read_checkpoint
from benchmarl_mkt.teachers import load_teacher
from benchmarl_mkt.teachers.find import experiment_preset
from benchmarl_mkt.teachers.store import METADATA, WEIGHTS, checksum
from benchmarl_mkt.teams import load_team
from tests.helpers import REPOSITORY, hydra_overrides

SET = ("algorithm=mkt", "task=multitask/custom", "task.tasks=[mpe/simple_push]")


class Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path):
    """Where the planted files would leave a mark."""
    path = tmp_path / "mark"
    yield path
    assert not path.exists(), "code from a file was run"


def plain(mark: Path) -> bytes:
    return pickle.dumps(Payload(mark))


def of_torch(mark: Path) -> bytes:
    path = mark.with_name("payload.pt")
    torch.save({"weights": Payload(mark)}, path)
    return path.read_bytes()


def of_old_torch(mark: Path) -> bytes:
    path = mark.with_name("payload.pt")
    torch.save({"weights": Payload(mark)}, path, _use_new_zipfile_serialization=False)
    return path.read_bytes()


def of_yaml(mark: Path) -> bytes:
    return f"methods: !!python/object/apply:os.mkdir [{mark}]\n".encode()


def of_yaml_class(mark: Path) -> bytes:
    return f"!!python/object/new:os.mkdir\nargs: [{mark}]\n".encode()


PAYLOADS = [plain, of_torch, of_old_torch, of_yaml, of_yaml_class]


@pytest.mark.parametrize(
    ("payload", "trusting"),
    [
        (plain, pickle.loads),
        (of_torch, None),
        (of_old_torch, None),
        (of_yaml, yaml.unsafe_load),
        (of_yaml_class, yaml.unsafe_load),
    ],
)
def test_the_payloads_bite(tmp_path, payload, trusting):
    """A trusting reader does run them: the tests below can fail."""
    content = payload(tmp_path / "mark")
    if trusting is None:
        torch.load(tmp_path / "payload.pt", weights_only=False)
    else:
        trusting(content)
    assert (tmp_path / "mark").is_dir()


def preset(path: Path):
    experiment_preset(str(path))


def run_record(path: Path):
    record.read_run(path.parent)


def checkpoint(path: Path):
    """Under its right checksum, too."""
    content = path.read_bytes()
    folder = path.parent / "checkpoints"
    folder.mkdir()
    named = folder / f"000000001-{hashlib.sha256(content).hexdigest()[:32]}.safetensors"
    named.write_bytes(content)
    assert latest_checkpoint(folder) is None
    read_checkpoint(named)


def summary(path: Path):
    read_run(path, "here")


READERS = {
    "opponent.safetensors": FrozenPolicy.load,
    "summary.json": summary,
    "evaluations.json": read_curves,
    "labels.yaml": read_labels,
    "preset.yaml": preset,
    "run.json": run_record,
    "000000001-0.safetensors": checkpoint,
}


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("name", READERS)
def test_files_are_read_and_not_run(mark, tmp_path, name, payload):
    (tmp_path / name).write_bytes(payload(mark))
    with pytest.raises(ValueError, match=r"."):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("file", [METADATA, WEIGHTS])
def test_teachers_and_teams_are_read_and_not_run(teachers, mark, tmp_path, file, payload):
    folder = shutil.copytree(teachers.paths["simple_push"], tmp_path / "team" / "simple_push")
    (folder / file).write_bytes(payload(mark))
    if file == WEIGHTS:  # under its right checksum, too
        content = json.loads((folder / METADATA).read_text())
        content["checksum"] = checksum(folder / WEIGHTS, content)
        (folder / METADATA).write_text(json.dumps(content))
    with pytest.raises(ValueError, match="damaged or no teacher"):
        load_teacher(folder)
    with pytest.raises(ValueError, match="damaged or no teacher"):
        load_team(tmp_path / "team")


def test_a_pickle_in_a_safetensors_header_stays_text(mark, tmp_path):
    save_file({"layers.0.weight": torch.zeros(2, 2)}, tmp_path / "p", {"format": str(plain(mark))})
    with pytest.raises(ValueError, match="its format is"):
        FrozenPolicy.load(tmp_path / "p")


@pytest.mark.parametrize("payload", [plain, of_torch, of_old_torch])
def test_a_checkpoint_of_benchmarl_is_read_and_not_run(cli, mark, tmp_path, payload):
    """BenchMARL reads ``restore_file`` itself; PyTorch refuses what is not weights."""
    (tmp_path / "evil.pt").write_bytes(payload(mark))
    status, _, error = cli(
        "run", *hydra_overrides(tmp_path), *SET, f"experiment.restore_file={tmp_path / 'evil.pt'}"
    )
    assert status == 2
    (line,) = error.splitlines()
    assert line.startswith("error: experiment: cannot be set up (UnpicklingError: Weights only")


def test_a_pickle_beside_a_run_is_not_read(teachers, mark, tmp_path):
    """BenchMARL leaves config.pkl and checkpoints in a run's folder; a team does without."""
    run = tmp_path / "run"
    shutil.copytree(teachers.paths["simple_push"], run / "team" / "simple_push")
    (run / "config.pkl").write_bytes(plain(mark))
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "checkpoint_100.pt").write_bytes(of_torch(mark))
    assert list(load_team(run)) == ["simple_push"]


# ---- a run's record, whose overrides go through Hydra again ----


def write_record(folder: Path, *overrides: str, **changes) -> None:
    content = {
        "overrides": [*hydra_overrides(folder)[1:], *SET, *overrides],
        "config": {},
        "hydra": {},
        "name": "run",
        "finished": False,
        "format": record.FORMAT,
        **changes,
    }
    (folder / record.RECORD).write_text(json.dumps(content))


@pytest.mark.parametrize(
    "override",
    [
        "+hydra.callbacks.evil={_target_: os.mkdir, path: MARK}",
        "++hydra.callbacks.evil._target_=os.mkdir",
        "hydra.launcher._target_=os.mkdir",
        "hydra/launcher=evil",
        "hydra.searchpath=[file://MARK]",
        "+hydra={callbacks: {evil: {_target_: os.mkdir, path: MARK}}}",
        "+method@hydra.callbacks=../evil",
        "task=../../../../../../../../FOLDER/evil",
        "+model.trunk.activation_kwargs={path: MARK} model.trunk.activation_class=os.mkdir",
        "model=layers/mlp model.activation_class=os.mkdir model.activation_kwargs={path: MARK}",
        "model.trunk.activation_class=torch.nn.modules.module.warnings.warn",
    ],
)
def test_a_runs_record_cannot_name_code(cli, mark, tmp_path, override):
    (tmp_path / "evil.yaml").write_text(
        "# @package _global_\nhydra:\n  callbacks:\n    evil:\n      _target_: os.mkdir\n"
        f"      path: {mark}\n"
    )
    override = override.replace("MARK", str(mark)).replace("FOLDER", str(tmp_path))
    write_record(tmp_path, *re.split(r" (?=model)", override))
    status, _, error = cli("resume", str(tmp_path))
    assert status == 2, error
    (line,) = error.splitlines()
    assert line.startswith("error: ")


@pytest.mark.parametrize(
    "changes",
    [
        {"hydra": {"../../mark": "written"}},
        {"hydra": {"/tmp/mark": "written"}},
        {"hydra": {"..": "written"}},
        {"hydra": ["config.yaml"], "name": "../mark"},
        {"name": "../mark"},
        {"name": "/mark"},
        {"name": ".."},
        {"name": 3},
        {"overrides": 3},
        {"overrides": [3]},
        {"overrides": None},
        {"config": {"seed": 1}, "hydra": {"../mark": "written"}},
    ],
)
def test_a_runs_record_cannot_name_files_elsewhere(cli, mark, tmp_path, changes):
    folder = tmp_path / "run"
    folder.mkdir()
    write_record(folder, **changes)
    status, _, error = cli("resume", str(folder))
    assert status == 2
    assert error.startswith("error: resume: ")
    assert "is damaged" in error


# ---- the package itself ----

FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen"),
    *("torch.load", "torch.jit.load", "np.load", "numpy.load", "importlib.import_module"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.Loader"),
    *("yaml.UnsafeLoader", "yaml.FullLoader", "hydra.utils.instantiate", "instantiate"),
}
SOURCES = sorted(
    path
    for package in (Path(benchmarl_mkt.__file__).parent, REPOSITORY / "hydra_plugins")
    for path in package.rglob("*.py")
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_the_source_never_asks_for_it(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & FORBIDDEN_MODULES
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in FORBIDDEN_MODULES
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            assert not names & FORBIDDEN_CALLS
        elif isinstance(node, ast.Name | ast.Attribute):
            name = ast.unparse(node)
            of_mpe2 = (path.name, name) == ("mpe_games.py", "importlib.import_module")
            assert name not in FORBIDDEN_CALLS or of_mpe2, f"{path}:{node.lineno}: {name}"
            assert not name.endswith("weights_only"), f"{path}:{node.lineno}"
        elif isinstance(node, ast.keyword):
            assert node.arg not in ("allow_pickle", "weights_only"), f"{path}:{node.lineno}"
