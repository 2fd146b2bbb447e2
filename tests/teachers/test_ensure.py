import pytest
from rich.console import Console

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.environments import MultiTaskClass
from benchmarl_mkt.teachers.ensure import ensure_teachers
from benchmarl_mkt.teachers.find import missing_teachers
from tests.conftest import write_tiny_experiment
from tests.helpers import PUSH, task_set


def train(config: MktConfig, task_config: dict) -> None:
    import benchmarl_mkt

    benchmarl_mkt.register()
    ensure_teachers(config, MultiTaskClass("set", task_config), Console(quiet=True), workers=1)


def test_teachers_are_trained_within_a_worker_of_joblibs(tmp_path):
    """As in a sweep by Hydra's joblib launcher, whose workers have a start method of their own."""
    joblib = pytest.importorskip("joblib")
    preset = write_tiny_experiment(tmp_path)
    config = MktConfig(teacher_store=str(tmp_path / "store"), teacher_experiment=str(preset))
    task = task_set(PUSH)
    assert list(missing_teachers(config, task)) == ["simple_push"]
    joblib.Parallel(n_jobs=2)([joblib.delayed(train)(config, task.config)])
    assert not missing_teachers(config, task)
