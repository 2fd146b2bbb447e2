"""A training killed or stopped anywhere, and started again, ends like one left alone."""

import json
import os
import shutil
import signal

import pytest
import torch
from benchmarl.algorithms import MappoConfig, QmixConfig
from benchmarl.experiment import Experiment
from rich.console import Console

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.teachers import train_teacher
from benchmarl_mkt.teachers.ensure import ensure_teachers
from benchmarl_mkt.training.resume.callback import in_folder, names_folder
from benchmarl_mkt.training.resume.signals import Stopped, stop_signals
from tests.conftest import write_tiny_experiment
from tests.helpers import PUSH, SPEAKER, accounts_of, task_set
from tests.processes import in_process
from tests.resume.training import (
    SendSignal,
    assert_the_same,
    build,
    differences,
    iteration_saved,
    killed,
    results,
    saved,
    train,
)
from tests.toys import toy

ALONE = {"annealing": {"start": 1.0, "end": 1.0, "fraction": 1.0}}


@pytest.fixture(params=["mkt", "joint", "qmix", "mappo"])
def case(request, teachers):
    """Task and algorithm whose episodes end with the batches."""
    if request.param == "mkt":
        return teachers.task, teachers.config()
    if request.param == "joint":
        return task_set(PUSH, SPEAKER), MktConfig(update="joint", **ALONE)
    algorithm = {"qmix": QmixConfig, "mappo": MappoConfig}[request.param]
    return task_set(PUSH, SPEAKER), algorithm.get_from_yaml()


def test_killed_twice(case, tmp_path):
    """Once before the first checkpoint's future is over, once later; each in a process."""
    train(tmp_path / "a", *case)
    killed(2, tmp_path / "b", *case)
    assert iteration_saved(tmp_path / "b") == 2
    killed(5, tmp_path / "b", *case)
    assert iteration_saved(tmp_path / "b") == 5
    train(tmp_path / "b", *case)
    assert iteration_saved(tmp_path / "b") == 8
    assert_the_same(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    "tasks",
    [
        [{"task": "vmas/navigation", "config": {"max_steps": 7}}],
        [toy("a", spread=4, limit=7), toy("b", "serial", spread=3, limit=7)],
    ],
    ids=["vmas", "toys"],
)
def test_killed_where_episodes_go_on_over_batches(tasks, tmp_path):
    """Batches of 25 steps, episodes of up to 7: cut for a checkpoint after 6 iterations."""
    case = task_set(*tasks), MktConfig(mixer="vdn", **ALONE)
    train(tmp_path / "a", *case, max_n_frames=450)
    killed(6, tmp_path / "b", *case, max_n_frames=450)
    assert iteration_saved(tmp_path / "b") == 6
    train(tmp_path / "b", *case, max_n_frames=450)
    assert_the_same(tmp_path / "a", tmp_path / "b")


def test_killed_before_anything_was_saved(tmp_path):
    case = task_set(PUSH), MktConfig(**ALONE)
    train(tmp_path / "a", *case)
    killed(0, tmp_path / "b", *case)
    shutil.rmtree(tmp_path / "b" / "run" / "resume")
    train(tmp_path / "b", *case)
    assert_the_same(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    ("number", "iteration"),
    [(signal.SIGTERM, 4), (signal.SIGINT, 4), (signal.SIGTERM, 7)],  # the last is the last one
)
def test_a_signal_saves_at_the_end_of_the_iteration(number, iteration, tmp_path):
    """Even if no checkpoint is due for long."""
    case = task_set(PUSH), MktConfig(**ALONE)
    train(tmp_path / "a", *case)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.resume.training.EVERY", 1e6)
        with stop_signals(), pytest.raises(Stopped) as stopped:
            train(tmp_path / "b", *case, SendSignal(number, iteration))
    assert stopped.value.code == 128 + number
    assert iteration_saved(tmp_path / "b") == iteration + 1
    train(tmp_path / "b", *case)
    assert_the_same(tmp_path / "a", tmp_path / "b")


def test_a_damaged_checkpoint_is_skipped_with_one_warning(tmp_path, caplog):
    case = task_set(PUSH), MktConfig(**ALONE)
    train(tmp_path / "a", *case)
    killed(6, tmp_path / "b", *case)
    newest = max((tmp_path / "b" / "run" / "resume").iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])
    train(tmp_path / "b", *case)
    assert_the_same(tmp_path / "a", tmp_path / "b")
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    damaged = [text for text in warnings if "is damaged" in text]
    assert len(damaged) == 1
    assert str(newest) in damaged[0]


def test_an_unfinished_last_line_is_repaired(tmp_path):
    """As a kill in the middle of a write, or a power failure, leaves it."""
    case = task_set(PUSH), MktConfig(**ALONE)
    train(tmp_path / "a", *case)
    killed(5, tmp_path / "b", *case)
    for number, path in enumerate(sorted((tmp_path / "b").rglob("*.csv"))):
        with path.open("a") as file:
            file.write(["7,1.2", "5,0.3\n6,0.4\n", "\0\0\0\0\n", "8"][number % 4])
    for path in (tmp_path / "b" / "run").glob("*.json"):
        path.write_text(path.read_text()[:-40])
    train(tmp_path / "b", *case)
    assert_the_same(tmp_path / "a", tmp_path / "b")


def test_a_teacher_is_killed_and_its_files_are_the_same(tmp_path):
    """The store's entry is, byte by byte, that of a teacher left alone; nothing else remains."""
    preset = write_tiny_experiment(tmp_path, max_n_frames=400, evaluation_interval=100)
    stores = [tmp_path / "a", tmp_path / "b"]
    configs = [MktConfig(teacher={"store": str(s), "experiment": str(preset)}) for s in stores]
    configs = [config.teacher_settings for config in configs]
    task = task_set(PUSH)

    def kill_in(iteration: int):
        def progress(frames, total, best):
            if frames == 50 * (iteration + 1):
                os.kill(os.getpid(), signal.SIGKILL)

        return progress

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCHMARL_MKT_SAVE_EVERY", "0")
        train_teacher(configs[0], task, "simple_push")
        for iteration in (1, 6):
            job = train_teacher, configs[1], task, "simple_push", kill_in(iteration)
            assert in_process(lambda job=job: job[0](*job[1:])) == -signal.SIGKILL
        assert len(list(stores[1].glob(".*.training/run/resume/*"))) == 2
        seen = []
        train_teacher(configs[1], task, "simple_push", lambda *news: seen.append(news[0]))
    assert seen == [350, 400]
    (stores[1] / f".{next(stores[1].glob('mpe*')).name}.training").mkdir()
    ensure_teachers(configs[1], task, Console())  # nothing to train, but to tidy up
    files = [
        {p.relative_to(s): p.is_file() and p.read_bytes() for p in s.rglob("*")} for s in stores
    ]
    assert len(files[0]) == 4  # folder, weights, description, lock
    assert files[0] == files[1]


def test_benchmarls_own_checkpoints_are_exact_too(tmp_path):
    """Reloaded by BenchMARL from its file in the middle, a run ends like the one left alone."""
    case = task_set(PUSH, SPEAKER), MktConfig(**ALONE)
    # The replay buffer is full: BenchMARL saves what is in unused memory, too.
    build(tmp_path, *case, checkpoint_interval=200, off_policy_memory_size=400).run()
    files = tmp_path / "run" / "checkpoints"
    alone = torch.load(files / "checkpoint_400.pt", weights_only=True), results(tmp_path)
    reloaded = Experiment.reload_from_file(str(files / "checkpoint_200.pt"))
    assert reloaded.n_iters_performed == 4
    reloaded.run()
    again = torch.load(files / "checkpoint_400.pt", weights_only=True), results(tmp_path)
    assert differences(alone, again) == []
    assert not (tmp_path / "run" / "resume").exists()  # BenchMARL alone saves its own only


def test_a_run_continued_beyond_its_plan_keeps_its_schedules(tmp_path):
    """The weight a and epsilon stay at their end values; counters and evaluations go on."""
    annealing = {"start": 0.5, "end": 1.0, "fraction": 0.5}
    folder = tmp_path / "a"
    teacher = train_teacher(
        MktConfig(teacher={"experiment": str(write_tiny_experiment(tmp_path))}).teacher_settings,
        task_set(PUSH),
        "simple_push",
    )
    config = MktConfig(annealing=annealing, teachers={"simple_push": str(teacher)})
    train(folder, task_set(PUSH), config, checkpoint_at_end=True)
    file = folder / "run" / "checkpoints" / "checkpoint_400.pt"
    longer = Experiment.reload_from_file(str(file), experiment_patch={"max_n_frames": 800})
    assert longer.algorithm.policy.eps == pytest.approx(0.1)
    assert longer.losses["student"].alpha == 1.0
    longer.run()
    assert longer.n_iters_performed == 16
    assert longer.losses["student"].alpha == 1.0
    assert longer.algorithm.policy.eps == pytest.approx(0.1)
    assert accounts_of(longer)["simple_push"] == {"frames": 800, "episodes": 32}
    content = json.loads((folder / "run" / "run.json").read_text())
    for _ in ("environment", "task", "algorithm", "seed"):
        (content,) = content.values()
    assert {f"step_{n}" for n in (0, *range(1, 9))} <= content.keys()


def test_each_iteration_has_randomness_of_its_own(tmp_path):
    """Not the same exploration and start states again and again; another seed, another run."""
    a = train(tmp_path / "a", task_set(PUSH), MktConfig(**ALONE))
    storage = a.replay_buffers["student"].buffers["simple_push"].storage[:]
    starts = storage["observation"][:, 0].flatten(1)
    assert len(torch.unique(starts, dim=0)) == len(starts) == 16
    assert len(torch.unique(storage["action"].flatten(1), dim=0)) == 16


def test_a_checkpoint_of_another_experiment_is_refused(tmp_path):
    train(tmp_path / "a", task_set(PUSH), MktConfig(**ALONE))
    with pytest.raises(ValueError, match=r"checkpoint .* does not fit this experiment"):
        train(tmp_path / "a", task_set(SPEAKER), MktConfig(**ALONE))


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"exclude_buffer_from_checkpoint": True}, "will not be exact"),
        ({"buffer_device": "disk"}, "cannot be resumed"),
    ],
)
def test_what_cannot_be_exact_is_said_once(changes, warning, tmp_path, caplog):
    train(tmp_path / "a", task_set(PUSH), QmixConfig.get_from_yaml(), **changes)
    assert sum(warning in record.getMessage() for record in caplog.records) == 1


def test_only_names_of_folders_are_taken_from_benchmarl(tmp_path):
    """A checkpoint of BenchMARL's is restored by it, whatever its folder is called."""
    assert names_folder(in_folder(tmp_path))
    assert not names_folder(str(tmp_path / "resume" / "checkpoint_100.pt"))
    assert not names_folder(None)


def test_finished_runs_are_not_run_again(tmp_path):
    case = task_set(PUSH), MktConfig(**ALONE)
    train(tmp_path / "a", *case)
    before = saved(tmp_path / "a"), (tmp_path / "a" / "run" / "run.json").stat().st_mtime_ns
    again = train(tmp_path / "a", *case)
    assert again.n_iters_performed == 8
    assert differences(before[0], saved(tmp_path / "a")) == []
