"""Replay of segments: one buffer per task, dealt out task by task or all at once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from benchmarl.utils import DEVICE_TYPING
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import LazyTensorStorage, ReplayBuffer

UPDATES = ("sequential", "joint")


def make_segments(batch: TensorDictBase, tasks: list[str], states: bool = True) -> TensorDict:
    """Cut a collected batch [B, T] into B segments with T + 1 observations each.

    Reads the entries of :class:`~benchmarl_mkt.environments.MultiTaskEnv`, ``is_init`` if there,
    and ``(task, "teacher_values")`` if there; gives the entries that
    :class:`~benchmarl_mkt.objectives.MktLoss` reads, without ``states`` if nobody needs them. The
    observation after the last step is the one the environment returned, before any reset. Where a
    round ends inside the segment the next observation belongs to another episode: a time limit
    there cannot bootstrap, and ``bootstrap`` is false.
    """
    return TensorDict(
        {task: _task_segment(batch, task, states) for task in tasks},
        batch_size=batch.batch_size[:1],
        device=batch.device,
    )


def _task_segment(batch: TensorDictBase, task: str, states: bool) -> TensorDict:
    after, group = batch.get("next"), batch.get(task)
    # [B, T, N, 1], the same for every agent of the team, to [B, T]
    reward, done, terminated = (
        after.get((task, key))[..., 0, 0] for key in ("reward", "done", "terminated")
    )
    truncated = done & ~terminated
    lost = truncated & after.get("done").squeeze(-1)
    lost[:, -1] = False
    content = {
        "observation": _extended(batch, (task, "observation")),
        "action_mask": _extended(batch, (task, "action_mask")),
        "action": group.get("action"),
        "reward": reward,
        "terminated": terminated,
        "active": batch.get(("active", task)).squeeze(-1),
        "bootstrap": ~lost,
    }
    if states and ("state", task) in batch.keys(True):
        content["state"] = _extended(batch, ("state", task))
    if "teacher_values" in group.keys():
        content["teacher_values"] = group.get("teacher_values")
    if "is_init" in batch.keys():  # a recurrent student starts every segment afresh
        content["is_init"] = _extended(batch, "is_init")
        content["is_init"][:, 0] = True
    return TensorDict(content, batch_size=batch.batch_size[:1], device=batch.device)


def _extended(batch: TensorDictBase, key) -> Tensor:
    """Append the last step's next entry: [B, T, ...] to [B, T+1, ...]."""
    return torch.cat([batch.get(key), batch.get("next").get(key)[:, -1:]], 1)


class MultiTaskReplayBuffer:
    """K first-in-first-out buffers of segments.

    Args:
        tasks: the tasks, in the order of Algorithm 1.
        capacity: segments kept per task.
        batch_size: segments per task in a sample.
        update: ``sequential`` samples one task after the other (Algorithm 1, lines 4-13),
            ``joint`` all of them at once.

    Raises:
        ValueError: if ``update`` is neither, or a size is not positive.
    """

    def __init__(
        self,
        tasks: list[str],
        capacity: int,
        batch_size: int,
        update: str = "sequential",
        device: DEVICE_TYPING = "cpu",
    ):
        if update not in UPDATES:
            raise ValueError(f"update: {update!r} must be one of {UPDATES}")
        if capacity < 1 or batch_size < 1:
            raise ValueError(
                f"replay: capacity {capacity} and batch size {batch_size} must be at least 1"
            )
        self.tasks, self.update, self.batch_size = list(tasks), update, batch_size
        self.buffers = {
            task: ReplayBuffer(storage=LazyTensorStorage(capacity, device=device))
            for task in self.tasks
        }
        self._turn = 0

    @property
    def storage(self):
        """Storage of the first task's buffer (BenchMARL asks for its device)."""
        return self.buffers[self.tasks[0]].storage

    def __len__(self) -> int:
        return len(self.buffers[self.tasks[0]])

    def extend(self, segments: TensorDictBase) -> None:
        """Add segments [B] that hold all tasks."""
        for task, buffer in self.buffers.items():
            buffer.extend(segments.get(task))

    def sample(self) -> TensorDict:
        """Return the next minibatch [batch_size], nested by task."""
        if self.update == "joint":
            return self.sample_tasks(self.tasks)
        task = self.tasks[self._turn]
        self._turn = (self._turn + 1) % len(self.tasks)
        return self.sample_tasks([task])

    def sample_tasks(self, tasks: list[str]) -> TensorDict:
        """Return a minibatch of the tasks named; does not change whose turn is next."""
        size, device = self.batch_size, self.storage.device
        samples = {}
        for task in tasks:  # uniformly, with replacement, straight from the storage
            storage = self.buffers[task].storage
            samples[task] = storage.get(torch.randint(len(storage), (size,), device=device))
        return TensorDict(samples, [size], device=device)

    def update_tensordict_priority(self, data: TensorDictBase) -> None:
        """Nothing to update: sampling is uniform."""

    def state_dict(self) -> dict:
        """Return the buffers' contents and whose turn it is."""
        contents = {task: buffer.state_dict() for task, buffer in self.buffers.items()}
        return {"turn": self._turn, **contents}

    def load_state_dict(self, state_dict: Mapping) -> None:
        """Restore what :meth:`state_dict` returned."""
        self._turn = int(state_dict["turn"])
        for task, buffer in self.buffers.items():
            buffer.empty()
            if state_dict[task]["_storage"]["_len"]:  # TorchRL cannot load an empty storage
                buffer.load_state_dict(state_dict[task])
