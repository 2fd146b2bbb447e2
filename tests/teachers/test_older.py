"""Teachers and teams that version 0.1 has written are read, and found."""

import json
import shutil

import pytest
import torch

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.models import EntityModelConfig
from benchmarl_mkt.teachers.find import find_teachers, missing_teachers
from benchmarl_mkt.teams import evaluate_team, load_team
from tests.helpers import PUSH, REPOSITORY, task_set

SPREAD = "mpe/simple_spread"
FOLDER = REPOSITORY / "tests" / "fixtures" / "0.1"


@pytest.fixture
def store(tmp_path):
    """A store as version 0.1 has left it: numbers that were whole in YAML are in its recipes."""
    teacher = "mpe-simple-push-d2c999a7c3a960b8"
    shutil.copytree(FOLDER / teacher, tmp_path / "store" / teacher)
    return tmp_path / "store"


def test_a_stored_teacher_is_found(store):
    """By the configuration that it was trained with, though its address is written otherwise."""
    task = task_set(PUSH)
    settings = MktConfig(teacher={"store": str(store)}).teacher_settings
    recipe = settings.recipe(task, "simple_push")
    assert not (store / recipe.key).exists()
    assert missing_teachers(settings, task) == {}
    env = task.get_env_fun(1, False, 0, "cpu")()
    teacher = find_teachers(settings, task, env)["simple_push"]
    assert teacher.score["mean"] == -15.438589027404785
    other = MktConfig(teacher={"store": str(store), "seed": 1}).teacher_settings
    assert list(missing_teachers(other, task)) == ["simple_push"]


def test_settings_that_came_later_are_not_in_recipes():
    """Until they differ from what held before: teachers from before keep their addresses."""
    settings = MktConfig().teacher_settings
    settings.model = EntityModelConfig()
    recipe = settings.recipe(task_set(SPREAD), "simple_spread")
    assert recipe.task["config"] == {"max_cycles": 25, "terminate_at_limit": True}
    assert "pooling" not in recipe.model
    settings.model = EntityModelConfig(pooling="attention")
    five = task_set({"task": SPREAD, "config": {"n_agents": 5}})
    recipe = settings.recipe(five, "simple_spread")
    assert (recipe.task["config"]["n_agents"], recipe.model["pooling"]) == (5, "attention")


def test_a_team_plays_as_it_did():
    team = load_team(FOLDER / "team")
    content = json.loads((FOLDER / "team" / "simple_push" / "teacher.json").read_text())
    score = evaluate_team(team, 500, seed=10_000)["simple_push"]["team"].returns
    assert score.mean == pytest.approx(content["score"]["mean"], rel=1e-5)
    values = team["simple_push"](torch.zeros(1, 2, 21))
    assert values.shape == (1, 2, 5)
