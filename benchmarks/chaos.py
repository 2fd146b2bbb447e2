"""Kill a short job again and again; its results must be those of one that was left alone.

The job is the real command: three MPE teachers in processes of their own, then the student, then
the report. It runs once uninterrupted. Then every life of it is ended at a random moment and the
command is given again, until it ends by itself; all its files are compared, and the next job
begins. Lives are forked from a process that has imported everything, and so are the teachers'
processes, to spend the time on training.

    python benchmarks/chaos.py --kills 100
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # the same sums in every process, and no threads to fork

import torch
import yaml

import benchmarl_mkt.reporting.plots  # noqa: F401  (imported once, before forking)
from benchmarl_mkt import cli
from benchmarl_mkt.teachers import ensure
from benchmarl_mkt.training.resume.callback import SAVE_EVERY

RESULTS = Path(__file__).parent / "results" / "chaos.json"
# 200 epochs: 100 iterations of 2 episodes of every task. The replay buffers wrap around.
EXPERIMENT = {
    "prefer_continuous_actions": False,
    "lr": 0.0005,
    "clip_grad_val": 10,
    "soft_target_update": False,
    "hard_target_update_frequency": 20,
    "exploration_eps_init": 1.0,
    "exploration_eps_end": 0.05,
    "max_n_frames": 5_000,
    "off_policy_collected_frames_per_batch": 50,
    "off_policy_n_envs_per_worker": 2,
    "off_policy_n_optimizer_steps": 2,
    "off_policy_train_batch_size": 200,
    "off_policy_memory_size": 2_000,
    "render": False,
    "evaluation_interval": 500,
    "evaluation_episodes": 5,
    "loggers": ["csv"],
    "create_json": True,
    "checkpoint_at_end": True,
}
SECONDS_BETWEEN_CHECKPOINTS = 1.0
LONGEST = 0.4  # life, as a share of the time that the phase takes in the uninterrupted job
# How a life ends, by weight, and the exit statuses that it then may have.
ENDS = {
    "SIGKILL the command": (6, {-signal.SIGKILL}),
    "SIGKILL all its processes": (2, {-signal.SIGKILL}),
    "SIGKILL a teacher's process": (1, {1, -signal.SIGKILL}),
    "SIGTERM the command": (3, {128 + signal.SIGTERM, -signal.SIGTERM}),
}
PATIENCE = 120.0  # seconds that processes may live on after the command


class Life(NamedTuple):
    """One life of the command: what it was at, and its end."""

    phase: str
    end: str
    after: float  # seconds
    reached: list[int]  # iterations in the newest checkpoint of the student, or of each teacher


class Job:
    """The command in one folder, with a teacher store of its own."""

    def __init__(self, folder: Path):
        self.folder, self.run, self.store = folder, folder / "run", folder / "store"
        self.orphaned = 0.0  # longest time in seconds that a process outlived the command
        self.seconds = dict.fromkeys(("teachers", "student"), 0.0)
        folder.mkdir(parents=True)
        preset = folder / "experiment.yaml"
        preset.write_text(yaml.safe_dump(EXPERIMENT))
        overrides = [
            f"experiment.{key}={json.dumps(value)}".replace('"', "")
            for key, value in EXPERIMENT.items()
        ]
        self.command = [
            "run", "algorithm=mkt", "task=multitask/mpe", f"hydra.run.dir={self.run}",
            f"algorithm.teacher.experiment={preset}", *overrides,
        ]  # fmt: skip

    @property
    def phase(self) -> str:
        """What the command is at."""
        return "student" if len(list(self.store.glob("*/teacher.json"))) == 3 else "teachers"

    def survive(self, draw: random.Random, seconds: dict[str, float]) -> list[Life]:
        """Give the command until it ends by itself; return its lives before that.

        Args:
            draw: decides how and when a life ends.
            seconds: how long the phases take without interruption.
        """
        lives: list[Life] = []
        while True:
            phase = self.phase
            (end,) = draw.choices(list(ENDS), [weight for weight, _ in ENDS.values()])
            after = round(draw.uniform(0.0, LONGEST * seconds[phase]), 2)
            status = self.live(end, after)
            if status == 0:
                return lives
            if status not in ENDS[end][1]:
                sys.exit(f"{end}: exit status {status}; see {self.folder}")
            lives.append(Life(phase, end, after, self.reached()))

    def reached(self) -> list[int]:
        """See :class:`Life`."""
        folders = [*self.store.glob(".*.training/run/resume"), *self.run.glob("*/resume")]
        files = [max(folder.glob("0*.safetensors"), default=None) for folder in folders]
        return [int(file.name.split("-")[0]) for file in files if file]

    def live(self, end: str | None = None, after: float = float("inf")) -> int:
        """Give the command once; end it after ``after`` seconds. Returns its exit status."""
        child = os.fork()
        if child == 0:
            self._be_the_command()
        deadline, status = time.monotonic() + after, None
        while status is None and time.monotonic() < deadline:
            began = time.monotonic()
            time.sleep(0.02)
            self.seconds[self.phase] += time.monotonic() - began
            status = _exit_status(child, os.WNOHANG)
        if status is None:
            _end(child, end)
            status = _exit_status(child)
        began = time.monotonic()
        while _processes(child):
            self.orphaned = max(self.orphaned, time.monotonic() - began)
            if self.orphaned > PATIENCE:
                sys.exit(f"processes outlive the command: {_processes(child)}")
            time.sleep(0.05)
        return status

    def _be_the_command(self) -> None:
        """Turn this forked process into the command, in a session of its own."""
        os.setsid()
        log = os.open(self.folder / "output.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["BENCHMARL_MKT_STORE"] = str(self.store)
        os.environ[SAVE_EVERY] = str(SECONDS_BETWEEN_CHECKPOINTS)
        status = 0
        try:
            cli.main(self.command)
        except SystemExit as exit_:
            status = exit_.code or 0
        except BaseException:
            import traceback

            traceback.print_exc()
            status = 70
        sys.stdout.flush()
        os._exit(status)


def _exit_status(child: int, options: int = 0) -> int | None:
    pid, status = os.waitpid(child, options)
    return os.waitstatus_to_exitcode(status) if pid else None


def _processes(session: int) -> dict[int, str]:
    """The living processes of a session: id -> command line."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z" and int(fields[3]) == session:
                found[int(path.name)] = (path / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # it has just ended
    return found


def _end(child: int, end: str) -> None:
    processes = _processes(child)
    teachers = [p for p, line in processes.items() if p != child and "tracker" not in line]
    match end:
        case "SIGKILL all its processes":
            targets, number = list(processes), signal.SIGKILL
        case "SIGKILL a teacher's process" if teachers:
            targets, number = teachers[:1], signal.SIGKILL
        case "SIGTERM the command":
            targets, number = [child], signal.SIGTERM
        case _:
            targets, number = [child], signal.SIGKILL
    for pid in targets:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def fingerprints(job: Job) -> dict[str, str]:
    """Return a digest of every result file, apart from wall-clock times and the run's name."""
    (experiment,) = job.run.glob("mkt_*")
    found = {}
    for path in sorted([*job.run.rglob("*"), *job.store.rglob("*")]):
        if path.is_file() and path.suffix not in (".log", ".lock"):
            name = str(path.relative_to(job.folder)).replace(experiment.name, "NAME")
            found[name] = digest(path, experiment.name)
    return found


def digest(path: Path, experiment: str) -> str:
    """Digest of a file without its clocks and the name of the experiment."""
    if path.suffix == ".pt":
        state = torch.load(path, weights_only=True)
        del state["state"]["total_time"]
        data = repr(_plain(state)).encode()
    else:
        data = path.read_bytes().replace(experiment.encode(), b"NAME")
    if path.name == "summary.json":
        data = re.sub(rb'"seconds": [\d.]+', b"", data)
    if "timers_" in path.name:
        data = b"\n".join(line.split(b",")[0] for line in data.splitlines())
    return hashlib.sha256(data).hexdigest()


def _plain(state: Any) -> Any:
    """A state with its tensors as digests."""
    if isinstance(state, torch.Tensor):
        content = state.contiguous().view(-1).numpy().tobytes()
        return str(state.dtype), tuple(state.shape), hashlib.sha256(content).hexdigest()
    if isinstance(state, dict):  # tensordicts forget their device when they are loaded
        return {key: _plain(value) for key, value in state.items() if key != "__device"}
    return [_plain(value) for value in state] if isinstance(state, list | tuple) else state


def main() -> None:
    """Run the jobs and write the results, job by job."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="at least so many")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and signals")
    parser.add_argument("--folder", type=Path, help="where to work; by default a temporary one")
    arguments = parser.parse_args()
    ensure.START_METHOD = "fork"
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="chaos_"))
    began, draw = time.monotonic(), random.Random(arguments.seed)
    job = Job(folder / "job")
    if job.live() != 0:
        sys.exit(f"the uninterrupted job failed; see {job.folder}")
    expected, alone = fingerprints(job), job.seconds
    shutil.rmtree(job.folder)
    jobs: list[dict[str, Any]] = []
    while sum(len(done["lives"]) for done in jobs) < arguments.kills:
        job = Job(folder / "job")
        lives = job.survive(draw, alone)
        found = fingerprints(job)
        different = [k for k in sorted(expected | found) if expected.get(k) != found.get(k)]
        jobs.append({"lives": lives, "different": different, "orphaned": job.orphaned})
        write(jobs, len(expected), alone, time.monotonic() - began)
        if different:
            sys.exit(f"not as in the uninterrupted job: {different}; see {job.folder}")
        shutil.rmtree(job.folder)
    shutil.rmtree(folder)


def write(jobs: list[dict[str, Any]], files: int, alone: dict[str, float], seconds: float) -> None:
    """Write what has happened so far."""
    lives = [life for job in jobs for life in job["lives"]]
    content = {
        "kills": len(lives),
        "jobs": len(jobs),
        "files_compared_per_job": files,
        "jobs_with_different_files": sum(bool(job["different"]) for job in jobs),
        "by_end": dict(sorted(Counter(life.end for life in lives).items())),
        "by_phase": dict(sorted(Counter(life.phase for life in lives).items())),
        "longest_seconds_a_process_outlived_the_command": max(job["orphaned"] for job in jobs),
        "uninterrupted_job_seconds": alone,
        "seconds": seconds,
        "versions": {p: version(p) for p in ("benchmarl", "torchrl", "tensordict", "torch")},
        "lives": [],
    }
    rows = [json.dumps([number, *life]) for number, job in enumerate(jobs) for life in job["lives"]]
    listed = ",\n  ".join(rows)  # one in a line: job, phase, end, after seconds, reached
    text = json.dumps(content, indent=1).replace("[]", f"[\n  {listed}\n ]")
    RESULTS.write_text(text + "\n")


if __name__ == "__main__":
    main()
