"""What this package's own tasks have in common."""

from __future__ import annotations

from collections.abc import Callable

from benchmarl.environments.common import Task, TaskClass
from benchmarl.utils import DEVICE_TYPING, _read_yaml_config
from torchrl.data import Composite
from torchrl.envs import EnvBase

from benchmarl_mkt.files import conf_path
from benchmarl_mkt.models.layout import EntityLayout, with_layouts


class DiscreteTaskClass(TaskClass):
    """A task of discrete actions whose groups have ``observation`` and ``action_mask``."""

    def supports_continuous_actions(self) -> bool:
        return False

    def supports_discrete_actions(self) -> bool:
        return True

    def has_render(self, env: EnvBase) -> bool:
        return False

    def group_map(self, env: EnvBase) -> dict[str, list[str]]:
        return env.group_map

    def observation_spec(self, env: EnvBase) -> Composite:
        """Show each group's ``observation`` alone: what built-in algorithms read."""
        return with_layouts(self._of_groups(env, "observation"), self.entity_layout(env))

    def entity_layout(self, env: EnvBase) -> dict[str, EntityLayout]:
        """Return what the observations of groups are made of; of none, if it is not said."""
        return {}

    def action_mask_spec(self, env: EnvBase) -> Composite | None:
        return self._of_groups(env, "action_mask")

    def state_spec(self, env: EnvBase) -> Composite | None:
        """Return None: BenchMARL knows one global state, not one per group."""
        return None

    def info_spec(self, env: EnvBase) -> Composite | None:
        return None

    def action_spec(self, env: EnvBase) -> Composite:
        return env.full_action_spec_unbatched

    def _of_groups(self, env: EnvBase, key: str) -> Composite:
        """The specification of one copy with one entry of every group."""
        spec = env.full_observation_spec_unbatched
        return Composite(
            {
                group: Composite({key: spec[group, key]}, shape=spec[group].shape)
                for group in self.group_map(env)
            }
        )


class ScenarioClass(DiscreteTaskClass):
    """A task named for a scenario of one of this package's vectorised environments.

    Attributes:
        environment: made from the scenario, the number of copies and the configuration.
        limit: the configuration's key of the largest number of steps.
    """

    environment: Callable[..., EnvBase]
    limit: str

    def get_env_fun(
        self, num_envs: int, continuous_actions: bool, seed: int | None, device: DEVICE_TYPING
    ) -> Callable[[], EnvBase]:
        scenario, config = self.name.lower(), dict(self.config)
        steps = config.get(self.limit)
        if type(steps) is not int or steps < 1:
            raise ValueError(
                f"task.{self.limit}: {steps!r} must be an integer of at least 1 "
                f"({self.env_name()}/{scenario})"
            )
        return lambda: self.environment(scenario, num_envs, seed=seed, device=device, **config)

    def max_steps(self, env: EnvBase) -> int:
        return self.config[self.limit]


class ShippedTask(Task):
    """Tasks whose configuration is shipped in this package's ``conf/task``."""

    def get_from_yaml(self, path: str | None = None) -> TaskClass:
        """Build the task from ``path``, by default from its shipped YAML file."""
        shipped = conf_path() / "task" / self.env_name() / f"{self.name.lower()}.yaml"
        return self.get_task(config=_read_yaml_config(path or str(shipped)))
