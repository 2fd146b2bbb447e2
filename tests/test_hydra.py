"""The package inside Hydra applications, each in a process of its own."""

import json

import pytest
import torch
import yaml
from benchmarl.hydra_config import reload_experiment_from_file
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from benchmarl_mkt.files import conf_path
from tests.helpers import command, hydra_overrides

UNRELATED = """
import sys
import hydra

@hydra.main(version_base=None, config_path=None)
def main(cfg):
    print("LOADED", [name for name in ("torch", "benchmarl", "benchmarl_mkt.registry")
                     if name in sys.modules])

main()
"""


@pytest.fixture
def composed():
    """Compose BenchMARL's configuration in this process, as its own application does."""
    with initialize_config_module("benchmarl.conf", version_base=None):
        yield lambda *overrides: compose("config", overrides=list(overrides))
    GlobalHydra.instance().clear()


def test_the_composed_configuration_has_our_defaults(composed):
    cfg = composed("algorithm=mkt", "task=multitask/mpe")
    shipped = yaml.safe_load((conf_path() / "algorithm" / "mkt.yaml").read_text())["algorithm"]
    teacher = shipped.pop("teacher")
    assert {key: cfg.algorithm[key] for key in shipped} == shipped
    assert {key: cfg.algorithm.teacher[key] for key in teacher} == teacher
    assert cfg.algorithm.teacher.experiment.max_n_frames == 100_000
    assert cfg.algorithm.teacher.model.name == "multitask"
    assert cfg.experiment.max_n_frames == 100_000  # of experiment mkt_quick
    assert cfg.experiment.off_policy_train_batch_size == 800  # of mkt_paper, under it
    assert [getattr(t, "task", t) for t in cfg.task.tasks] == [
        "mpe/simple_speaker_listener", "mpe/simple_push", "mpe/simple_adversary",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "key", "expected"),
    [
        (["algorithm=mkt_paper"], "experiment.max_n_frames", 1_250_000),
        (["algorithm=mkt_paper"], "algorithm.annealing.end", 0.95),
        (["algorithm=mkt", "experiment=mkt_paper"], "experiment.max_n_frames", 1_250_000),
        (["algorithm=mkt", "model=multitask"], "model.embedding_size", 64),
        (["algorithm=qmix", "experiment=mkt_quick"], "experiment.off_policy_train_batch_size", 800),
        (["algorithm=qmix"], "experiment.off_policy_train_batch_size", 128),
        (["algorithm=vdn", "task.agent_id=false"], "task.agent_id", False),
        (["algorithm=mkt", "algorithm.annealing.start=0.3"], "algorithm.annealing.start", 0.3),
    ],
)
def test_overrides_compose(composed, overrides, key, expected):
    value = composed("task=multitask/mpe", *overrides)
    for part in key.split("."):
        value = value[part]
    assert value == expected


def test_stock_tasks_compose_as_ever(composed):
    cfg = composed("algorithm=mappo", "task=vmas/balance")
    assert cfg.task.max_steps == 100
    assert cfg.experiment.lr == 0.00005


@pytest.mark.parametrize("task", sorted(p.stem for p in (conf_path() / "task" / "mpe").glob("*")))
def test_every_mpe_task_composes(composed, task):
    assert composed("algorithm=qmix", f"task=mpe/{task}").task.max_cycles == 25


def test_benchmarls_own_module_finds_us(tmp_path, own_store):
    found = command(
        "-m", "benchmarl.run", "algorithm=mkt", "task=multitask/mpe", "--cfg", "job",
        cwd=tmp_path, store=own_store,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    cfg = yaml.safe_load(found.stdout)
    assert cfg["algorithm"]["temperature"] == "auto"
    assert cfg["experiment"]["max_n_frames"] == 100_000


def test_unrelated_applications_load_nothing_of_ours(tmp_path, own_store):
    (tmp_path / "app.py").write_text(UNRELATED)
    found = command(str(tmp_path / "app.py"), cwd=tmp_path, store=own_store)
    assert found.returncode == 0, found.stderr
    assert "LOADED []" in found.stdout


STOCK = [(a, m) for a in ("qmix", "vdn", "mappo") for m in ("multitask", "layers/mlp")]


@pytest.mark.parametrize(
    ("algorithm", "model"),
    [STOCK[0], *(pytest.param(*pair, marks=pytest.mark.slow) for pair in STOCK[1:])],
)
def test_stock_algorithms_run_on_the_papers_set(algorithm, model, tmp_path, own_store):
    found = command(
        "-m", "benchmarl.run", f"algorithm={algorithm}", "task=multitask/mpe", f"model={model}",
        f"model@critic_model={model}", *hydra_overrides(tmp_path), "experiment.max_n_frames=50",
        cwd=tmp_path, store=own_store,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-2000:]
    (path,) = tmp_path.glob(f"{algorithm}_mpe_*/*.json")
    (run_data,) = json.loads(path.read_text())["multitask"]["mpe"][algorithm].values()
    for task in ("simple_speaker_listener", "simple_push", "simple_adversary"):
        assert len(run_data["step_1"][f"{task}_return"]) == 2


def test_a_hydra_run_is_reloaded(teachers, tmp_path):
    found = command(
        "-m", "benchmarl.run", "algorithm=mkt", "task=multitask/custom", "model=multitask",
        "model@critic_model=multitask",
        "task.tasks=[mpe/simple_push,mpe/simple_speaker_listener]",
        f"algorithm.teacher.experiment={teachers.experiment}", *hydra_overrides(tmp_path),
        "experiment.checkpoint_at_end=true",
        cwd=tmp_path, store=teachers.store,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-2000:]
    (checkpoint,) = tmp_path.glob("*/checkpoints/*.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCHMARL_MKT_STORE", str(teachers.store))
        GlobalHydra.instance().clear()
        experiment = reload_experiment_from_file(str(checkpoint))
    assert (experiment.algorithm_name, experiment.total_frames) == ("mkt", 100)
    saved = torch.load(checkpoint, weights_only=True)["loss_student"]
    for name, tensor in experiment.losses["student"].state_dict().items():
        assert not isinstance(tensor, torch.Tensor) or torch.equal(tensor, saved[name]), name
    assert len(experiment.replay_buffers["student"]) == 4
    experiment.close()
