"""The examples of ``docs/examples``, for real and small."""

import importlib.util
import json

import pytest
import torch
import yaml

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.teachers import load_teacher
from benchmarl_mkt.teams import export_team
from tests.conftest import write_tiny_experiment
from tests.helpers import (
    PUSH,
    REPOSITORY,
    SPEAKER,
    TINY,
    command,
    hydra_overrides,
    make_experiment,
    task_set,
)

EXAMPLES = REPOSITORY / "docs" / "examples"
ALONE = {"start": 1.0, "end": 1.0, "fraction": 1.0}
SMALL = {key: TINY[key] for key in TINY if key not in ("lr", "prefer_continuous_actions")}


def example(name):
    """Import an example by its path, as a user's script is: not as a module of a package."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_environment_of_ones_own(tmp_path, own_store):
    """With its teacher, trained in a process of its own that must know the task."""
    preset = write_tiny_experiment(tmp_path)
    found = command(
        str(EXAMPLES / "own_environment.py"), f"algorithm.teacher.experiment={preset}",
        *hydra_overrides(tmp_path), cwd=tmp_path, store=own_store,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-3000:]
    assert "Training 2 teachers: meet, simple_push" in found.stdout
    (summary,) = tmp_path.glob("mkt_*/summary.json")
    meet = json.loads(summary.read_text())["tasks"]["meet"]
    assert meet["frames"] == 100
    # Two uniform places of nine lie (9 - 1/9) / 3 apart on average; paid so at every step of 25.
    assert meet["random"]["mean"] == pytest.approx(-25 * (9 - 1 / 9) / 3 / 9, abs=1.0)
    assert len(list(own_store.glob("corridor-meet-*/teacher.json"))) == 1


def test_the_environment_keeps_torchrls_rules():
    from torchrl.envs.utils import check_env_specs

    env = example("own_environment").CorridorEnv(3, 0, "cpu")
    check_env_specs(env)
    data = env.rollout(60, break_when_any_done=False)
    assert data["next", "done"].sum() == 3 * 2


def test_a_game_of_pettingzoos(tmp_path, own_store, monkeypatch):
    pytest.importorskip("pymunk", reason="needs pettingzoo[butterfly]")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    alone = "algorithm.annealing={start:1,end:1,fraction:1}"
    game = "{task:butterfly/knights_archers_zombies,config:{max_cycles:10}}"
    found = command(
        str(EXAMPLES / "pettingzoo_game.py"), f"task.tasks=[{game},mpe/simple_push]",
        alone, "experiment.parallel_collection=true", "task.final_episodes=4",
        *hydra_overrides(tmp_path), cwd=tmp_path, store=own_store,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-3000:]
    (summary,) = tmp_path.glob("*/summary.json")
    tasks = json.loads(summary.read_text())["tasks"]
    assert set(tasks) == {"knights_archers_zombies", "simple_push"}
    assert tasks["knights_archers_zombies"]["frames"] > 0


def test_a_teacher_from_mappo(tmp_path):
    student = example("teacher_from_mappo").main(tmp_path, **SMALL)
    teacher = load_teacher(tmp_path / "mappo_teacher", task="mpe/simple_push")
    assert (teacher.kind, teacher.metadata["algorithm"]) == ("logits", "mappo")
    taught = student.algorithm.teachers["simple_push"]
    assert taught.path == teacher.path
    assert student.total_frames == 100


def test_a_task_set_of_ones_own(tmp_path, own_store):
    path = EXAMPLES / "set" / "mixed.yaml"
    content = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert len(content) <= 10
    found = command(
        "-m", "benchmarl_mkt.cli", "run", "--config-dir", str(EXAMPLES), "+set=mixed",
        f"algorithm.teacher.experiment={write_tiny_experiment(tmp_path)}",
        *hydra_overrides(tmp_path), cwd=tmp_path, store=own_store,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-3000:]
    (summary,) = tmp_path.glob("mkt_*/summary.json")
    assert set(json.loads(summary.read_text())["tasks"]) == {"simple_push", "balance_of_three"}
    assert yaml.safe_load(path.read_text())["algorithm"] == {"mixer": "vdn"}


def test_a_gru_trunk(tmp_path):
    preset = write_tiny_experiment(tmp_path)
    student = example("gru_trunk").main(tmp_path / "run", str(preset), 8, **SMALL)
    agents = student.algorithm.policy.agents
    assert set(agents) == {"simple_speaker_listener", "simple_push", "simple_adversary"}
    assert all(agent.is_recurrent for agent in agents.values())
    assert len({id(agent.trunk) for agent in agents.values()}) == 1
    assert student.total_frames == 100


def test_the_parts_alone_with_and_without_teachers(tmp_path):
    loop = example("torchrl_loop")
    experiment = make_experiment(tmp_path, task_set(PUSH, SPEAKER), MktConfig(annealing=ALONE))
    experiment.run()
    team = export_team(experiment, tmp_path / "team")
    alone, taught, again = (loop.main(40, of) for of in (None, team, team))
    assert len(alone) == len(taught) == 4
    assert {row["alpha"] for row in alone} == {1.0}
    assert {row["kl"] for row in alone} == {0.0}
    assert [round(row["alpha"], 4) for row in taught] == [0.2667, 0.4333, 0.5, 0.5]
    assert all(row["kl"] > 0 for row in taught)
    assert taught == again
    assert torch.isfinite(torch.tensor([list(row.values()) for row in taught])).all()
    # What is trained is what acts: the students part ways.
    assert alone[-1]["simple_push"] != taught[-1]["simple_push"]
