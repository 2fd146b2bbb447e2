import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmarl.algorithms import VdnConfig
from benchmarl.experiment import Callback

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.training import machine
from benchmarl_mkt.training.machine import LearnerThreads, threads_for
from tests.helpers import make_experiment, task_set
from tests.toys import toy

ALONE = MktConfig(annealing={"start": 1.0, "end": 1.0, "fraction": 1.0})
TWO_AGENTS = toy("one", length=5)


@pytest.mark.parametrize(
    ("frames", "cores", "threads"), [(2048, 2, 2), (2047, 2, 1), (2048, 1, 1), (9999, 64, 2)]
)
def test_a_second_thread_is_for_minibatches_of_many_rows(
    frames, cores, threads, tmp_path, monkeypatch
):
    """Two agents: 2,048 steps are 4,096 rows."""
    monkeypatch.setattr(machine, "_cores", lambda: cores)
    task = task_set(TWO_AGENTS, toy("two", length=5))  # updates are one task's at a time
    experiment = make_experiment(tmp_path, task, ALONE)
    experiment.config.off_policy_train_batch_size = frames
    assert threads_for(experiment) == threads


CPUS = Path("/proc/cpuinfo")


@pytest.mark.skipif(not CPUS.exists() or "model name" not in CPUS.read_text(), reason="no name")
@pytest.mark.parametrize(("cores", "said"), [(1, "1 core"), (48, "48 cores")])
def test_a_machine_is_its_processor_and_the_cores_to_be_used(cores, said, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_cores", lambda: cores)
    experiment = make_experiment(tmp_path, task_set(TWO_AGENTS), ALONE)
    name, _, count = machine.machine_of(experiment).rpartition(", ")
    assert f"model name\t: {name}\n" in CPUS.read_text()
    assert count == said


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_memory_that_is_freed_stays_with_the_process():
    """And is hardly asked for again, as tensors of 4 MB are made and go."""
    code = (
        "import resource, sys, torch\n"
        "if len(sys.argv) > 1:\n"
        "    from benchmarl_mkt.training.machine import keep_memory; keep_memory()\n"
        "def pages():\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "a = torch.ones(2**20), torch.ones(2**20), torch.ones(2**20)\n"
        "del a; before = pages()\n"
        "for _ in range(200):\n"
        "    a = torch.ones(2**20), torch.ones(2**20), torch.ones(2**20)\n"
        "    del a\n"
        "print(pages() - before)\n"
    )
    taken = {
        argument: int(
            subprocess.run(
                [sys.executable, "-c", code, *argument],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                capture_output=True,
                check=True,
                text=True,
            ).stdout
        )
        for argument in ((), ("kept",))
    }
    assert taken["kept",] < 0.3 * taken[()]


class Counts(Callback):
    """Notes the threads at every step of the loop."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_batch_collected(self, batch):
        self.seen.append(("collected", torch.get_num_threads()))

    def on_train_step(self, batch, group):
        self.seen.append((group, torch.get_num_threads()))

    def on_evaluation_end(self, rollouts):
        self.seen.append(("evaluated", torch.get_num_threads()))


@pytest.mark.parametrize("algorithm", [ALONE, VdnConfig.get_from_yaml()], ids=["mkt", "vdn"])
def test_updates_alone_have_more_threads(algorithm, tmp_path):
    threads, before, after = LearnerThreads(), Counts(), Counts()
    threads.count = 2
    task = task_set(toy("one", length=5), toy("two", length=4))
    make_experiment(
        tmp_path, task, algorithm, callbacks=[before, threads, after], evaluation=True
    ).run()
    updates = {name: n for name, n in after.seen if name not in ("collected", "evaluated")}
    assert set(updates.values()) == {2} and len(updates) == (1 if algorithm is ALONE else 2)
    assert {n for name, n in after.seen if name == "evaluated"} == {1}
    assert {n for name, n in before.seen if name == "collected"} == {1}
    assert torch.get_num_threads() == 1
