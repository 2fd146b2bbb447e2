"""What a task set's configuration says: its tasks, checked and named."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import benchmarl.environments as benchmarl_environments
from benchmarl.environments.common import TaskClass
from benchmarl.utils import _read_yaml_config
from torch import nn

from benchmarl_mkt.environments.wins import TEAMS_WON
from benchmarl_mkt.files import conf_path

_RESERVED = ("state", "active", "done", "terminated", "truncated", "next", "student", TEAMS_WON)

# A class of other people's tasks -> the class that plays them in a set; the games' modules fill it.
PLAYED_AS: dict[type[TaskClass], type[TaskClass]] = {}

# Of the fields below, those that say how a set is run and not what it is.
RUN_FIELDS = {"parallel_collection", "final_episodes"}


@dataclass
class MultiTaskConfig:
    """Schema of ``conf/task/multitask/*.yaml``.

    Args:
        tasks: each a registered BenchMARL task (``vmas/balance``) or a mapping with ``task`` and,
            as wished, ``name`` (of the agent group), ``config`` (patch of the task's own
            configuration) and ``opponents`` (agent group -> frozen policy).
        agent_id: append the one-hot agent id to the observations (paper's Table III: yes).
        reward: ``sum`` or ``mean`` of the agents' rewards (EPyMARL, and so the paper, sums).
        only: name of the one task of the set to keep, for single-task runs; None keeps all.
        parallel_collection: run the copies of tasks that are not vectorised in processes of their
            own. In Hydra it is ``experiment.parallel_collection``.
        final_episodes: episodes that score a finished run, its teachers and its best policy; None
            is 500, and ten times an evaluation's for the best policy.
    """

    tasks: list[Any] = field(default_factory=list)
    agent_id: bool = True
    reward: str = "sum"
    only: str | None = None
    parallel_collection: bool = False
    final_episodes: int | None = None


def set_names(choice: str, config: Mapping[str, Any], teams: Sequence[TeamConfig]) -> list[str]:
    """Name the tasks of a set, and the set with all that it is; ``teams`` are its tasks, checked.

    A shipped set has the name of its file, ``choice``. Any other says what is in it: BenchMARL's
    results are merged by these names, and different sets must not be taken for one.
    """
    path = conf_path() / "task" / "multitask" / f"{choice.lower()}.yaml"
    shipped = asdict(MultiTaskConfig(**(_read_yaml_config(str(path)) if path.is_file() else {})))
    tasks = [choice]
    if list(config["tasks"]) != shipped["tasks"]:
        content = json.dumps([asdict(team) for team in teams], sort_keys=True, default=str)
        digest = hashlib.sha256(content.encode()).hexdigest()[:8]
        tasks += ["_".join(team.name for team in teams)[:60], digest]
    changed = [
        str(config[key]) if key == "only" else f"{key}_{config[key]}"
        for key in set(shipped) - RUN_FIELDS - {"tasks"}
        if config[key] != shipped[key]
    ]
    return ["_".join(tasks), "_".join([*tasks, *sorted(changed)])]


@dataclass
class TeamConfig:
    """One entry of ``tasks``; see :class:`MultiTaskConfig`."""

    task: str
    name: str
    config: dict[str, Any] = field(default_factory=dict)
    opponents: dict[str, str] = field(default_factory=dict)

    def task_class(self) -> TaskClass:
        """Build the BenchMARL task with its configuration, patched."""
        task = benchmarl_environments.task_config_registry[self.task].get_from_yaml()
        unknown = set(self.config) - set(task.config)
        if unknown:
            raise ValueError(
                f"tasks: {self.task} has no configuration {sorted(unknown)}; "
                f"it has {sorted(task.config)}"
            )
        task.config = {**task.config, **self.config}
        for other, played_as in PLAYED_AS.items():
            if isinstance(task, other):
                return played_as(task.name, task.config)
        return task


def parse_tasks(entries: Sequence[Any]) -> list[TeamConfig]:
    """Check the entries of ``tasks`` and give each a name.

    Raises:
        ValueError: if they are no set (one line that names the entry and the remedy).
    """
    if not entries:
        raise ValueError(
            "tasks: the task set is empty; name at least one, such as tasks=[mpe/simple_push]"
        )
    teams = [_parse_entry(entry) for entry in entries]
    names = [team.name for team in teams]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"tasks: '{name}' is in the set twice; remove one, or give the entries distinct "
                "names: {task: ..., name: ...}"
            )
        legal = name.isascii() and name.replace("_", "").isalnum()
        if name in _RESERVED or not legal or hasattr(nn.ModuleDict, name):
            raise ValueError(
                f"tasks: '{name}' cannot name a team (letters, digits and underscores, not a "
                "reserved word); choose another with name: ..."
            )
    return teams


def _parse_entry(entry: Any) -> TeamConfig:
    entry = {"task": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, Mapping):
        raise ValueError(f"tasks: the entry {entry!r} must be a task's name or a mapping with task")
    unknown = set(entry) - set(TeamConfig.__dataclass_fields__)
    if unknown or not isinstance(entry.get("task"), str):
        raise ValueError(
            f"tasks: the entry {entry} must be a task's name or a mapping with task and, as "
            f"wished, name, config, opponents; unknown: {sorted(unknown)}"
        )
    registry, task = benchmarl_environments.task_config_registry, entry["task"]
    if task not in registry or task.startswith("multitask/"):
        close = difflib.get_close_matches(task, registry, 3, 0.5) or sorted(registry)[:5]
        raise ValueError(
            f"tasks: unknown task '{task}'; did you mean one of {close}? "
            f"({len(registry)} tasks are registered)"
        )
    for key in ("config", "opponents"):
        if not isinstance(entry.get(key) or {}, Mapping):
            raise ValueError(f"tasks: {key} of {task} must be a mapping, got {entry[key]!r}")
    team = TeamConfig(
        task=task,
        name=str(entry.get("name") or task.split("/")[-1]),
        config=dict(entry.get("config") or {}),
        opponents=dict(entry.get("opponents") or {}),
    )
    if not team.task_class().supports_discrete_actions():
        raise ValueError(
            f"tasks: '{task}' has continuous actions only; choose tasks with discrete actions"
        )
    return team
