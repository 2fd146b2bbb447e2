"""Loading teams: checked, frozen, and without running any code from their files."""

from __future__ import annotations

import json
from math import inf, isfinite
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from benchmarl_mkt.environments import MultiTaskConfig
from benchmarl_mkt.environments.registration import register_tasks
from benchmarl_mkt.environments.task_set import RUN_FIELDS
from benchmarl_mkt.files import sha256
from benchmarl_mkt.models.registration import register_models
from benchmarl_mkt.teams.expert import build_team, own_network
from benchmarl_mkt.teams.folder import FORMAT, METADATA, WEIGHTS, TeamSpecs, checksum
from benchmarl_mkt.teams.frozen import FrozenTeam

FOLDER = "team"  # in a run's folder
KINDS = ("values", "logits")
_DAMAGE = (
    ValueError, LookupError, TypeError, AttributeError, OSError, RuntimeError, OverflowError,
    MemoryError, SafetensorError,
)  # fmt: skip


def load_teacher(
    path: str | Path, specs: TeamSpecs | None = None, task: str | None = None
) -> FrozenTeam:
    """Load one task's team from its folder.

    Args:
        path: the folder with ``teacher.json`` and ``weights.safetensors``.
        specs: sizes of the task to teach; None skips that check.
        task: name of the task to teach, such as ``mpe/simple_push``; None skips that check.

    Raises:
        ValueError: if the folder is not a team's, is damaged, or does not fit the task.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        raise ValueError(f"teachers: there is no teacher in {path} (no such folder)")
    if not (path / METADATA).is_file():
        raise ValueError(
            f"teachers: there is no teacher in {path} (no {METADATA}); remove the folder, or name "
            "another"
        )
    try:
        metadata = json.loads((path / METADATA).read_text())
        _check_metadata(metadata, path / WEIGHTS)
        own, taught = TeamSpecs(**metadata["specs"]), _task_of(metadata["task"])
        team = build_team(metadata, load_file(path / WEIGHTS), path)
    except _DAMAGE as error:
        raise damaged(path, error) from error
    if specs is not None and own != specs:
        raise ValueError(f"teachers: {path} was made for {own}, but the task has {specs}")
    if task is not None and taught != task:
        raise ValueError(f"teachers: {path} was trained on {taught}, but the task is {task}")
    return team


def damaged(path: Path, reason: object) -> ValueError:
    """The error of a team's folder that cannot be used."""
    return ValueError(
        f"teachers: {path} is damaged or no teacher: {reason}; remove the folder and train it again"
    )


def _check_metadata(metadata: dict[str, Any], weights: Path) -> None:
    """Check format, checksum, and what is shown and used of a team besides its weights."""
    if metadata["format"] != FORMAT:
        raise ValueError(f"its format is {metadata['format']!r}, this version reads {FORMAT!r}")
    # The second is what the first version wrote: the weights alone.
    if metadata["checksum"] not in (checksum(weights, metadata), sha256(weights)):
        raise ValueError("its content does not match its checksum")
    if metadata["kind"] not in KINDS:
        raise ValueError(f"its kind is {metadata['kind']!r}, not one of {KINDS}")
    if not 0 < float(metadata["temperature"]) < inf:
        raise ValueError(f"its temperature is {metadata['temperature']!r}")
    numbers = [metadata[who][key] for who in ("score", "random") for key in ("mean", "low", "high")]
    if not all(isfinite(float(number)) for number in [*numbers, metadata["frames"]]):
        raise ValueError("its scores are no numbers")


def _task_of(config: Any) -> str:
    """The one task in the configuration of a task set, as :class:`MultiTaskClass` has it."""
    (team,) = config["tasks"]
    fields = set(MultiTaskConfig.__dataclass_fields__) - RUN_FIELDS
    if set(config) != fields or not isinstance(team["task"], str):
        raise ValueError(f"its task is {config!r:.80}")
    return team["task"]


def load_team(path: str | Path) -> dict[str, FrozenTeam]:
    """Load a trained team: task -> its agents, to act with or to take values from.

    Neither an experiment nor Hydra is needed around it; :class:`FrozenTeam` says what it reads and
    writes.

    Args:
        path: a team's folder, one of its parts, such as a teacher's folder, or a folder that has
            exactly one team below it, such as a run's.

    Raises:
        ValueError: if there is no team, or more than one, or one of its parts is damaged.
    """
    register_models()
    register_tasks()
    path = Path(path).expanduser()
    if (path / METADATA).is_file():
        part = load_teacher(path)
        return {part.metadata["task"]["tasks"][0]["name"]: part}
    teams = {entry.parent.parent for entry in path.glob(f"*/{METADATA}")} or {
        entry.parent.parent for entry in path.glob(f"**/{FOLDER}/*/{METADATA}")
    }
    if len(teams) != 1:
        names = f"{len(teams)} teams: {', '.join(map(str, sorted(teams)))}" if teams else "no team"
        raise ValueError(
            f"checkpoint: {names} in {path}; name the folder of one run or team (a run that has "
            f"finished leaves one in its folder, {FOLDER}/)"
        )
    (folder,) = teams
    parts = sorted(folder.glob(f"*/{METADATA}"))
    return {part.parent.name: load_teacher(part.parent) for part in parts}


def load_trunk(network: nn.Module, folder: str | Path) -> None:
    """Give a network the weights of the trunk F of a trained team.

    One over entities also gets the weights of the types that both know.

    Args:
        network: with ``trunk`` and the activation around it, ``activate``, as
            :class:`~benchmarl_mkt.models.StudentNetwork` has.
        folder: as for :func:`load_team`.

    Raises:
        ValueError: if there is no team, or its trunk has other layers, sizes or activations, or a
            type has, or it pools entities otherwise.
    """
    teams = load_team(folder).values()
    networks = [own_network(team.model) for team in teams]
    if _trunk_kind(networks[0]) != _trunk_kind(network):
        settings = next(iter(teams)).metadata["model"]
        raise ValueError(
            f"algorithm.trunk: the trunk in {folder} is not of this model's kind and sizes; use "
            f"its run's model settings ({settings})"
        )
    network.trunk.load_state_dict(networks[0].trunk.state_dict())
    known = {name: part for net in networks for name, part in getattr(net, "parts", {}).items()}
    mine = getattr(network, "parts", {})
    shared = known.keys() & mine.keys()
    if shared and ("attention" in known) != ("attention" in mine):
        theirs = "attention" if "attention" in known else "sets"
        raise ValueError(
            f"algorithm.trunk: the team in {folder} pools otherwise; set model.pooling={theirs}"
        )
    for name, part in mine.items():
        if name in known:
            try:
                part.load_state_dict(known[name].state_dict())
            except RuntimeError as error:
                raise ValueError(
                    f"algorithm.trunk: {name} in {folder} has other sizes; use its run's model "
                    "settings"
                ) from error


def _trunk_kind(network: nn.Module) -> tuple[list[type], dict[str, tuple[int, ...]]]:
    """Types of the modules between E_k and EA_k, and the shapes of their tensors."""
    if not hasattr(network, "trunk"):
        return [], {}
    parts = (network.activate, network.trunk)
    tensors = network.trunk.state_dict()
    return (
        [type(module) for part in parts for module in part.modules()],
        {key: tuple(getattr(value, "shape", ())) for key, value in tensors.items()},
    )
