"""The same small sweep on each engine, a job of it killed; its files must be the basic launcher's.

The sweep is three MPE teachers and four runs that share them, two at a time, so that two jobs need
the same teachers at once. Engines: ``joblib``; ``slurm``, where ``sbatch`` is; ``ray``, on two
nodes of a core each that this starts here.

    python benchmarks/engines.py joblib slurm ray
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import yaml
from chaos import EXPERIMENT, digest

from benchmarl_mkt.training.resume.callback import SAVE_EVERY

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "engines.json"
ENGINES = {  # the sweep's file, what two jobs at a time on two cores ask for, whose version counts
    "basic": ("paper", "hydra/launcher=basic", "hydra-core"),
    "joblib": ("paper", "hydra.launcher.n_jobs=2", "joblib"),
    "slurm": ("paper_slurm", "hydra.launcher.cpus_per_task=1", "submitit"),
    "ray": ("paper_ray", "hydra.launcher.ray.remote.num_cpus=1", "ray"),
}
# What says when, where and in how many attempts a run was set up; the rest is what it has learned.
NOT_LEARNED = {".hydra", "run.json", "run.log", ".run.json.lock", "config.pkl"}


class Watch:
    """Follows the checkpoints of all trainings in a folder."""

    def __init__(self) -> None:
        self.seen: set[tuple[Path, int]] = set()
        self.reached: dict[Path, int] = {}  # each training's last iteration
        self.back = 0  # checkpoints of iterations that a training had been at: it began again

    def look(self, folder: Path) -> None:
        """Take in what is new."""
        for path in sorted(folder.rglob("resume/0*.safetensors")):
            with contextlib.suppress(FileNotFoundError):  # a newer one has replaced it
                if (key := (path, path.stat().st_mtime_ns)) not in self.seen:
                    self.seen.add(key)
                    iteration = int(path.name.split("-")[0])
                    self.back += iteration <= self.reached.get(path.parent, 0)
                    self.reached[path.parent] = iteration


def sweep(engine: str, folder: Path) -> dict[str, object]:
    """Give the sweep's command until it is through; but for the basic launcher, kill a job."""
    name, option, package = ENGINES[engine]
    preset = folder / "preset.yaml"
    preset.write_text(yaml.safe_dump(EXPERIMENT | {"max_n_frames": 2_500}))
    values = yaml.safe_load(preset.read_text())
    command = [
        *(sys.executable, "-m", "benchmarl_mkt.cli", "run", "--config-dir", str(HERE)),
        *("--config-name", name, option, "hydra.sweep.dir=runs", "+method=mkt,alpha_0", "seed=0,1"),
        *(f"experiment.{k}={json.dumps(v)}".replace('"', "") for k, v in values.items()),
        *("++algorithm.teacher.seed=0", f"++algorithm.teacher.experiment={preset}"),
    ]
    environment = {**os.environ, "BENCHMARL_MKT_STORE": str(folder / "store")}
    watch, killed = Watch(), 0 if engine == "basic" else None
    for given in range(1, 5):
        with (folder / f"output_{given}.txt").open("w") as log:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
            while process.poll() is None:
                time.sleep(0.02)
                watch.look(folder)
                for training, at in watch.reached.items():
                    if killed is None and at >= 10 and folder / "runs" in training.parents:
                        killed = at
                        kill_the_job_in(training.parents[1], engine)
        if process.returncode == 0:
            return {
                "version": f"{package} {version(package)}",
                "a_job_was_killed_at_its_iteration": killed or None,
                "times_the_command_was_given": given,
                "trainings": len(watch.reached),
                "checkpoints_seen": len(watch.seen),
                "of_iterations_that_had_been_done": watch.back,
            }
    sys.exit(f"{engine}: exit status {process.returncode}; see {folder}")


def kill_the_job_in(run: Path, engine: str) -> None:
    """SIGKILL the process that runs in a folder; with Slurm, cancel its job."""
    if engine == "slurm":
        job = yaml.safe_load((run / ".hydra" / "hydra.yaml").read_text())["hydra"]["job"]["id"]
        subprocess.run(["scancel", job], check=True)
        return
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(f.readlink() == run / ".run.json.lock" for f in (process / "fd").iterdir()):
                os.kill(int(process.name), signal.SIGKILL)


def digests(folder: Path) -> dict[str, str]:
    """Digests of what was learned and measured: the teachers' files and the runs', logs apart."""
    found = {}
    for run in (folder / "runs").glob("*/seed_*"):
        (experiment,) = (path.name for path in run.glob("mkt_*"))
        for path in run.rglob("*"):
            if path.is_file() and not NOT_LEARNED.intersection(path.relative_to(run).parts):
                name = str(path.relative_to(folder)).replace(experiment, "NAME")
                found[name] = digest(path, experiment)
    for path in (folder / "store").glob("[!.]*/*"):
        found[str(path.relative_to(folder))] = digest(path, "")
    return found


@contextlib.contextmanager
def two_nodes_of_ray() -> Iterator[None]:
    """Start a cluster, whose processes begin in this folder and know no teacher store."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        yield
    finally:
        cluster.shutdown()


def main() -> None:
    """Run the sweep on each engine in the same folder, and write the results."""
    os.environ |= {"OMP_NUM_THREADS": "1", SAVE_EVERY: "1"}
    folder = Path(tempfile.mkdtemp(prefix="engines_"))
    results: dict[str, dict] = {}
    expected: dict[str, str] = {}
    for engine in ["basic", *sys.argv[1:]]:
        with two_nodes_of_ray() if engine == "ray" else contextlib.nullcontext():
            results[engine] = sweep(engine, folder)
        found = digests(folder)
        expected = expected or found
        names = sorted(expected | found)
        results[engine]["files_compared"] = len(names)
        results[engine]["different"] = [n for n in names if expected.get(n) != found.get(n)]
        shutil.rmtree(folder)
        folder.mkdir()
        print(engine, results[engine], flush=True)
    shutil.rmtree(folder)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
