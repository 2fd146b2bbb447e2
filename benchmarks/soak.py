"""Does anything leak? One long training run, watched from outside.

    python benchmarks/soak.py --hours 2 [--out benchmarks/results/soak_mpe.json] [OVERRIDES ...]

Starts ``benchmarl run`` with a budget it cannot use up, writes down the memory, open files, threads
and child processes of its process tree every half minute, and ends it with SIGTERM. Memory counts
from the end of the warm-up on, when the replay buffers are full and every code path has run; its
growth is the median of the last tenth of the time over that of the first tenth after the warm-up.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

ENDLESS = ["experiment=mkt_paper", "experiment.max_n_frames=1_000_000_000"]
DEFAULT = ["algorithm=mkt", "task=multitask/mpe"]
INTERVAL = 30.0  # seconds


def look(root: psutil.Process, began: float) -> dict[str, float]:
    """Add up what a process and its children hold."""
    family = [root, *root.children(recursive=True)]
    return {
        "minutes": round((time.monotonic() - began) / 60, 2),
        "rss_mb": round(sum(p.memory_info().rss for p in family) / 2**20, 2),
        "files": sum(p.num_fds() for p in family),
        "threads": sum(p.num_threads() for p in family),
        "children": len(family) - 1,
    }


def judge(samples: list[dict[str, float]], warm_up: float) -> dict[str, Any]:
    """Compare the last tenth of the samples with the first after ``warm_up`` (a fraction)."""
    steady = samples[int(warm_up * len(samples)) :]
    tenth = max(1, len(steady) // 10)

    def median(part: list[dict[str, float]], key: str) -> float:
        return statistics.median(sample[key] for sample in part)

    first, last = steady[:tenth], steady[-tenth:]
    growth = median(last, "rss_mb") / median(first, "rss_mb") - 1
    return {
        "rss_growth_percent": round(100 * growth, 2),
        **{
            f"more_{key}": median(last, key) - median(first, key)
            for key in ("files", "threads", "children")
        },
    }


def is_free(lock: Path) -> bool:
    """Whether nobody holds a lock file."""
    try:
        with FileLock(lock, timeout=0):
            return True
    except Timeout:
        return False


def soak(hours: float, overrides: list[str], out: Path, warm_up: float) -> dict[str, Any]:
    """Run, watch, stop; write ``out`` as it goes and return its content."""
    command = [sys.executable, "-m", "benchmarl_mkt.cli", "run", *DEFAULT, *ENDLESS, *overrides]
    result: dict[str, Any] = {"command": command[3:], "hours": hours, "samples": []}
    with tempfile.TemporaryDirectory() as folder, (out.with_suffix(".log")).open("w") as log:
        began = time.monotonic()
        run = subprocess.Popen(
            [*command, f"hydra.run.dir={folder}"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": folder},
        )
        root = psutil.Process(run.pid)
        while time.monotonic() - began < 3600 * hours:
            time.sleep(INTERVAL)
            if run.poll() is not None:
                raise RuntimeError(
                    f"the run ended by itself, status {run.returncode}; see {log.name}"
                )
            result["samples"].append(look(root, began))
            result["verdict"] = judge(result["samples"], warm_up)
            out.write_text(json.dumps(result, indent=1) + "\n")
        family = root.children(recursive=True)
        run.send_signal(signal.SIGTERM)
        result["status"] = run.wait(timeout=120)
        _, alive = psutil.wait_procs(family, timeout=10)
        result["processes_left"] = len(alive)
        result["locks_held"] = sum(not is_free(path) for path in Path(folder).rglob("*.lock"))
        result["temporary_left"] = [p.name for p in Path(folder).iterdir() if "tmp" in p.name]
    out.with_suffix(".log").unlink()
    out.write_text(json.dumps(result, indent=1) + "\n")
    return result


def plot(result: dict[str, Any], out: Path, warm_up: float) -> None:
    """Draw memory over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    minutes = [sample["minutes"] for sample in result["samples"]]
    figure, axis = pyplot.subplots(figsize=(7, 3), layout="constrained")
    axis.plot(minutes, [sample["rss_mb"] for sample in result["samples"]], color="C0")
    axis.axvspan(0, warm_up * minutes[-1], color="0.9", label="warm-up")
    axis.set(xlabel="minutes", ylabel="resident memory (MiB)", ylim=(0, None))
    axis.set_title(f"growth after warm-up {result['verdict']['rss_growth_percent']:+.2f} %")
    axis.legend(loc="lower right")
    figure.savefig(out, dpi=110, metadata={"Software": None})


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--warm-up", type=float, default=0.15, help="fraction of the time")
    here = Path(__file__).parent / "results"
    parser.add_argument("--out", type=Path, default=here / "soak_mpe.json")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    result = soak(arguments.hours, arguments.overrides, arguments.out, arguments.warm_up)
    plot(result, arguments.out.with_suffix(".png"), arguments.warm_up)
    summary = {key: value for key, value in result.items() if key != "samples"}
    sys.stdout.write(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
