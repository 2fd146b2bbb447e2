import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from benchmarl_mkt.teachers import Recipe, TeacherStore
from benchmarl_mkt.teams.folder import FORMAT, METADATA, WEIGHTS, checksum

RECIPE = Recipe(
    task={"task": "mpe/simple_push", "config": {"max_cycles": 25}, "agent_id": True},
    algorithm={"name": "mkt", "double_q": True},
    model={"name": "multitask", "embedding_size": 64},
    experiment={"lr": 0.0005},
    seed=0,
)
WEIGHT = {"layer": torch.arange(6.0).view(2, 3).t()}  # not contiguous


def test_round_trip(tmp_path):
    store = TeacherStore(tmp_path / "new" / "store")
    assert RECIPE not in store
    assert store.entries() == []
    path = store.save(RECIPE, WEIGHT, {"kind": "values"})
    assert path == store.path(RECIPE)
    assert RECIPE in store
    assert store.entries() == [path]
    assert torch.equal(load_file(path / WEIGHTS)["layer"], WEIGHT["layer"])
    content = json.loads((path / METADATA).read_text())
    assert content["kind"] == "values"
    assert content["format"] == FORMAT
    assert content["checksum"] == checksum(path / WEIGHTS, content)
    assert Recipe(**content["recipe"]).digest == RECIPE.digest
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name]  # nothing left behind


def test_an_existing_teacher_is_kept(tmp_path):
    store = TeacherStore(tmp_path)
    first = store.save(RECIPE, WEIGHT, {"kind": "values"})
    before = (first / METADATA).read_text()
    assert store.save(RECIPE, {"layer": torch.zeros(1)}, {"kind": "logits"}) == first
    assert (first / METADATA).read_text() == before
    assert store.entries() == [first]


def test_a_failed_write_leaves_nothing(tmp_path):
    store = TeacherStore(tmp_path)
    with pytest.raises(TypeError):
        store.save(RECIPE, WEIGHT, {"score": object()})
    assert RECIPE not in store
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"task": {**RECIPE.task, "agent_id": False}},
        {"task": {**RECIPE.task, "config": {"max_cycles": 24}}},
        {"algorithm": {**RECIPE.algorithm, "double_q": False}},
        {"model": {**RECIPE.model, "embedding_size": 32}},
        {"experiment": {"lr": 0.0006}},
        {"seed": 1},
    ],
)
def test_the_address_changes_with_every_ingredient(changes, tmp_path):
    other = replace(RECIPE, **changes)
    assert other.digest != RECIPE.digest
    assert other.key != RECIPE.key
    store = TeacherStore(tmp_path)
    store.save(RECIPE, WEIGHT, {})
    assert other not in store


def test_the_address_does_not_depend_on_the_order_of_keys():
    shuffled = replace(RECIPE, task=dict(reversed(RECIPE.task.items())))
    assert shuffled.key == RECIPE.key
    assert RECIPE.key.startswith("mpe-simple-push-")
    assert len(RECIPE.digest) == 64


def test_the_default_place_follows_the_environment(own_store, monkeypatch, tmp_path):
    assert TeacherStore().root == own_store
    monkeypatch.delenv("BENCHMARL_MKT_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert TeacherStore().root == tmp_path / "cache" / "benchmarl_mkt" / "teachers"
    assert TeacherStore(tmp_path / "mine").root == tmp_path / "mine"
