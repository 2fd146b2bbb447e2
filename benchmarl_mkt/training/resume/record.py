"""What a folder says of the run in it, so that the same command goes on with that run."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from benchmarl_mkt.environments.task_set import RUN_FIELDS
from benchmarl_mkt.files import write_atomically

FORMAT = "benchmarl-mkt-run/1"
RECORD = "run.json"
# Settings that came later, with what held before: runs from before are taken up.
_ADDED = (("task.n_agents", 3), ("model.pooling", "sets"))  # of models: also critics, teachers


@dataclass(frozen=True)
class RunRecord:
    """The content of a folder's ``run.json``.

    Args:
        overrides: the command's overrides; a label, never composed again.
        config: what they composed to, as plain values.
        hydra: the files in ``.hydra``, name -> text.
        name: the experiment's folder in this one.
        finished: whether the run is at its end, reports included.
        cwd: the folder that relative paths started from, if it is known.
        threads: PyTorch's that the run trains with, since sums round by their number; 0: not chosen
            yet. Version 0.1 had one.
    """

    overrides: list[str]
    config: dict[str, Any]
    hydra: dict[str, str]
    name: str
    finished: bool = False
    cwd: str | None = None
    threads: int = 1
    format: str = FORMAT

    def note(self, folder: Path, **changes: Any) -> RunRecord:
        """Write the record of the run in ``folder`` with changes; return it."""
        changed = replace(self, **changes)
        write_atomically(folder / RECORD, json.dumps(asdict(changed), indent=2).encode())
        return changed


class RunInUse(ValueError):
    """Another process is running in the folder."""


@contextlib.contextmanager
def open_run(
    folder: Path, overrides: list[str], config: Mapping[str, Any], name: str
) -> Iterator[RunRecord]:
    """Take up the run in ``folder``, or begin one there; no other process can meanwhile.

    The folder, Hydra's ``hydra.run.dir``, exists; ``overrides`` compose to ``config``; the
    experiment has the ``name`` if the run is new.

    Raises:
        ValueError: if another process runs there, or the run there is of another configuration.
    """
    try:
        lock = FileLock(folder / f".{RECORD}.lock", timeout=0).acquire()
    except Timeout as error:
        raise RunInUse(
            f"hydra.run.dir: another process is running in {folder}; wait, or use another folder"
        ) from error
    with lock:
        plain: dict[str, Any] = json.loads(json.dumps(config))
        if (folder / RECORD).exists():
            record = read_run(folder)
            _check_same(record, plain, folder)
        else:
            hydra = {path.name: path.read_text() for path in (folder / ".hydra").glob("*.yaml")}
            record = RunRecord(overrides, plain, hydra, name, cwd=os.getcwd(), threads=0)
            record.note(folder)
        yield record


def read_run(folder: Path) -> RunRecord:
    """Return the record in ``folder``.

    Raises:
        ValueError: if there is none, or it is damaged.
    """
    path = folder / RECORD
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, not {FORMAT!r}")
        _check_harmless(record := RunRecord(**content))
        return record
    except FileNotFoundError as error:
        raise ValueError(f"resume: there is no run in {folder} (no {RECORD})") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"resume: {path} is damaged: {error}; use another folder") from error


def restore_hydra(folder: Path) -> None:
    """Write the files in ``.hydra`` as they were when the run in ``folder`` began."""
    for name, text in read_run(folder).hydra.items():
        (folder / ".hydra" / name).write_text(text)


def _check_harmless(record: RunRecord) -> None:
    """Refuse a record that would write elsewhere."""
    texts = (record.name, *record.hydra, *record.hydra.values(), *record.overrides)
    if not all(isinstance(text, str) for text in (*texts, record.cwd or "")):
        raise ValueError("name, hydra, overrides and cwd must be texts")
    for name in (record.name, *record.hydra):
        if name != Path(name).name or name in ("", ".", ".."):
            raise ValueError(f"{name!r} is no name of a file or folder")
    if type(record.threads) is not int or record.threads < 0:
        raise ValueError(f"threads: {record.threads!r} must be an integer of at least 0")


def _check_same(record: RunRecord, config: dict[str, Any], folder: Path) -> None:
    """Check that the run in ``folder`` has this configuration."""
    then, now = (dict(leaves(content, within=dict)) for content in (record.config, config))
    for key in set(now) - set(then):
        if any(key.endswith(name) and now[key] == value for name, value in _ADDED):
            then[key] = now[key]
    how = {f"task.{name}" for name in RUN_FIELDS}  # a set is run, which may change
    keys = sorted({*then, *now} - how)
    if then.get("algorithm.teacher_experiment"):  # of version 0.1: it named the teachers' settings
        renamed = ("algorithm.teacher.", "algorithm.teacher_", "@algorithm.teacher.")
        keys = [key for key in keys if not any(part in key for part in renamed)]
    changed = [key for key in keys if then.get(key) != now.get(key)]
    if changed:
        restore_hydra(folder)
        texts = [f"{key}: {then.get(key)!r} there, {now.get(key)!r} here" for key in changed[:3]]
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise ValueError(
            f"hydra.run.dir: the run in {folder} has another configuration: {'; '.join(texts)}"
            f"{more}; use another folder"
        )


def leaves(content: Any, key: str = "", within: Any = dict | list) -> Iterator[tuple[str, Any]]:
    """The values in nested mappings and, if ``within`` says so, lists, with their dotted keys."""
    if isinstance(content, within):
        named = content.items() if isinstance(content, dict) else enumerate(content)
        for name, value in named:
            yield from leaves(value, f"{key}.{name}" if key else str(name), within)
    else:
        yield key, content
