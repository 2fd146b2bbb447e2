import hashlib
import json
import shutil
from dataclasses import asdict, replace

import pytest
import yaml
from benchmarl.experiment import ExperimentConfig

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.files import conf_path
from benchmarl_mkt.presets import experiment_preset
from benchmarl_mkt.teachers import Recipe
from benchmarl_mkt.teachers.find import (
    find_teachers,
    missing_teachers,
)
from benchmarl_mkt.teachers.settings import game_of
from benchmarl_mkt.teams.folder import FORMAT
from tests.conftest import write_tiny_experiment
from tests.helpers import PUSH, SPEAKER, make_experiment, task_set

CHASED = {"task": "mpe/simple_adversary", "opponents": {"adversary": "simple_adversary_chaser"}}


def digest(tasks=(PUSH,), name="simple_push", of_set=None, **config) -> str:
    task = task_set(*tasks, **(of_set or {}))
    return MktConfig(**config).teacher_settings.recipe(task, name).digest


@pytest.mark.parametrize(
    "other",
    [
        {"teacher": {"seed": 1}},
        {"teacher": {"experiment": "mkt_paper"}},
        {"of_set": {"agent_id": False}},
        {"of_set": {"reward": "mean"}},
        {"tasks": [{"task": PUSH, "config": {"max_cycles": 9}}]},
        {"tasks": [SPEAKER], "name": "simple_speaker_listener"},
    ],
    ids=lambda other: "-".join(other),
)
def test_what_makes_another_teacher(other):
    assert digest(**other) != digest()


def test_the_opponent_makes_another_teacher():
    free = digest(["mpe/simple_adversary"], "simple_adversary")
    assert digest([CHASED], "simple_adversary") != free


def test_the_experiment_file_counts_by_its_content(tmp_path):
    first = digest(teacher={"experiment": str(write_tiny_experiment(tmp_path))})
    again = tmp_path / "elsewhere"
    again.mkdir()
    assert digest(teacher={"experiment": str(write_tiny_experiment(again))}) == first
    for changes, same in (
        ({"lr": 0.5}, False),
        ({"evaluation_episodes": 3}, False),
        ({"loggers": ["csv"], "create_json": False, "save_folder": "x"}, True),
    ):
        path = str(write_tiny_experiment(tmp_path, **changes))
        assert (digest(teacher={"experiment": path}) == first) is same


@pytest.mark.parametrize(
    "same",
    [
        {"temperature": 2.0},
        {"annealing": {"start": 0.0, "end": 0.0, "fraction": 1.0}},
        {"mixer": "vdn"},
        {"update": "joint"},
        {"tasks": [SPEAKER, PUSH]},
        {"tasks": [{"task": PUSH, "name": "renamed"}], "name": "renamed"},
    ],
    ids=lambda same: "-".join(same),
)
def test_the_student_and_the_rest_of_the_set_make_no_other_teacher(same):
    assert digest(**same) == digest()


def test_missing_teachers_are_named_in_one_error(own_store, tmp_path):
    task, config = task_set(PUSH, SPEAKER), MktConfig()
    missing = missing_teachers(config.teacher_settings, task)
    assert list(missing) == [
        "simple_push",
        "simple_speaker_listener",
    ]
    with pytest.raises(ValueError, match="benchmarl teachers train") as error:
        make_experiment(tmp_path, task, config)
    message = str(error.value)
    assert "simple_push, simple_speaker_listener" in message
    assert str(own_store) in message
    assert "\n" not in message


def test_trained_and_named_teachers_are_found(teachers, tmp_path):
    env = teachers.task.get_env_fun(1, False, 0, "cpu")()
    assert missing_teachers(teachers.config().teacher_settings, teachers.task) == {}
    found = find_teachers(teachers.config().teacher_settings, teachers.task, env)
    assert {name: teacher.path for name, teacher in found.items()} == teachers.paths
    own = shutil.copytree(teachers.paths["simple_push"], tmp_path / "mine")
    named = teachers.config(teachers={"simple_push": str(own)})
    assert find_teachers(named.teacher_settings, teachers.task, env)["simple_push"].path == own


def test_unfit_teachers_are_refused_before_training(teachers, tmp_path):
    wrong = {"simple_push": str(teachers.paths["simple_speaker_listener"])}
    cases = {
        "was made for": wrong,
        r"algorithm\.teachers: \['simple_tag'\] are not in the task set": {"simple_tag": "x"},
        "there is no teacher in": {"simple_push": str(tmp_path / "nowhere")},
    }
    for message, named in cases.items():
        with pytest.raises(ValueError, match=message):
            make_experiment(tmp_path, teachers.task, teachers.config(teachers=named))


@pytest.mark.parametrize("name", ["mkt_quick", "mkt_paper"])
def test_presets_build_on_benchmarls_defaults(name):
    preset = experiment_preset(name)
    content = yaml.safe_load((conf_path() / "experiment" / f"{name}.yaml").read_text())
    content.pop("defaults")
    for key, value in content.items():
        assert getattr(preset, key) == value
    base = asdict(ExperimentConfig.get_from_yaml())
    paper = yaml.safe_load((conf_path() / "experiment" / "mkt_paper.yaml").read_text())
    untouched = set(base) - set(content) - set(paper)
    assert {key: getattr(preset, key) for key in untouched} == {k: base[k] for k in untouched}
    assert preset.off_policy_train_batch_size == 800  # from mkt_paper in both


def test_unknown_presets_and_keys_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^experiment: there is no .*'mkt_slow'.*mkt_quick"):
        experiment_preset("mkt_slow")
    path = tmp_path / "odd.yaml"
    path.write_text("learning_rate: 3\n")
    with pytest.raises(ValueError, match=r"experiment\.learning_rate: Key .*odd\.yaml\)$"):
        experiment_preset(str(path))


def test_another_version_of_a_game_has_teachers_of_its_own(monkeypatch):
    """The versions that stores were first filled with keep their keys; VMAS has none of them."""
    config, versions = MktConfig(), {"mpe2": "1.1.1", "vmas": "1.5.2"}
    monkeypatch.setattr("benchmarl_mkt.teachers.settings.version", lambda name: versions[name])
    task = task_set(PUSH, "vmas/balance")
    push, balance = (
        config.teacher_settings.recipe(task, name) for name in ("simple_push", "balance")
    )
    assert push.game == ""
    assert replace(push, game="").digest == push.digest
    assert balance.game == "vmas 1.5.2"
    versions |= {"mpe2": "1.1.2", "vmas": "1.5.3"}
    later = [config.teacher_settings.recipe(task, name) for name in ("simple_push", "balance")]
    assert later[0].game == "mpe2 1.1.2"
    assert later[0].digest != push.digest
    assert later[1].digest != balance.digest


def test_recipes_written_before_games_had_versions_keep_their_keys():
    """The digest is that of the fields that there were."""
    recipe = MktConfig().teacher_settings.recipe(task_set(PUSH), "simple_push")
    old = {key: value for key, value in asdict(recipe).items() if key != "game"}
    content = {"format": FORMAT, "version": 1, **old}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert Recipe(**old).digest == hashlib.sha256(text.encode()).hexdigest()


def test_a_users_own_game_has_no_version():
    assert game_of("own/rows") == ""
    assert game_of("meltingpot/never_installed") == ""
