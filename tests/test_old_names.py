"""What had another name in version 0.1 is there under it, and says what it is called now."""

import importlib
import logging

import pytest

from benchmarl_mkt.algorithms import MktConfig

MODULES = {
    "evaluation": ("teachers_policy", "teams.evaluation"),
    "best_policy": ("BestPolicy", "training.best_policy"),
    "team_policy": ("TeamPolicy", "teams.frozen"),
    "export": ("export_policy", "teams.onnx"),
    "resume": ("run", "training.resume"),
    "reporting.statistics": ("mean_interval", "statistics"),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules(name):
    attribute, new = MODULES[name]
    module = importlib.import_module(f"benchmarl_mkt.{name}")
    with pytest.warns(FutureWarning, match=f"benchmarl_mkt.{name} is benchmarl_mkt.{new} now"):
        importlib.reload(module)
    assert callable(getattr(module, attribute))


def test_functions():
    from benchmarl_mkt.teachers.find import experiment_preset
    from benchmarl_mkt.teams import load_agents, load_team

    assert load_agents is load_team
    assert experiment_preset("mkt_quick").max_n_frames == 100_000


OLD = {"experiment": "mkt_10k", "model": "multitask_gru", "seed": 3, "store": "/x"}


def test_teachers_settings(caplog):
    with caplog.at_level(logging.WARNING):
        old = MktConfig(teacher_algorithm={"name": "vdn"}, **{f"teacher_{k}": OLD[k] for k in OLD})
    assert old == MktConfig(teacher={**OLD, "algorithm": {"name": "vdn"}})
    for key in (*OLD, "algorithm"):
        assert f"algorithm.teacher_{key} is called algorithm.teacher.{key} now" in caplog.text


def test_commands(cli):
    status, out, error = cli("evaluate", "checkpoint=nowhere", "episodes=3")
    assert (status, out) == (2, "")
    note, line = error.splitlines()
    assert note == "note: this is written so now: benchmarl evaluate nowhere --episodes=3"
    assert line.startswith("error: checkpoint: no team in nowhere")
    _, _, error = cli("transfer", "checkpoint=x", "tasks=[smax/3m, smax/8m]", "out=f.json")
    assert error.splitlines()[0].endswith("benchmarl transfer x smax/3m smax/8m --out=f.json")
    _, _, error = cli("export", "checkpoint=x", "task=push", "out=p.onnx")
    assert error.splitlines()[0].endswith("benchmarl export x push --out=p.onnx")
