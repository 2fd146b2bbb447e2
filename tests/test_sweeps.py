"""The sweeps of benchmarks/: Hydra composes them; nothing but configuration is ours."""

import json

import pytest
import torch
import yaml

from benchmarl_mkt.registry import device_of_job
from tests.helpers import REPOSITORY, command

BENCHMARKS = REPOSITORY / "benchmarks"
METHODS = sorted(path.stem for path in (REPOSITORY / "conf" / "method").glob("*.yaml"))


def params(name: str) -> dict[str, list[str]]:
    content = yaml.safe_load((BENCHMARKS / f"{name}.yaml").read_text())
    found = content["hydra"]["sweeper"]["params"]
    return {key: [part.strip() for part in str(v).split(",")] for key, v in found.items()}


def test_the_papers_sweep_has_every_method_once_teachers_first():
    methods = params("paper")["+method"]
    assert methods[0] == "mkt"  # its runs train the teachers that the others find
    others = {"merge"}  # of experts that are there already
    papers = [m for m in METHODS if "smax" not in m and "20k" not in m and m not in others]
    assert sorted(methods) == papers
    assert params("paper")["seed"] == ["0", "1", "2"]


def test_the_sweep_of_smax_has_its_methods_teachers_first():
    methods = params("smax")["+method"]
    assert methods[0] == "mkt_smax"
    for_sizes = {"mkt_smax_attention"}
    assert {*methods} | for_sizes == {method for method in METHODS if "smax" in method}


def test_single_task_runs_cover_the_set():
    from benchmarl_mkt.environments import MultiTaskTask

    names = [team.name for team in MultiTaskTask.MPE.get_from_yaml().team_configs]
    assert params("paper_single")["task.only"] == names


def test_jobs_are_dealt_out_to_the_gpus(monkeypatch):
    assert device_of_job(3) == ("cpu" if not torch.cuda.device_count() else "cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [device_of_job(number) for number in range(4)] == ["cuda:0", "cuda:1"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_sweep_runs_and_skips_what_is_finished(launcher, tmp_path):
    """Two methods in processes of Hydra's launcher; the second time there is nothing to do."""
    if launcher == "submitit_local":
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    sweep = "paper" if launcher == "joblib" else "paper_slurm"
    arguments = (
        *("-m", "benchmarl_mkt.cli", "run", "experiment=mkt_quick"),
        *("--config-dir", str(BENCHMARKS), "--config-name", sweep, f"hydra/launcher={launcher}"),
        *("+method=vdn_ours,mappo_multi", "seed=0", "experiment.max_n_frames=2500"),
        *("experiment.evaluation_interval=1250", "experiment.evaluation_episodes=4"),
    )
    for _ in range(2):
        found = command(*arguments, cwd=tmp_path, store=tmp_path / "store")
        assert found.returncode == 0, found.stderr[-3000:]
        summaries = list((tmp_path / "runs" / "paper").rglob("summary.json"))
        assert len(summaries) == 2
        methods = {json.loads(path.read_text())["method"] for path in summaries}
        assert methods == {"vdn_ours", "mappo_multi"}
        assert all(json.loads(path.read_text())["finished"] for path in summaries)
