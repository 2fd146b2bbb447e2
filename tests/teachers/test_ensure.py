import io
import time

import pytest
from benchmarl.environments import task_config_registry
from rich.console import Console

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.environments import MultiTaskClass
from benchmarl_mkt.teachers import TeacherSettings
from benchmarl_mkt.teachers.ensure import ensure_teachers
from benchmarl_mkt.teachers.find import missing_teachers
from tests.conftest import write_tiny_experiment
from tests.helpers import PUSH, task_set
from tests.toys import ToyTask, toy


def settings(store, preset) -> TeacherSettings:
    return MktConfig(teacher={"store": str(store), "experiment": str(preset)}).teacher_settings


def train(config: TeacherSettings, task_config: dict) -> None:
    import benchmarl_mkt

    benchmarl_mkt.register()
    ensure_teachers(config, MultiTaskClass("set", task_config), Console(quiet=True), workers=1)


def test_teachers_are_trained_within_a_worker_of_joblibs(tmp_path):
    """As in a sweep by Hydra's joblib launcher, whose workers have a start method of their own."""
    joblib = pytest.importorskip("joblib")
    preset = write_tiny_experiment(tmp_path)
    config = settings(tmp_path / "store", preset)
    task = task_set(PUSH)
    assert list(missing_teachers(config, task)) == ["simple_push"]
    joblib.Parallel(n_jobs=2)([joblib.delayed(train)(config, task.config)])
    assert not missing_teachers(config, task)


def test_a_teacher_that_fails_is_told_at_once(tmp_path, monkeypatch):
    """The others save, stop, and go on from there when they are asked again."""
    monkeypatch.setenv("BENCHMARL_MKT_SAVE_EVERY", "0")
    preset = write_tiny_experiment(tmp_path, max_n_frames=500_000)  # for a quarter of an hour
    config = settings(tmp_path / "store", preset)
    # The processes, which register nothing but what is shipped, do not know the toy.
    task = task_set(PUSH, toy("broken"))
    began = time.monotonic()
    with pytest.raises(ValueError, match="unknown task 'toy/vector'"):
        ensure_teachers(config, task, Console(file=io.StringIO()), workers=2)
    assert time.monotonic() - began < 120
    assert task_config_registry["toy/vector"] is ToyTask.VECTOR
    assert not list((tmp_path / "store").glob("mpe*"))
