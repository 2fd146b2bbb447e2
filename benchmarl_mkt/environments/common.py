"""What this package's own tasks have in common."""

from __future__ import annotations

import torch
from benchmarl.environments.common import Task, TaskClass
from benchmarl.utils import _read_yaml_config
from torchrl.data import Binary, Composite
from torchrl.envs import EnvBase

from benchmarl_mkt.files import conf_path


def done_leaves(shape: tuple[int, ...]) -> dict[str, Binary]:
    """The three flags of an end, as specifications of ``shape``, whose last dimension is 1."""
    return {
        key: Binary(n=1, shape=shape, dtype=torch.bool)
        for key in ("done", "terminated", "truncated")
    }


class DiscreteTaskClass(TaskClass):
    """A task of discrete actions on a vectorised environment that knows its own groups."""

    def supports_continuous_actions(self) -> bool:
        return False

    def supports_discrete_actions(self) -> bool:
        return True

    def has_render(self, env: EnvBase) -> bool:
        return False

    def group_map(self, env: EnvBase) -> dict[str, list[str]]:
        return env.group_map

    def state_spec(self, env: EnvBase) -> Composite | None:
        """Return None: BenchMARL knows one global state, not one per group."""
        return None

    def info_spec(self, env: EnvBase) -> Composite | None:
        return None

    def action_spec(self, env: EnvBase) -> Composite:
        return env.full_action_spec_unbatched


class ShippedTask(Task):
    """Tasks whose configuration is shipped in this package's ``conf/task``."""

    def get_from_yaml(self, path: str | None = None) -> TaskClass:
        """Build the task from ``path``, by default from its shipped YAML file."""
        shipped = conf_path() / "task" / self.env_name() / f"{self.name.lower()}.yaml"
        return self.get_task(config=_read_yaml_config(path or str(shipped)))
