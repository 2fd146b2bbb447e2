"""The command, killed and stopped as a whole: its processes, exit codes and messages."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmarl.environments import task_config_registry

from tests.cli.test_run import CUSTOM, SHORT
from tests.conftest import write_tiny_experiment
from tests.helpers import REPOSITORY, command, hydra_overrides

LONG = {"max_n_frames": 4000, "evaluation_interval": 500}  # 80 iterations


@pytest.fixture
def job(tmp_path, own_store, monkeypatch) -> list[str]:
    """Arguments of a run of seconds, in ``tmp_path / "run"``; checkpoints all the time."""
    monkeypatch.setenv("BENCHMARL_MKT_SAVE_EVERY", "0.2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    preset = write_tiny_experiment(tmp_path, **LONG)
    values = [f"experiment.{key}={value}" for key, value in {**LONG, "loggers": "[csv]"}.items()]
    overrides = [o for o in hydra_overrides(tmp_path) if "dir=" not in o and "save_folder" not in o]
    return [
        *CUSTOM, SHORT, f"algorithm.teacher.experiment={preset}", *overrides, *values,
        f"hydra.run.dir={tmp_path / 'run'}",
    ]  # fmt: skip


def start(*arguments: str, program: tuple = ("-m", "benchmarl_mkt.cli")) -> subprocess.Popen:
    """Start the command in a session of its own."""
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def processes(session: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if fields[0] != "Z" and int(fields[3]) == session:
            found.append(int(path.name))
    return found


def wait_for(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


def test_killed_stopped_resumed_and_finished(cli, job, tmp_path, own_store):
    killed = start("run", *job)
    wait_for(lambda: list(own_store.glob(".*.training/run/resume/0*.safetensors")))
    assert len(processes(killed.pid)) > 2
    killed.kill()
    killed.communicate()
    wait_for(lambda: not processes(killed.pid), 60)  # the teacher's process does not outlive it

    stopped = start("run", *job)
    wait_for(lambda: list(tmp_path.glob("run/mkt_*/resume/0*.safetensors")))
    stopped.send_signal(signal.SIGTERM)
    _, error = stopped.communicate(timeout=120)
    assert stopped.returncode == 128 + signal.SIGTERM
    assert error.splitlines()[-1] == f"Stopped; continue with: benchmarl resume {tmp_path}/run"
    assert "Traceback" not in error

    status, out, error = cli("resume", str(tmp_path / "run"))
    assert status == 0, error
    assert "Training" not in out
    assert "mkt on multitask/custom_simple_push" in out
    assert not list(tmp_path.glob("run/mkt_*/resume"))
    (table,) = tmp_path.glob("run/mkt_*/mkt_*/scalars/counters_iter.csv")
    steps = [int(line.split(",")[0]) for line in table.read_text().splitlines()]
    assert steps == list(range(80))

    (results,) = tmp_path.glob("run/mkt_*/")
    (results / "resume").mkdir()  # as if killed at the very end
    for arguments in (["resume", str(tmp_path / "run")], ["run", *job]):
        status, out, _ = cli(*arguments)
        assert (status, out) == (0, f"Finished already: {tmp_path}/run\n")
        assert not (results / "resume").exists()
    before = (tmp_path / "run" / ".hydra" / "overrides.yaml").read_text()
    status, _, error = cli("run", *job, "seed=1")
    assert status == 2
    assert "has another configuration: seed: 0 there, 1 here; use another folder" in error
    assert (tmp_path / "run" / ".hydra" / "overrides.yaml").read_text() == before


def test_a_run_is_never_lost(cli, job, tmp_path, own_store):
    """Its results elsewhere, stopped before anything of its own is written; and others' files."""
    elsewhere, run = tmp_path / "elsewhere", tmp_path / "run"
    for folder in (elsewhere, run):
        folder.mkdir()
    (run / "slurm-1.log").write_text("mine")
    arguments = [*job, f"experiment.save_folder={elsewhere}"]
    assert cli("run", *arguments, "experiment.lr=-1")[0] == 2
    assert [path.name for path in run.iterdir()] == ["slurm-1.log"]
    for begun in (".*.training/run/resume/0*.safetensors", "../elsewhere/mkt_*/resume/0*"):
        stopped = start("run", *arguments)
        wait_for(lambda begun=begun: list(own_store.glob(begun)))
        other = cli("run", *arguments)
        assert "another process is running" in other[2]
        stopped.send_signal(signal.SIGTERM)
        stopped.communicate(timeout=120)
        assert (run / "run.json").is_file()
    status, out, error = cli("resume", str(run))
    assert status == 0, error
    assert "Training" not in out
    assert (run / "slurm-1.log").read_text() == "mine"


def test_a_killed_teachers_process_is_one_line(job, tmp_path, own_store):
    training = start("teachers", "train", *job)
    wait_for(lambda: list(own_store.glob(".*.training/run/resume/0*.safetensors")))
    names = {p: Path(f"/proc/{p}/cmdline").read_text() for p in processes(training.pid)}
    (worker,) = [process for process, name in names.items() if "spawn_main" in name]
    os.kill(worker, signal.SIGKILL)
    _, error = training.communicate(timeout=120)
    assert training.returncode == 1
    lines = [line for line in error.splitlines() if line.startswith("error:")]
    assert lines == [
        "error: a process that trained a teacher was killed; continue with the same command"
    ]
    assert "Traceback" not in error
    wait_for(lambda: not processes(training.pid), 60)


OWN = """
import sys
from tests.toys import register_toys
from benchmarl_mkt.cli import main
register_toys()
main(sys.argv[1:])
"""
ALONE = ("algorithm=mkt", "algorithm.annealing={start: 1, end: 1, fraction: 1}")


def test_a_run_of_ones_own_script_goes_on_in_it(cli, job, tmp_path, monkeypatch):
    """Its tasks are registered nowhere else; its folder has a time stamp for its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    Path("own script.py").write_text(OWN)
    own = [o for o in job if not o.startswith(("hydra.run.dir", "task.tasks", "algorithm"))]
    task = ("task.tasks=[toy/vector]", *ALONE, "experiment.max_n_frames=8000")
    stopped = start("run", *own, *task, program=("own script.py",))
    wait_for(lambda: list(tmp_path.glob("outputs/*/*/mkt_*/resume/0*.safetensors")))
    stopped.send_signal(signal.SIGINT)
    _, error = stopped.communicate(timeout=120)
    (folder,) = tmp_path.glob("outputs/*/*")
    _, _, again = error.splitlines()[-1].partition("Stopped; continue with: ")
    words = shlex.split(again)
    assert words[1:3] == ["own script.py", "run"]
    assert words[-1] == f"hydra.run.dir={folder}"

    monkeypatch.delitem(task_config_registry, "toy/vector")  # as in every other process
    status, _, error = cli("resume", str(folder))
    assert (status, error.count("\n")) == (2, 1)
    assert "unknown task 'toy/vector'" in error
    assert f"give the command that began the run again, with hydra.run.dir={folder}\n" in error

    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "continuing after iteration" in done.stdout
    assert f"Results: {folder}/mkt_" in done.stdout
    assert list(tmp_path.glob("outputs/*/*")) == [folder]


def test_a_run_goes_on_where_its_paths_mean_the_same(cli, job, tmp_path, own_store):
    own = [o for o in job if not o.startswith(("hydra.run.dir", "algorithm.teacher"))]
    paths = ("hydra.run.dir=run", "experiment.save_folder=kept", "experiment.max_n_frames=100")
    (tmp_path / "kept").mkdir()
    assert cli("run", *own, *ALONE, *paths, "experiment.evaluation_interval=50")[0] == 0
    arguments = ("-m", "benchmarl_mkt.cli", "resume", str(tmp_path / "run"))
    found = command(*arguments, cwd=tmp_path / "kept", store=own_store)
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    message = f"experiment.save_folder: kept lies in {tmp_path}; resume the run from there"
    assert message in found.stderr
    assert cli("resume", "run") == (0, f"Finished already: {tmp_path}/run\n", "")


def test_resume_needs_a_run(cli, tmp_path):
    status, _, error = cli("resume", str(tmp_path))
    assert (status, error) == (2, f"error: resume: there is no run in {tmp_path} (no run.json)\n")
