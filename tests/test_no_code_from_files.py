"""No file that is read can make this package run code: no pickle, no tag of YAML, no name.

Every test plants, where a file belongs, one that would leave a mark.
"""

import ast
import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from safetensors.torch import save_file

import benchmarl_mkt
from benchmarl_mkt.cli.jobs import KEYS
from benchmarl_mkt.environments import FrozenPolicy
from benchmarl_mkt.presets import benchmarl_conf, experiment_preset
from benchmarl_mkt.reporting.labels import read_labels
from benchmarl_mkt.reporting.runs import read_curves, read_run
from benchmarl_mkt.teachers import load_teacher
from benchmarl_mkt.teams import load_team
from benchmarl_mkt.teams.folder import METADATA, WEIGHTS, checksum
from benchmarl_mkt.training.resume import record
from benchmarl_mkt.training.resume.checkpoint import latest_checkpoint, read_checkpoint
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
    """Before any teacher is trained; BenchMARL reads ``restore_file`` after that."""
    (tmp_path / "evil.pt").write_bytes(payload(mark))
    status, _, error = cli(
        "run", *hydra_overrides(tmp_path), *SET, f"experiment.restore_file={tmp_path / 'evil.pt'}"
    )
    assert status == 2
    (line,) = error.splitlines()
    assert line.startswith(
        f"error: experiment.restore_file: {tmp_path / 'evil.pt'} is no checkpoint"
    )
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".safetensors"]


def test_a_pickle_beside_a_run_is_not_read(teachers, mark, tmp_path):
    """BenchMARL leaves config.pkl and checkpoints in a run's folder; a team does without."""
    run = tmp_path / "run"
    shutil.copytree(teachers.paths["simple_push"], run / "team" / "simple_push")
    (run / "config.pkl").write_bytes(plain(mark))
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "checkpoint_100.pt").write_bytes(of_torch(mark))
    assert list(load_team(run)) == ["simple_push"]


# ---- a run's record, which a run goes on from ----


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    """Write the record of a run into a folder, changed; the function returns the folder."""
    folder = tmp_path / "run"
    folder.mkdir()

    def write(key: str = "", value=None, *model: str, **changes) -> Path:
        overrides = [*hydra_overrides(folder)[1:], *(model or MODELS[0]), *SET[1:]]
        with initialize_config_dir(str(benchmarl_conf()), version_base=None):
            cfg = compose("config", overrides, return_hydra_config=True)
            monkeypatch.setattr(HydraConfig.instance(), "cfg", cfg)  # interpolations ask it
            config = OmegaConf.to_container(OmegaConf.masked_copy(cfg, KEYS), resolve=True)
            choices = cfg.hydra.runtime.choices
        choices = {k: v for k, v in choices.items() if not k.startswith("hydra/")}
        inner = config = {"choices": choices, **config}
        *path, last = key.split(".")
        for name in path:
            inner = inner[name]
        if last:
            inner[last] = value
        content = {
            "overrides": list(SET),
            "config": config,
            "hydra": {},
            "name": "mkt_custom_multitaskmodel__0",
            "finished": True,
            "format": record.FORMAT,
            **changes,
        }
        (folder / record.RECORD).write_text(json.dumps(content))
        return folder

    return write


ALONE = ("algorithm=mkt", "algorithm.annealing={start: 1, end: 1, fraction: 1}")
MODELS = [
    ("model=multitask", "model@critic_model=multitask", *ALONE),
    ("model=multitask_gru", *ALONE),
    ("model=multitask_entity", *ALONE),
    ("model=sequence", "model/layers@model.layers.l1=mlp", "model/layers@model.layers.l2=mlp",
     "model.intermediate_sizes=[8]", "algorithm=qmix"),
]  # fmt: skip


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model[0])
def test_an_honest_record_is_read(cli, run_folder, model):
    """So that what is refused below is refused for what was changed."""
    name = f"{'mkt' if 'algorithm=mkt' in model else 'qmix'}_custom_model__0"
    folder = run_folder("", None, *model, name=name)
    status, out, error = cli("resume", str(folder))
    assert (status, error) == (0, "")
    assert out == f"Finished already: {folder}\n"


def test_a_record_from_before_a_setting_was_there(cli, run_folder):
    folder = run_folder()
    content = json.loads((folder / record.RECORD).read_text())
    del content["config"]["algorithm"]["freeze_trunk"], content["config"]["task"]["only"]
    (folder / record.RECORD).write_text(json.dumps(content))
    status, out, error = cli("resume", str(folder))
    assert (status, error) == (0, ""), error
    assert out == f"Finished already: {folder}\n"


@pytest.mark.parametrize(
    "overrides",
    [
        ["+hydra.callbacks.evil={_target_: os.mkdir, path: MARK}"],
        ["++hydra.callbacks.evil._target_=os.mkdir", "++hydra.callbacks.evil.path=MARK"],
        ["hydra.launcher._target_=os.mkdir"],
        ["hydra/launcher=evil", "-m"],
        ["hydra.searchpath=[file://FOLDER]", "+x=evil"],
        ["+hydra={callbacks: {evil: {_target_: os.mkdir, path: MARK}}}"],
        ["--config-dir=FOLDER", "+x=evil"],
        ["--config-dir", "FOLDER", "+x=evil"],
        ["-cd", "FOLDER", "+x=evil"],
        ["-cd", "FOLDER", "+x@hydra.callbacks=evil"],
        ["--config-path=FOLDER/x", "--config-name=evil"],
        ["-cp", "FOLDER/x", "-cn", "evil"],
        ["--experimental-rerun", "FOLDER/evil.pickle"],
        ["+method@hydra.callbacks=../x/evil"],
        ["task=../../../../../../../../FOLDER/x/evil"],
        ["+model.trunk.activation_kwargs={path: MARK}", "model.trunk.activation_class=os.mkdir"],
        ["model=layers/mlp", "model.activation_class=os.mkdir"],
        ["seed=${oc.env:HOME}"],
    ],
    ids=" ".join,
)
def test_a_records_overrides_are_a_label(cli, mark, run_folder, tmp_path, overrides):
    """Nobody reads them again: the run is the one that its configuration says."""
    (tmp_path / "x").mkdir()
    evil = f"hydra:\n  callbacks:\n    evil:\n      _target_: os.mkdir\n      path: {mark}\n"
    (tmp_path / "x" / "evil.yaml").write_text("# @package _global_\n" + evil)
    (tmp_path / "evil.pickle").write_bytes(plain(mark))
    texts = [o.replace("MARK", str(mark)).replace("FOLDER", str(tmp_path)) for o in overrides]
    folder = run_folder(overrides=[*SET, *texts])
    status, out, error = cli("resume", str(folder))
    assert (status, out, error) == (0, f"Finished already: {folder}\n", "")


def test_the_overrides_bite(cli, tmp_path):
    """Given to Hydra they do run code: the test above can fail."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "evil.yaml").write_text(
        "# @package _global_\nhydra:\n  callbacks:\n    evil:\n      _target_: os.mkdir\n"
        f"      path: {tmp_path / 'mark'}\n"
    )
    flags = ("--config-dir", str(tmp_path), "+x=evil", *hydra_overrides(tmp_path))
    cli("run", *flags, *SET, "algorithm.annealing={start: 1, end: 1, fraction: 1}")
    assert (tmp_path / "mark").is_dir()


EVIL = {"_target_": "os.mkdir", "path": "MARK"}
VALUES = {
    "a-target-as-the-model": ("model", EVIL, "model.name: 'None' is not one of"),
    "a-target-as-the-experiment": ("experiment", EVIL, "Key '_target_' not in 'ExperimentConfig'"),
    "a-target-as-the-algorithm": ("algorithm", EVIL, "Key '_target_' not in 'MktConfig'"),
    "a-target-as-the-task": ("task", EVIL, "task: unknown keys ['_target_', 'path']"),
    "a-target-at-the-top": ("_target_", "os.mkdir", "_target_: unknown key"),
    "hydra-at-the-top": ("hydra", {"callbacks": {"evil": EVIL}}, "hydra: unknown key"),
    "defaults": ("defaults", ["x/evil"], "defaults: unknown key"),
    "a-class": ("model.trunk.activation_class", "os.mkdir", "must be a class of torch.nn"),
    "a-function-in-torch": (
        "model.trunk.activation_class", "torch.nn.modules.module.warnings.warn", "must be a class",
    ),
    "a-class-of-the-critic": ("critic_model.trunk.activation_class", "os.mkdir", "must be a class"),
    "classes": ("model.trunk.activation_class", ["os.mkdir"], "_class.0: 'os.mkdir' must be a"),
    "a-class-in-a-sequence": (
        "model.layers",
        {"l1": {"name": "mlp", "layer_class": "os.mkdir"}},
        "model.layers.l1.layer_class: 'os.mkdir' must be a class of torch.nn",
    ),
    "a-secret": ("experiment.project_name", "${oc.env:SECRET}", "must not be interpolated"),
    "a-secret-in-a-list": ("task.tasks", ["x", {"a": "${oc.env:SECRET}"}], "must not be interp"),
    "a-resolver": ("seed", "${device_of_job:0}", "must not be interpolated"),
    "a-task-elsewhere": ("choices.task", "../../FOLDER/evil", "is not registered"),
    "a-task-as-a-module": ("choices.task", "vmas/balance.os", "is not registered"),
    "no-task": ("choices.task", None, "choices: task must be a text"),
    "no-choices": ("choices", 3, "choices: task must be a text"),
    "a-model-by-path": ("model.name", "os.mkdir", "model.name: 'os.mkdir' is not one of"),
    "a-model-in-a-list": ("model.name", ["mlp"], "model.name"),
    "a-number-as-a-layer": ("model.layers", {"l1": 3}, "model.name: '3' is not one of"),
    "a-number-as-the-model": ("model", 3, "model: must be a mapping"),
    "no-seed": ("seed", None, "seed: None must be an integer"),
    "a-missing-value": ("experiment.lr", "???", "experiment.lr"),
    "a-text-as-a-number": ("experiment.lr", "fast", "Value 'fast'"),
    "an-unknown-key": ("experiment.evil", 1, "Key 'evil' not in 'ExperimentConfig'"),
    "an-unknown-key-of-the-task": ("task.evil", 1, "task: unknown keys ['evil']"),
}  # fmt: skip


@pytest.mark.parametrize("case", VALUES)
def test_a_records_values_cannot_name_code(cli, mark, run_folder, tmp_path, monkeypatch, case):
    monkeypatch.setenv("SECRET", "hunter2")
    key, value, message = VALUES[case]
    text = json.dumps(value).replace("MARK", str(mark)).replace("FOLDER", str(tmp_path))
    status, _, error = cli("resume", str(run_folder(key, json.loads(text))))
    assert status == 2, error
    (line,) = error.splitlines()
    assert line.startswith(f"error: resume: {tmp_path}/run/run.json: ")
    assert message in line
    assert "hunter2" not in line


@pytest.mark.parametrize("name", ["evil_custom_model__0", "mkt", "qmix_custom_model__0"])
def test_a_records_name_cannot_choose_a_class(cli, run_folder, name):
    """Of those registered it is the one that the values fit."""
    status, _, error = cli("resume", str(run_folder(name=name)))
    assert (status, error.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("experiment.restore_file", "evil.pt", "evil.pt is no checkpoint of BenchMARL's"),
        ("experiment.adam_extra_kwargs", EVIL, "cannot be set up (TypeError: "),
    ],
)
def test_what_a_record_names_is_not_called(cli, mark, run_folder, tmp_path, key, value, message):
    (tmp_path / "evil.pt").write_bytes(of_torch(mark))
    status, _, error = cli("resume", str(run_folder(key, value, finished=False)))
    assert status == 2
    (line,) = error.splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize(
    "changes",
    [
        {"hydra": {"../../mark": "written"}},
        {"hydra": {"/tmp/mark": "written"}},
        {"hydra": {"..": "written"}},
        {"hydra": {"config.yaml": 3}},
        {"hydra": ["config.yaml"], "name": "../mark"},
        {"name": "../mark"},
        {"name": "/mark"},
        {"name": ".."},
        {"name": 3},
        {"overrides": 3},
        {"overrides": [3]},
        {"overrides": None},
        {"cwd": 3},
        {"other": 3},
        {"config": {"seed": 1}, "hydra": {"../mark": "written"}},
    ],
)
def test_a_runs_record_cannot_name_files_elsewhere(cli, mark, run_folder, changes):
    status, _, error = cli("resume", str(run_folder(**changes)))
    assert status == 2
    assert error.startswith("error: resume: ")
    assert "is damaged" in error


def test_hydra_unpickles_nothing(cli, mark, tmp_path):
    (tmp_path / "evil.pickle").write_bytes(plain(mark))
    for flag in ("--experimental-rerun", "--experimental-r"):
        status, _, error = cli("run", flag, str(tmp_path / "evil.pickle"), *SET)
        assert (status, error.count("\n")) == (2, 1)
        assert error.startswith("error: --experimental-rerun: a pickle may run code; use benchmarl")


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
# What a file may call all the same: MPE's games by this package's own names, a function that the
# command line itself names, torch's reader of tensors and numbers alone.
EXCEPTIONS = {
    ("mpe", "games.py"): "importlib.import_module",
    ("cli", "jobs.py"): "importlib.import_module",
    ("resume", "checkpoint.py"): "torch.load",
}


def restricted(tree: ast.AST) -> set[ast.AST]:
    """The keywords of calls of ``torch.load`` with ``weights_only=True``; there are no others."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    keywords = set()
    for call in calls:
        if ast.unparse(call.func) == "torch.load":
            (own,) = (k for k in call.keywords if k.arg == "weights_only")
            assert ast.unparse(own.value) == "True"
            keywords.add(own)
    return keywords


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_the_source_never_asks_for_it(path):
    tree = ast.parse(path.read_text())
    harmless = restricted(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & FORBIDDEN_MODULES
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in FORBIDDEN_MODULES
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            assert not names & FORBIDDEN_CALLS
        elif isinstance(node, ast.Name | ast.Attribute):
            name = ast.unparse(node)
            excepted = EXCEPTIONS.get(path.parts[-2:]) == name
            assert name not in FORBIDDEN_CALLS or excepted, f"{path}:{node.lineno}: {name}"
            assert not name.endswith("weights_only"), f"{path}:{node.lineno}"
        elif isinstance(node, ast.keyword):
            allowed = node.arg not in ("allow_pickle", "weights_only") or node in harmless
            assert allowed, f"{path}:{node.lineno}"
