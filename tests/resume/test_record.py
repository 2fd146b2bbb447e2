import json

import pytest
from filelock import FileLock

from benchmarl_mkt.training.resume.record import RECORD, open_run, read_run
from tests.processes import in_process, start, wait_for

CONFIG = {"seed": 0, "experiment": {"lr": 0.1, "loggers": ["csv"]}, "task": {"tasks": [1, 2]}}


@pytest.fixture
def folder(tmp_path):
    """A folder as Hydra leaves it to a job."""
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- seed=0\n")
    return tmp_path


def test_the_same_configuration_is_taken_up_again(folder):
    with open_run(folder, ["seed=0"], CONFIG, "first") as record:
        assert (record.name, record.finished) == ("first", False)
    with open_run(folder, [], CONFIG, "second") as record:
        assert (record.name, record.overrides) == ("first", ["seed=0"])
        record.note(folder, finished=True)
    assert read_run(folder).finished


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, "seed: 0 there, 1 here; use another folder"),
        ({"experiment": {"lr": 0.1}}, r"experiment.loggers: \['csv'\] there, None here"),
        ({"new": {"deep": True}}, "new.deep: None there, True here"),
        (dict.fromkeys("abcde", 1), "b: None there, 1 here; c: None there, 1 here and 2 more"),
    ],
)
def test_another_configuration_is_refused(changed, message, folder):
    """And the files that Hydra has overwritten meanwhile are those of the run again."""
    with open_run(folder, [], CONFIG, "name"):
        pass
    (folder / ".hydra" / "overrides.yaml").write_text("- seed=1\n")
    with (
        pytest.raises(ValueError, match=f"hydra.run.dir: the run in {folder} .*{message}"),
        open_run(folder, [], {**CONFIG, **changed}, "name"),
    ):
        pytest.fail("opened")
    assert (folder / ".hydra" / "overrides.yaml").read_text() == "- seed=0\n"


@pytest.mark.parametrize("how", [{"parallel_collection": False}, {"final_episodes": 9}])
def test_a_run_from_before_a_setting_of_how_it_is_run_is_taken_up(how, folder):
    with open_run(folder, [], CONFIG, "first"):
        pass
    changed = {**CONFIG, "task": {**CONFIG["task"], **how}}
    with open_run(folder, [], changed, "second") as record:
        assert record.name == "first"


@pytest.mark.parametrize(
    ("key", "before", "other"),
    [
        ("task", {"n_agents": 3}, {"n_agents": 5}),
        ("critic_model", {"pooling": "sets"}, {"pooling": "attention"}),
    ],
)
def test_a_run_from_before_a_setting_is_taken_up_with_what_held_before(key, before, other, folder):
    with open_run(folder, [], CONFIG, "first"):
        pass
    with open_run(
        folder, [], {**CONFIG, key: {**CONFIG.get(key, {}), **before}}, "second"
    ) as record:
        assert record.name == "first"
    changed = {**CONFIG, key: {**CONFIG.get(key, {}), **other}}
    with pytest.raises(ValueError, match="None there"), open_run(folder, [], changed, "third"):
        pytest.fail("opened")


def test_a_run_from_before_teachers_had_a_group_is_taken_up(folder):
    old = {"algorithm": {"teacher_experiment": "mkt_quick", "teacher_seed": 0, "mixer": "vdn"}}
    new = {"algorithm": {"teacher": {"experiment": {"lr": 0.1}, "seed": 0}, "mixer": "vdn"}}
    new["choices"] = {"experiment@algorithm.teacher.experiment": "mkt_quick"}
    with open_run(folder, [], old, "first"):
        pass
    with open_run(folder, [], new, "second") as record:
        assert record.name == "first"
    other = {**new, "algorithm": {**new["algorithm"], "mixer": "qmix"}}
    with pytest.raises(ValueError, match=r"algorithm\.mixer"), open_run(folder, [], other, "third"):
        pytest.fail("opened")


def test_two_processes_cannot_run_in_one_folder(folder):
    ready, done = folder / "ready", folder / "done"

    def hold() -> None:
        with open_run(folder, [], CONFIG, "name"):
            ready.touch()
            wait_for(done)

    holder = start(hold)
    wait_for(ready)
    with (
        pytest.raises(ValueError, match="another process is running in"),
        open_run(folder, [], CONFIG, "name"),
    ):
        pytest.fail("opened")
    done.touch()
    holder.join(60)
    with open_run(folder, [], CONFIG, "name"):
        pass


def test_the_lock_is_free_when_the_run_is_left_and_not_when_it_is_forgotten(folder, monkeypatch):
    made = []

    class Kept(FileLock):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr("benchmarl_mkt.training.resume.record.FileLock", Kept)
    with open_run(folder, [], CONFIG, "name"):
        assert made[0].is_locked
    assert not made[0].is_locked


def test_the_lock_of_a_dead_process_is_free(folder):
    def die() -> None:
        with open_run(folder, [], CONFIG, "name"):
            import os

            os._exit(9)

    assert in_process(die) == 9
    with open_run(folder, [], CONFIG, "other") as record:
        assert record.name == "name"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "other/1"}', "\0"])
def test_a_damaged_record_is_named(text, folder):
    (folder / "run.json").write_text(text)
    with pytest.raises(ValueError, match=f"resume: {folder}/run.json is damaged"):
        read_run(folder)


def test_a_folder_without_a_run_is_named(folder):
    with pytest.raises(ValueError, match=f"resume: there is no run in {folder}"):
        read_run(folder)


def test_a_run_keeps_its_number_of_threads_and_one_of_version_0_1_has_one(folder):
    with open_run(folder, [], CONFIG, "first") as record:
        assert record.threads == 0
        record.note(folder, threads=2)
    with open_run(folder, [], CONFIG, "second") as record:
        assert (record.threads, record.finished) == (2, False)
    content = json.loads((folder / RECORD).read_text())
    del content["threads"]
    (folder / RECORD).write_text(json.dumps(content))
    assert read_run(folder).threads == 1
