"""The sweeps of benchmarks/: Hydra composes them; nothing but configuration is ours."""

import importlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import yaml

from benchmarl_mkt.cli.jobs import composed
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
    others = {"mkt_smax_attention", "mkt_smax_entity", "mappo_smax_entity"}  # told in its head
    assert {*methods} | others == {method for method in METHODS if "smax" in method}


def test_the_entity_methods_play_teams_of_different_sizes_with_one_network():
    for method in ("mkt_smax_entity", "mappo_smax_entity"):
        choices, plain = composed([f"+method={method}", "task=multitask/smax_sizes"])
        assert {choices["model"], choices["model@critic_model"]} == {"multitask_entity"}
        assert plain["model"] == plain["critic_model"]
    choices, plain = composed(["+method=mkt_smax_entity", "task=multitask/smax_sizes"])
    assert plain["algorithm"]["mixer"] == "vdn"  # qmix needs teams of one size
    assert plain["algorithm"]["teacher"]["model"] == plain["model"]
    assert plain["algorithm"]["annealing"]["end"] == 0


def test_single_task_runs_cover_the_set():
    from benchmarl_mkt.environments import MultiTaskTask

    names = [team.name for team in MultiTaskTask.MPE.get_from_yaml().team_configs]
    assert params("paper_single")["task.only"] == names


def test_jobs_are_dealt_out_to_the_gpus(monkeypatch):
    assert device_of_job(3) == ("cpu" if not torch.cuda.device_count() else "cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [device_of_job(number) for number in range(4)] == ["cuda:0", "cuda:1"] * 2


def test_a_worker_of_ray_works_in_the_commands_folder(tmp_path, monkeypatch):
    """By the function that the sweep's file names, from the variable that it sets."""
    sweep = yaml.safe_load((BENCHMARKS / "paper_ray.yaml").read_text())
    settings = sweep["hydra"]["launcher"]["ray"]["init"]["runtime_env"]
    module, _, hook = settings["worker_process_setup_hook"].rpartition(".")
    monkeypatch.chdir("/")
    (name,) = (key for key, value in settings["env_vars"].items() if "runtime.cwd" in value)
    monkeypatch.setenv(name, str(tmp_path))
    getattr(importlib.import_module(module), hook)()
    assert Path.cwd() == tmp_path


def test_a_sweep_says_what_its_launcher_needs(cli, tmp_path):
    (tmp_path / "own.yaml").write_text("defaults: [config, override hydra/launcher: nope, _self_]")
    names = ("--config-dir", str(tmp_path), "--config-name=own")
    status, _, error = cli("run", *names)
    assert status == 2
    assert error.endswith("; --multirun says more of a sweep's file\n")
    status, _, error = cli("run", "--multirun", *names)
    assert (status, error.count("\n")) == (2, 1)
    assert "hydra/launcher: there is no 'nope' here; pip install 'benchmarl-mkt' with" in error
    _, _, error = cli("run", "algorithm=vdn", "task=mpe/simple_push", "hydra/job_logging=nope")
    assert error.startswith("error: hydra: there is no 'job_logging/nope'; ")


def test_a_broken_pipe_is_not_taken_for_a_cluster_that_is_missing(cli, monkeypatch):
    def broken(job):
        raise BrokenPipeError

    monkeypatch.setattr("benchmarl_mkt.cli.run.run", broken)
    with pytest.raises(BrokenPipeError):
        cli("run", "algorithm=vdn", "task=mpe/simple_push")


@pytest.fixture
def two_nodes(monkeypatch):
    """A cluster of Ray's, of two nodes of a core each; its processes begin in another folder."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    cluster = cluster_utils.Cluster(
        True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    cluster.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield
    cluster.shutdown()


def slurm_answers() -> bool:
    known = shutil.which("sinfo") is not None
    return known and subprocess.run(["sinfo"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "sweep", "more"),
    [
        ("joblib", "paper", ()),
        ("submitit_local", "paper_slurm", ()),
        ("submitit_slurm", "paper_slurm", ("hydra.launcher.cpus_per_task=1",)),
        ("ray", "paper_ray", ()),
    ],
)
def test_a_sweep_runs_and_skips_what_is_finished(launcher, sweep, more, tmp_path, request):
    """Two methods in processes of Hydra's launcher; the second time there is nothing to do."""
    if sweep == "paper_slurm":
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    if launcher == "submitit_slurm" and not slurm_answers():
        pytest.skip("no Slurm answers here")
    if launcher == "ray":
        request.getfixturevalue("two_nodes")
    arguments = (
        *("-m", "benchmarl_mkt.cli", "run", "experiment=mkt_quick", *more),
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
