import os
import resource
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, ReplayBuffer

from benchmarl_mkt.training.resume.checkpoint import (
    latest_checkpoint,
    read_checkpoint,
    write_atomically,
    write_checkpoint,
)
from tests.processes import in_process
from tests.resume.training import differences

STATE = {
    "weights": torch.arange(6.0).view(2, 3).T,  # not contiguous
    "empty": torch.zeros(0),
    "number": torch.tensor(2, dtype=torch.int64),
    "flags": torch.tensor([True, False]),
    "nested": {0: {"step": torch.tensor(1.5)}, "size": torch.Size([2, 3])},
    "plain": [None, True, 3, 0.1, float("inf"), "text", (1, ("a",))],
    "device": torch.device("cpu"),
}


def test_a_state_comes_back(tmp_path):
    path = write_checkpoint(tmp_path, 7, STATE)
    found = read_checkpoint(path)
    assert differences(STATE, found) == []
    assert isinstance(found["nested"]["size"], torch.Size)
    assert isinstance(found["plain"][-1], tuple)
    assert found["device"] == torch.device("cpu")


def test_floats_come_back_exactly(tmp_path):
    values = [0.1 + 0.2, 1e-310, -0.0, 1.7976931348623157e308]
    found = read_checkpoint(write_checkpoint(tmp_path, 0, {"values": values}))["values"]
    assert [value.hex() for value in found] == [value.hex() for value in values]


def test_a_tensor_in_two_places_is_stored_once(tmp_path):
    tensor = torch.zeros(10_000)
    once = write_checkpoint(tmp_path / "a", 0, {"a": tensor}).stat().st_size
    twice = write_checkpoint(tmp_path / "b", 0, {"a": tensor, "b": [tensor]})
    assert twice.stat().st_size < once + 1000
    found = read_checkpoint(twice)
    assert torch.equal(found["a"], found["b"][0])


def test_of_a_replay_buffer_only_what_is_used_is_stored(tmp_path):
    """And the loaded buffer has its room again: it goes on where the saved one was."""

    def buffer():
        return ReplayBuffer(storage=LazyTensorStorage(1000), batch_size=4)

    def data(start, stop):
        return TensorDict({"x": torch.arange(start, stop)}, [stop - start])

    a, b = buffer(), buffer()
    a.extend(data(0, 10))
    path = write_checkpoint(tmp_path, 0, {"buffer": a.state_dict()})
    assert path.stat().st_size < 3000
    b.load_state_dict(read_checkpoint(path)["buffer"])
    for replay in (a, b):
        replay.extend(data(10, 1005))
    assert len(a) == len(b) == 1000
    assert torch.equal(a[:]["x"], b[:]["x"])


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", torch.nn.Linear(1, 1)])
def test_other_values_are_refused(value, tmp_path):
    with pytest.raises(TypeError, match="a checkpoint cannot hold"):
        write_checkpoint(tmp_path, 0, {"value": [value]})
    assert list(tmp_path.iterdir()) == []


def test_the_newest_two_are_kept(tmp_path):
    for iteration in (1, 5, 9, 12):
        write_checkpoint(tmp_path, iteration, {"iteration": iteration})
    assert sorted(int(path.name[:9]) for path in tmp_path.iterdir()) == [9, 12]
    assert latest_checkpoint(tmp_path).state == {"iteration": 12}


def test_what_is_done_again_replaces_what_was_damaged(tmp_path):
    """A run that went back behind a damaged file overtakes it; the good one before stays."""
    for iteration in (5, 9):
        write_checkpoint(tmp_path, iteration, {"iteration": iteration})
    newest = max(tmp_path.iterdir())
    newest.write_bytes(b"")
    assert latest_checkpoint(tmp_path).state == {"iteration": 5}
    assert newest.exists()
    write_checkpoint(tmp_path, 7, {"iteration": 7})
    assert sorted(int(path.name[:9]) for path in tmp_path.iterdir()) == [5, 7]


def test_there_may_be_none(tmp_path):
    assert latest_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize("damage", ["cut", "flip", "grow", "swap", "empty"])
def test_any_damage_is_found(damage, tmp_path):
    path = write_checkpoint(tmp_path, 0, STATE)
    data = path.read_bytes()
    middle = len(data) // 2
    damaged = {
        "cut": data[:-1],
        "flip": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "grow": data + b"\0",
        "swap": write_checkpoint(tmp_path / "other", 0, {"other": 1}).read_bytes(),
        "empty": b"",
    }[damage]
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=f"checkpoint {path} is damaged"):
        read_checkpoint(path)


def test_a_full_disk_leaves_what_was_there(tmp_path):
    """Here the limit of a process on the size of its files."""
    write_checkpoint(tmp_path, 1, {"iteration": 1})

    def job() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        with pytest.raises(OSError, match=r"File too large: '.*000000002-") as caught:
            write_checkpoint(tmp_path, 2, {"weights": torch.zeros(100_000)})
        assert caught.value.filename is not None

    assert in_process(job) == 0
    assert len(list(tmp_path.iterdir())) == 1
    assert latest_checkpoint(tmp_path).state == {"iteration": 1}


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_checkpoint(tmp_path / "file" / "resume", 1, {})


def test_writing_is_all_or_nothing(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def job() -> None:
        replace = Path.replace

        def die(self, target):
            os._exit(9)

        Path.replace = die
        try:
            write_atomically(path, b"new")
        finally:
            Path.replace = replace

    assert in_process(job) == 9
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
