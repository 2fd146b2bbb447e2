"""Fixtures of all tests."""

from __future__ import annotations

import contextlib
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hypothesis import settings

import benchmarl_mkt
from benchmarl_mkt.cli import main
from tests.helpers import PUSH, SPEAKER, TINY, task_set
from tests.toys import register_toys

with contextlib.suppress(ImportError):  # comes with JAX
    from absl import logging as absl_logging

    # Hydra's logging closes earlier handlers, and absl's closes its stream: pytest's, if it was
    # imported under its capture.
    absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__

settings.register_profile("suite", deadline=None, max_examples=30, derandomize=True, database=None)
settings.load_profile("suite")


@pytest.fixture(scope="session", autouse=True)
def registered() -> None:
    torch.set_num_threads(1)
    benchmarl_mkt.register()
    register_toys()


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch) -> Path:
    """An empty teacher store for every test, one thread, and a fixed random state."""
    store = tmp_path / "store"
    monkeypatch.setenv("BENCHMARL_MKT_STORE", str(store))
    torch.manual_seed(0)
    torch.set_num_threads(1)  # again: TorchRL may have changed it
    return store


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Call the command in this process: status, standard output, standard error."""

    def call(*arguments: str):
        monkeypatch.setattr(sys, "argv", ["benchmarl"])
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        status, root = 0, logging.getLogger()
        handlers, level = list(root.handlers), root.level
        try:
            main(list(arguments))
        except SystemExit as exit_:
            status = exit_.code
        finally:
            GlobalHydra.instance().clear()
            HydraConfig.instance().cfg = None
            root.handlers[:] = handlers  # Hydra's would write to what capsys has closed
            root.setLevel(level)
        out, error = capsys.readouterr()
        return status, out, error

    return call


@dataclass
class TeacherSet:
    """Trained teachers of two MPE tasks, and how they were trained."""

    store: Path
    experiment: Path  # the YAML file of their experiment
    task: object
    paths: dict[str, Path]

    def config(self, **changes):
        """A student's configuration that finds them."""
        from benchmarl_mkt.algorithms import MktConfig

        teacher = {"store": str(self.store), "experiment": str(self.experiment)}
        return MktConfig(**{"teacher": teacher, **changes})


@pytest.fixture(scope="session")
def teachers(registered, tmp_path_factory) -> TeacherSet:
    """Teachers of simple_push and simple_speaker_listener, trained for two iterations."""
    from benchmarl_mkt.teachers import train_teacher

    folder = tmp_path_factory.mktemp("teachers")
    experiment = write_tiny_experiment(folder)
    task = task_set(PUSH, SPEAKER)
    found = TeacherSet(folder / "store", experiment, task, {})
    for team in task.team_configs:
        found.paths[team.name] = train_teacher(found.config().teacher_settings, task, team.name)
    return found


def write_tiny_experiment(folder: Path, **changes) -> Path:
    """Write ``TINY`` as a preset; ``algorithm.teacher.experiment`` takes such a path."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, **changes}))
    return path
