import json
import os
import shutil

import pytest
import torch
from benchmarl.models import MlpConfig

from benchmarl_mkt.models.serialisation import model_from_dict, model_to_dict
from benchmarl_mkt.teams import load_teacher
from benchmarl_mkt.teams.export import team_specs
from benchmarl_mkt.teams.folder import METADATA, WEIGHTS, TeamSpecs, checksum
from benchmarl_mkt.teams.frozen import calibrated_temperature
from tests.helpers import small_model


@pytest.fixture
def copy_of_teacher(teachers, tmp_path):
    """A folder to mangle."""
    return shutil.copytree(teachers.paths["simple_push"], tmp_path / "push")


def edit(folder, **changes):
    content = json.loads((folder / METADATA).read_text())
    content.update(changes)
    content["checksum"] = checksum(folder / WEIGHTS, content)
    (folder / METADATA).write_text(json.dumps(content))


def test_a_teacher_is_frozen_and_complete(teachers):
    env = teachers.task.get_env_fun(1, False, 0, "cpu")()
    for name, path in teachers.paths.items():
        teacher = load_teacher(path, team_specs(env, name))
        assert not teacher.model.training
        assert not any(p.requires_grad for p in teacher.parameters())
        assert teacher.kind == "values"
        assert teacher.temperature > 0
        assert teacher.score["low"] < teacher.score["mean"] < teacher.score["high"]
        observation = torch.randn(4, 3, teacher.specs.n_agents, teacher.specs.observation_size)
        values = teacher(observation)
        assert values.shape == (4, 3, teacher.specs.n_agents, teacher.specs.n_actions)
        torch.testing.assert_close(teacher(observation[1]), values[1])


@pytest.mark.parametrize("file", [WEIGHTS, METADATA])
def test_a_damaged_teacher_is_refused_by_its_folder(copy_of_teacher, file):
    content = bytearray((copy_of_teacher / file).read_bytes())
    content[-1 if file == WEIGHTS else 0] ^= 0xFF
    (copy_of_teacher / file).write_bytes(content)
    with pytest.raises(ValueError, match="is damaged or no teacher") as error:
        load_teacher(copy_of_teacher)
    assert str(copy_of_teacher) in str(error.value)
    assert "train it again" in str(error.value)


def test_missing_weights_or_folder_are_refused(copy_of_teacher, tmp_path):
    (copy_of_teacher / WEIGHTS).unlink()
    with pytest.raises(ValueError, match="damaged"):
        load_teacher(copy_of_teacher)
    with pytest.raises(ValueError, match="there is no teacher in"):
        load_teacher(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": "benchmarl-mkt-teacher/0"}, "benchmarl-mkt-teacher/0"),
        ({"kind": "poetry"}, "poetry"),
        ({"specs": {"n_agents": 2}}, "observation_size"),
        ({"temperature": None}, "damaged"),
        ({"model": {"name": "transformer"}}, "transformer"),
    ],
)
def test_wrong_metadata_is_refused(copy_of_teacher, changes, reason):
    edit(copy_of_teacher, **changes)
    with pytest.raises(ValueError, match="is damaged or no teacher") as error:
        load_teacher(copy_of_teacher)
    assert reason in str(error.value)


def test_other_sizes_are_both_in_the_message(teachers):
    wanted = TeamSpecs(2, 21, 7)
    with pytest.raises(ValueError, match="was made for") as error:
        load_teacher(teachers.paths["simple_push"], wanted)
    assert str(TeamSpecs(2, 21, 5)) in str(error.value)
    assert str(wanted) in str(error.value)


def test_a_teacher_of_another_task_is_refused_even_if_the_sizes_fit(teachers):
    path, specs = teachers.paths["simple_push"], TeamSpecs(2, 21, 5)
    assert load_teacher(path, specs, "mpe/simple_push").specs == specs
    with pytest.raises(ValueError, match="was trained on mpe/simple_push, but the task is other"):
        load_teacher(path, specs, "other")


def trunk_with(name: str) -> dict:
    trunk = {"name": "mlp", "num_cells": [4], "activation_class": name}
    return {"name": "multitask", "trunk": trunk}


def mlp_with(name: str) -> dict:
    return {**model_to_dict(MlpConfig.get_from_yaml()), "layer_class": name}


@pytest.mark.parametrize("model", [trunk_with, mlp_with])
@pytest.mark.parametrize("name", ["os.system", "torch.nn.functional.relu", "evil.Activation"])
def test_a_class_may_only_come_from_torch_nn(copy_of_teacher, model, name, monkeypatch, tmp_path):
    """Neither is the name called nor its module imported."""
    (tmp_path / "evil.py").write_text(
        "import torch\nfrom pathlib import Path\n"
        f"Path({str(tmp_path / 'mark')!r}).touch()\nActivation = torch.nn.ReLU\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(os, "system", lambda *_: (tmp_path / "mark").touch())
    edit(copy_of_teacher, model=model(name))
    with pytest.raises(ValueError, match="is damaged or no teacher") as error:
        load_teacher(copy_of_teacher)
    assert not (tmp_path / "mark").exists()
    assert name in str(error.value)


def test_models_survive_json():
    for config in (small_model(), MlpConfig.get_from_yaml()):
        data = json.loads(json.dumps(model_to_dict(config)))
        assert model_to_dict(model_from_dict(data)) == model_to_dict(config)


def test_unknown_fields_of_a_model_are_refused():
    with pytest.raises(ValueError, match="model"):
        model_from_dict({"name": "mlp", "width": 3})
    with pytest.raises(ValueError, match=r"model\.name"):
        model_from_dict({"num_cells": [3]})


# ---- calibration ----


def test_temperature_is_the_mean_gap_by_hand():
    values = torch.tensor([[1.0, 3.0, 2.5], [0.0, -1.0, 9.0], [5.0, 5.2, 0.0]])
    mask = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    # gaps 0.5 and 1; the last row has no choice
    assert calibrated_temperature(values, mask, "values") == pytest.approx(0.75)


def test_temperature_of_logits_is_one():
    assert calibrated_temperature(torch.randn(4, 3), torch.ones(4, 3).bool(), "logits") == 1.0


def test_temperature_is_positive_whatever_the_values():
    equal = torch.zeros(4, 3)
    assert calibrated_temperature(equal, torch.ones(4, 3).bool(), "values") > 0
    nothing = torch.zeros(4, 3, dtype=torch.bool)
    assert calibrated_temperature(equal, nothing, "values") == 1.0


def test_temperature_scales_with_the_values():
    values, mask = torch.randn(50, 4), torch.ones(50, 4, dtype=torch.bool)
    once = calibrated_temperature(values, mask, "values")
    assert calibrated_temperature(values * 100, mask, "values") == pytest.approx(100 * once)
