import json

import pytest
from benchmarl_mkt.configuration.composition import (
    benchmarl_conf,
    check_keys,
    composed,
    jobs,
)
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from benchmarl_mkt.files import conf_path
from tests.configuration.test_wrong_input import CHOICES, KEYS
from tests.helpers import command

GOOD = ["algorithm=mkt", "task=multitask/mpe"]
WITHOUT_TORCH = """
import json, sys
from benchmarl_mkt.cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(["run", *arguments])
    except SystemExit as exit_:
        print(exit_.code)
print("torch" in sys.modules)
"""


def test_the_commonest_mistakes_are_found_without_torch(tmp_path, own_store):
    """Choices, keys and syntax: by the YAML files alone, in a fraction of a second."""
    later = ("added", "removed", "schema", "interpolation", "loop", "optimizer", "entry")
    cases = {**CHOICES, **{f"key-{name}": case for name, case in KEYS.items()}}
    cases = {name: case for name, case in cases.items() if not any(x in name for x in later)}
    found = command(
        "-c", WITHOUT_TORCH, json.dumps([overrides for overrides, _ in cases.values()]),
        cwd=tmp_path, store=own_store,
    )  # fmt: skip
    assert found.stdout.split() == ["2"] * len(cases) + ["False"], found.stderr
    for line, (_, message) in zip(found.stderr.splitlines(), cases.values(), strict=True):
        assert line.startswith("error: ")
        assert message in line
    assert len(cases) >= 12


def leaves(node: DictConfig, path: str = "") -> list[str]:
    found = []
    for name in node:
        key = f"{path}.{name}" if path else str(name)
        inner = node._get_node(name)
        if inner._is_interpolation():  # follows another key, which is the one to set
            continue
        is_mapping = isinstance(inner, DictConfig) and not inner._is_none() and len(inner)
        found += leaves(inner, key) if is_mapping else [key]
    return found


def files(group: str) -> list[str]:
    folders = [folder / group for folder in (benchmarl_conf(), conf_path())]
    return [
        path.relative_to(folder).with_suffix("").as_posix()
        for folder in folders
        for path in sorted(folder.rglob("*.yaml"))
    ]


GROUPS = ("algorithm", "experiment", "model")
TASKS = ["vmas/balance", "vmas/football", "mpe/simple_tag", "multitask/custom"]


@pytest.mark.parametrize(
    "choice",
    [f"{g}={c}" for g in GROUPS for c in files(g) if c != "sequence"]
    + [f"task={t}" for t in TASKS],
)
def test_the_yaml_files_alone_have_every_key_of_the_schemas(choice):
    """So that the first look never refuses what the second would accept."""
    group = choice.split("=")[0]
    overrides = [*(good for good in GOOD if good.split("=")[0] != group), choice]
    with composed(overrides) as cfg:
        keys = [key for key in leaves(cfg) if not key.startswith("hydra")]
    assert len(keys) > 30
    check_keys([*overrides, *(f"{key}=null" for key in keys)])


def test_nothing_of_a_composition_stays():
    before = HydraConfig.instance().cfg
    with composed([*GOOD, "seed=3"]) as cfg:
        assert cfg.seed == 3
        assert HydraConfig.get().runtime.choices.task == "multitask/mpe"
    assert HydraConfig.instance().cfg is before
    check_keys(GOOD)
    with composed(GOOD) as cfg:  # the schemas are back
        assert cfg.algorithm.mixer == "qmix"
        with pytest.raises(Exception, match="could not be converted"):
            cfg.experiment.lr = "fast"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["a=1", "b=2"], [["a=1", "b=2"]]),
        (["a=1,2", "b=3", "-m"], [["a=1", "b=3"], ["a=2", "b=3"]]),
        (["--multirun", "a=range(1,3)"], [["a=1"], ["a=2"]]),
        (["a=1,2", "--cfg", "job"], []),
        (["a=interval(0,1)", "-m"], []),
        (["a=glob(*)", "-m"], []),
        (["a=1,2", "hydra/sweeper=optuna", "-m"], []),
        (["a=1,2", "hydra.mode=MULTIRUN"], []),
    ],
)
def test_the_jobs_of_a_command_line(overrides, expected):
    """None where Hydra's own flags or a sweeper that we do not know decide."""
    assert jobs(overrides) == expected
