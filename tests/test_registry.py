import subprocess
import sys

import pytest
from benchmarl.algorithms import algorithm_config_registry
from benchmarl.environments import task_config_registry
from benchmarl.models import model_config_registry
from hydra.core.config_store import ConfigStore

import benchmarl_mkt
from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.environments import MpeTask, MultiTaskTask
from benchmarl_mkt.models import MultiTaskModelConfig


def test_everything_is_registered():
    assert algorithm_config_registry["mkt"] is MktConfig
    assert model_config_registry["multitask"] is MultiTaskModelConfig
    for enum, environment in ((MpeTask, "mpe"), (MultiTaskTask, "multitask")):
        for task in enum:
            assert task_config_registry[f"{environment}/{task.name.lower()}"] is task


def test_registering_again_changes_nothing():
    registries = (algorithm_config_registry, model_config_registry, task_config_registry)
    before = [dict(registry) for registry in registries]
    benchmarl_mkt.register()
    assert [dict(registry) for registry in registries] == before
    assert "mkt_config.yaml" in ConfigStore.instance().repo["algorithm"]
    assert "multitask_config.yaml" in ConfigStore.instance().repo["task"]


@pytest.mark.parametrize("name", [f"mpe/{task.name.lower()}" for task in MpeTask])
def test_tasks_load_by_their_registered_name(name):
    task = task_config_registry[name].get_from_yaml()
    assert f"{task.env_name()}/{task.name.lower()}" == name
    assert task == task_config_registry[name].get_task()


def test_importing_the_package_is_light():
    code = "import sys, benchmarl_mkt; print('torch' in sys.modules, 'benchmarl' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]
