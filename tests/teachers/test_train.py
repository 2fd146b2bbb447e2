import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from benchmarl.algorithms import IqlConfig, MappoConfig, QmixConfig
from benchmarl.models import MlpConfig
from tensordict import TensorDict

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.teachers import export_teacher, load_teacher, train_teacher
from benchmarl_mkt.teams.evaluation import greedy_policy, play
from benchmarl_mkt.teams.export import teams_of
from tests.conftest import write_tiny_experiment
from tests.helpers import PUSH, REPOSITORY, make_experiment, play_as_torchrl, small_model, task_set
from tests.toys import DEFAULTS, ToyTask, toy

ALONE = {"start": 1.0, "end": 1.0, "fraction": 1.0}
SET = (
    toy("one", groups={"agents": [2, 3, 0]}, length=5, masked=True),
    toy("two", groups={"agents": [2, 4, 3]}, length=3, spread=4),
)


def test_training_a_teacher(tmp_path):
    """Scored on fresh episodes, with everything that made it, and found the next time."""
    config = MktConfig(
        teacher={
            "store": str(tmp_path / "store"),
            "experiment": str(write_tiny_experiment(tmp_path)),
        },
    )
    task, seen = task_set(*SET), []
    path = train_teacher(config.teacher_settings, task, "one", lambda *news: seen.append(news))
    assert [news[:2] for news in seen] == [(50, 100), (100, 100)]
    teacher = load_teacher(path)
    metadata = teacher.metadata
    assert (metadata["frames"], metadata["seed"]) == (100, 0)
    assert metadata["task"]["tasks"][0]["name"] == "one"
    played = play(task.single("one"), greedy_policy({"one": teacher}), 200, seed=3)
    assert played.returns["one"].mean().item() == pytest.approx(teacher.score["mean"], rel=0.1)
    modified = (path / "teacher.json").stat().st_mtime_ns
    again = train_teacher(
        config.teacher_settings, task, "one", lambda *_: pytest.fail("trained again")
    )
    assert again == path
    assert (path / "teacher.json").stat().st_mtime_ns == modified


@pytest.mark.parametrize(
    ("algorithm", "model", "kind"),
    [
        (QmixConfig, small_model(), "values"),
        (IqlConfig, MlpConfig.get_from_yaml(), "values"),
        (MappoConfig, small_model(), "logits"),
        (MappoConfig, MlpConfig.get_from_yaml(), "logits"),
    ],
    ids=["qmix-multitask", "iql-mlp", "mappo-multitask", "mappo-mlp"],
)
def test_any_discrete_run_becomes_a_teacher(algorithm, model, kind, tmp_path):
    experiment = make_experiment(tmp_path, task_set(*SET), algorithm.get_from_yaml(), model)
    experiment.run()
    for group, (size, n_actions) in {"one": (5, 3), "two": (8, 4)}.items():
        path = export_teacher(experiment, group, tmp_path / f"teacher_{group}")
        teacher = load_teacher(path)
        assert teacher.kind == kind
        assert (teacher.temperature == 1.0) is (kind == "logits")
        agents, observation = teams_of(experiment)[group].model, torch.randn(6, 2, size)
        data = TensorDict({group: TensorDict({"observation": observation}, [6, 2])}, [6])
        expected = agents(data)[agents.out_key].detach()
        assert expected.shape == (6, 2, n_actions)
        torch.testing.assert_close(teacher(observation), expected)
        assert expected.std() > 0


def test_an_exported_teacher_teaches(tmp_path):
    experiment = make_experiment(tmp_path, task_set(*SET), QmixConfig.get_from_yaml())
    experiment.run()
    folders = {g: str(export_teacher(experiment, g, tmp_path / g)) for g in ("one", "two")}
    student = make_experiment(tmp_path, task_set(*SET), MktConfig(teachers=folders))
    student.run()
    assert {t.metadata["algorithm"] for t in student.algorithm.teachers.values()} == {"qmix"}


def test_agents_with_parameters_of_their_own_can_teach(tmp_path):
    experiment = make_experiment(
        tmp_path,
        task_set(*SET),
        QmixConfig.get_from_yaml(),
        MlpConfig.get_from_yaml(),
        share_policy_params=False,
    )
    experiment.run()
    teacher = load_teacher(export_teacher(experiment, "one", tmp_path / "teacher"))
    observation = torch.randn(1, 1, 5).expand(4, 2, 5)
    values = teacher(observation)
    assert not torch.equal(values[:, 0], values[:, 1])  # the two agents differ


def test_what_cannot_be_exported(tmp_path):
    experiment = make_experiment(tmp_path, task_set(*SET), QmixConfig.get_from_yaml())
    with pytest.raises(ValueError, match=r"group: 'three' is not one of \['one', 'two'\]"):
        export_teacher(experiment, "three", tmp_path / "new")
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="exists"):
        export_teacher(experiment, "one", tmp_path / "there")
    experiment.close()
    bare = make_experiment(
        tmp_path, ToyTask.VECTOR.get_task(dict(DEFAULTS)), QmixConfig.get_from_yaml()
    )
    with pytest.raises(ValueError, match="a teacher must come from a task set"):
        export_teacher(bare, "agents", tmp_path / "bare")
    bare.close()


def test_two_processes_train_a_missing_teacher_once(tmp_path):
    write_tiny_experiment(tmp_path)
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent("""
        import sys, time
        from pathlib import Path
        import torch
        import benchmarl_mkt
        from tests.helpers import task_set
        from tests.toys import register_toys, toy

        torch.set_num_threads(1)
        benchmarl_mkt.register()
        register_toys()
        from benchmarl_mkt.algorithms import MktConfig
        from benchmarl_mkt.teachers import train_teacher

        folder, number = Path(sys.argv[1]), sys.argv[2]
        config = MktConfig(
            teacher={"store": str(folder / "store"), "experiment": str(folder / "tiny.yaml")}
        )
        task = task_set(toy("one", length=5))
        (folder / f"ready_{number}").touch()
        while not all((folder / f"ready_{n}").exists() for n in "01"):
            time.sleep(0.01)
        trained = []
        settings = config.teacher_settings
        path = train_teacher(settings, task, "one", lambda *news: trained.append(news))
        print("RESULT", len(trained) > 0, path)
        """)
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(script), str(tmp_path), number],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in "01"
    ]
    outputs = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    lines = [next(x for x in out.splitlines() if x.startswith("RESULT")) for out, _ in outputs]
    trained, paths = zip(*(line.split()[1:] for line in lines))
    assert sorted(trained) == ["False", "True"]
    assert paths[0] == paths[1]
    assert json.loads((tmp_path / "store").joinpath(paths[0], "teacher.json").read_text())


def test_a_recurrent_teacher(tmp_path):
    """Trained, scored and asked as a sequence it gives what the agents give step by step."""
    config = MktConfig(
        teacher={
            "store": str(tmp_path / "store"),
            "experiment": str(write_tiny_experiment(tmp_path)),
            "model": "multitask_gru",
            "algorithm": {"mixer": "none", "hysteresis": 0.4},
        },
    )
    task = task_set(PUSH)
    teacher = load_teacher(train_teacher(config.teacher_settings, task, "simple_push"))
    assert teacher.is_recurrent
    experiment = make_experiment(
        tmp_path, task, MktConfig(annealing=ALONE, mixer="none"), config.teacher_settings.model
    )
    teams_of(experiment)["simple_push"].model.load_state_dict(teacher.model.state_dict())
    seen = []
    policy = greedy_policy({"simple_push": teacher}, lambda _, values, data: seen.append(values))
    played = play(task, policy, 8, seed=5)
    stepwise = play_as_torchrl(experiment, 8, seed=5)
    torch.testing.assert_close(played.returns, stepwise.returns)
    assert len(seen) == 25
    assert seen[0].shape == (8, 2, 5)
    experiment.close()


def test_a_student_learns_from_mappo_teachers(tmp_path):
    config = MktConfig(
        teacher={
            "store": str(tmp_path / "store"),
            "experiment": str(write_tiny_experiment(tmp_path)),
            "algorithm": {"name": "mappo", "entropy_coef": 0.01},
        },
    )
    task = task_set(PUSH)
    teacher = load_teacher(train_teacher(config.teacher_settings, task, "simple_push"))
    assert (teacher.kind, teacher.temperature) == ("logits", 1.0)
    assert teacher.metadata["recipe"]["algorithm"]["name"] == "mappo"
    assert teacher.metadata["recipe"]["algorithm"]["entropy_coef"] == 0.01
    kept = teacher.metadata["recipe"]["experiment"]
    assert "on_policy_minibatch_size" in kept
    assert not any(key.startswith("off_policy_") for key in kept)
    experiment = make_experiment(tmp_path, task, config)
    assert experiment.algorithm.temperatures == {"simple_push": 1.0}
    experiment.run()


def test_a_student_learns_from_recurrent_teachers(tmp_path):
    """Whatever its own trunk: values are stored for whole episodes."""
    config = MktConfig(
        teacher={
            "store": str(tmp_path / "store"),
            "experiment": str(write_tiny_experiment(tmp_path)),
            "model": "multitask_gru",
        },
    )
    task = task_set(PUSH)
    train_teacher(config.teacher_settings, task, "simple_push")
    experiment = make_experiment(tmp_path, task, config)
    batch = next(iter(experiment.collector))
    (teacher,) = experiment.algorithm.teachers.values()
    observation = batch["simple_push", "observation"]
    starts = torch.zeros(2, 25, 1, dtype=torch.bool)
    starts[:, 0] = True
    whole = teacher(observation, starts)
    torch.testing.assert_close(batch["simple_push", "teacher_values"], whole)
    forgetful = teacher(observation, torch.ones_like(starts))
    assert (whole - forgetful)[:, 3].abs().max() > 1e-6  # it does remember
    experiment.close()
