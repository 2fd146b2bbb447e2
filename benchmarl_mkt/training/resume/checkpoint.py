"""Checkpoint files: atomic, self-checking, and read without running any code from them.

A checkpoint is one safetensors file, named after the iterations done and its own SHA-256. Tensors
lie in it as such, everything else as JSON in its header.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from benchmarl_mkt.files import write_atomically

FORMAT = "benchmarl-mkt-checkpoint/1"
KEPT = 2  # so that one of them may be damaged
_SUFFIX = ".safetensors"
_DIGITS = 32  # of the SHA-256, in the name

logger = logging.getLogger(__name__)


class Checkpoint(NamedTuple):
    """A checkpoint that was read: its file, and the state in it."""

    path: Path
    state: dict[str, Any]


def write_checkpoint(folder: Path, iteration: int, state: Mapping[str, Any]) -> Path:
    """Write ``state`` as the checkpoint after ``iteration`` iterations; keep the newest two.

    The file appears by one rename when all of it is on the disk. Files of later iterations come
    from a damaged or abandoned future, and go.

    Raises:
        OSError: if the disk is full or the folder cannot be written; older checkpoints are intact.
        TypeError: if ``state`` is not of nested mappings, lists, tuples, tensors and plain values.
    """
    tensors, content = _pack(state)
    header = {"format": FORMAT, "state": json.dumps(content, separators=(",", ":"))}
    data = safetensors.torch.save(tensors, header)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{iteration:09d}-{_digest(data)}{_SUFFIX}"
    write_atomically(path, data)
    paths = _newest_first(folder)
    place = paths.index(path)
    for old in paths[:place] + paths[place + KEPT :]:
        old.unlink()
    return path


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest good checkpoint in ``folder``; a damaged one is skipped with a warning."""
    for path in _newest_first(folder):
        try:
            return Checkpoint(path, read_checkpoint(path))
        except ValueError as error:
            logger.warning("%s; skipped", error)
    return None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the state in a checkpoint's file.

    Raises:
        ValueError: if the file is damaged or no checkpoint.
    """
    try:
        data = path.read_bytes()
        if _digest(data) != path.stem.rpartition("-")[2]:
            raise ValueError("its content does not match its checksum")
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])["__metadata__"]
        if header["format"] != FORMAT:
            raise ValueError(f"its format is {header['format']!r}, this version reads {FORMAT!r}")
        return _unpack(json.loads(header["state"]), safetensors.torch.load(data))
    except (ValueError, LookupError, TypeError, OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"checkpoint {path} is damaged: {error}") from error


def read_benchmarls(path: Path) -> dict[str, Any]:
    """Read a checkpoint of BenchMARL's own as plain tensors and numbers.

    Raises:
        ValueError: if it is none, or there is more in it, which is not run.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        content["state"]["total_frames"] = int(content["state"]["total_frames"])
    except Exception as error:  # of torch's reader, or of whatever the content is
        raise ValueError(
            f"{path} is no checkpoint of BenchMARL's: it is damaged, or holds more than tensors "
            "and numbers; nothing of it was run"
        ) from error
    return content


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"[0-9]*-*{_SUFFIX}"), reverse=True)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGITS]


def _pack(state: Any) -> tuple[dict[str, Tensor], Any]:
    """Split a state into its tensors, each stored once, and JSON that says where they belong.

    Of a TorchRL storage, whose tensors have as many rows as it has room for, only the rows in use
    are stored.
    """
    tensors: dict[str, Tensor] = {}
    names: dict[tuple, str] = {}

    def store(tensor: Tensor, used: int | None) -> dict[str, Any]:
        part = tensor.detach()[:used] if used is not None else tensor.detach()
        identity = (part.data_ptr(), part.dtype, part.shape, part.stride(), part.device)
        name = names.setdefault(identity, str(len(names)))
        tensors[name] = part.cpu().contiguous()
        room = None if used is None else len(tensor)
        return {"tensor": name, "device": str(part.device), "room": room}

    def pack(value: Any, used: int | None = None) -> Any:
        match value:
            case Tensor():
                return store(value, used)
            case Mapping():
                used = value["_len"] if value.keys() >= {"_storage", "_len"} else used
                return {"items": [[pack(k), pack(v, used)] for k, v in value.items()]}
            case torch.Size():
                return {"size": list(value)}
            case torch.device():
                return {"torch_device": str(value)}
            case tuple():
                return {"tuple": [pack(entry, used) for entry in value]}
            case list():
                return [pack(entry, used) for entry in value]
            case str() | int() | float() | None:
                return value
        raise TypeError(f"a checkpoint cannot hold {type(value).__name__}: {value!r:.80}")

    content = pack(state)
    return tensors, content


def _unpack(content: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Undo :func:`_pack`."""
    match content:
        case {"tensor": name, "device": device, "room": room}:
            tensor = tensors[name]
            if room is not None:
                full = tensor.new_zeros(room, *tensor.shape[1:])
                full[: len(tensor)] = tensor
                tensor = full
            return tensor.to(device)
        case {"items": items}:
            return {_unpack(key, tensors): _unpack(value, tensors) for key, value in items}
        case {"size": sizes}:
            return torch.Size(sizes)
        case {"torch_device": device}:
            return torch.device(device)
        case {"tuple": entries}:
            return tuple(_unpack(entry, tensors) for entry in entries)
        case list():
            return [_unpack(entry, tensors) for entry in content]
    return content
