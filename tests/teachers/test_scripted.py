"""Teachers that are functions of the user's own."""

import json
import sys

import pytest
import torch
import yaml

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.teams.folder import TeamSpecs
from benchmarl_mkt.teams.scripted import scripted_team
from tests.helpers import PUSH, hydra_overrides, make_experiment, task_set

SPECS, TASK = TeamSpecs(2, 21, 5), {"tasks": [{"task": PUSH}]}
SET = ["algorithm=mkt", "task=multitask/custom", f"task.tasks=[{PUSH}]"]
NAMED = "algorithm.teachers={simple_push: own_policy:act}"


def act(observation):
    """The first five numbers that an agent sees."""
    return observation[..., :5]


def test_a_script_acts_and_teaches(tmp_path):
    team = scripted_team(act, SPECS, TASK)
    rows, mask = torch.randn(3, 4, 2, 21), torch.ones(3, 4, 2, 5, dtype=torch.bool)
    mask[..., 1] = False
    assert torch.equal(team.values(rows), rows[..., :5])
    best = rows[..., :5].masked_fill(~mask, -torch.inf).argmax(-1)
    assert torch.equal(team.act(rows, mask, {})["action"], best)
    algorithm = MktConfig(teachers={"simple_push": act})
    experiment = make_experiment(tmp_path, task_set(PUSH), algorithm)
    assert experiment.algorithm.teachers["simple_push"].model.script is act
    assert experiment.algorithm.temperatures == {"simple_push": 1.0}
    experiment.run()


def test_a_script_cannot_change_what_it_sees():
    def rude(observation):
        return observation.zero_()[..., :5]

    rows = torch.ones(3, 2, 21)
    assert not scripted_team(rude, SPECS, TASK).values(rows).any()
    assert rows.all()


def test_a_function_without_a_place_in_a_module_is_told():
    with pytest.raises(ValueError, match=r"^algorithm\.teachers: that of simple_push is .*lambda"):
        MktConfig(teachers={"simple_push": lambda observation: observation})


@pytest.mark.parametrize("wrong", [lambda o: o[..., :4], lambda o: o.argmax(-1), lambda o: None])
def test_a_script_that_gives_something_else_is_told(wrong):
    with pytest.raises(ValueError, match=r"^algorithm\.teachers: .* must give logits \[2, 2, 5\]"):
        scripted_team(wrong, SPECS, TASK)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module in the working directory, which leaves a mark when it is imported."""
    monkeypatch.delitem(sys.modules, "own_policy", raising=False)
    mark = tmp_path / "mark"
    (tmp_path / "own_policy.py").write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
        "def act(observation):\n    return observation[..., :5]\nnumber = 3\n"
    )
    return mark


def test_the_command_line_names_one_and_files_cannot(cli, module, tmp_path):
    run = ["run", *SET, *hydra_overrides(tmp_path / "run")]
    status, _, error = cli(*run, NAMED)
    assert status == 0, error
    assert module.exists()
    module.unlink()
    assert str(tmp_path) not in sys.path
    del sys.modules["own_policy"]  # to import it again would leave the mark again
    (record,) = (tmp_path / "run").glob("run.json")
    assert "own_policy:act" in record.read_text()
    (summary,) = (tmp_path / "run").glob("*/summary.json")
    assert json.loads(summary.read_text())["tasks"]["simple_push"]["temperature"] == 1.0

    status, _, error = cli("resume", str(tmp_path / "run"))
    assert status == 2
    assert "own_policy:act is a function, which the command line alone may name" in error

    method = tmp_path / "conf" / "method"
    method.mkdir(parents=True)
    content = {"algorithm": {"teachers": {"simple_push": "own_policy:act"}}}
    text = "# @package _global_\n" + yaml.safe_dump(content)
    (method / "own.yaml").write_text(text)
    new = ["run", *SET, *hydra_overrides(tmp_path / "new"), "+method=own"]
    status, _, error = cli(*new, f"hydra.searchpath=[file://{tmp_path / 'conf'}]")
    assert status == 2
    assert "which the command line alone may name" in error
    # Nor does a part of what was typed name one, nor what a file says behind a typed name.
    (tmp_path / "policy.py").write_text((tmp_path / "own_policy.py").read_text())
    content["algorithm"]["teachers"] = {"simple_push": "policy:act"}
    (method / "own.yaml").write_text("# @package _global_\n" + yaml.safe_dump(content))
    typed = "+algorithm.teachers.other=own_policy:act"
    status, _, error = cli(*new, f"hydra.searchpath=[file://{tmp_path / 'conf'}]", typed)
    assert status == 2
    assert "policy:act is a function, which the command line alone" in error
    assert not module.exists()


@pytest.mark.parametrize("name", ["own_policy:nothing", "nowhere:act", "own_policy:number"])
def test_what_is_no_function(cli, module, tmp_path, name):
    named = f"algorithm.teachers={{simple_push: {name}}}"
    status, _, error = cli("run", *SET, *hydra_overrides(tmp_path / "run"), named)
    assert status == 2
    assert error.startswith("error: algorithm.teachers: ")
    assert name in error
    assert not (tmp_path / "run").exists()
