"""The multi-particle environments (MPE), many copies stepped as one TorchRL environment.

The game is `mpe2 <https://mpe2.farama.org>`_ itself (discrete actions): its own worlds, scenarios
and action decoding; only the turn-taking AEC layer around them is left out.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from benchmarl.environments.common import Task, TaskClass
from benchmarl.utils import DEVICE_TYPING, _read_yaml_config
from tensordict import TensorDict, TensorDictBase
from torchrl.data import Binary, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from benchmarl_mkt.paths import conf_path


class MpeEnv(EnvBase):
    """``num_envs`` copies of one mpe2 scenario, batch size ``[num_envs]``.

    Agents are grouped by name (``adversary_0`` is in the group ``adversary``). Per group of n
    agents: ``observation`` [num_envs, n, d] float32, ``action`` [num_envs, n] integer, ``reward``
    [num_envs, n, 1]. ``done``, ``terminated`` and ``truncated`` [num_envs, 1] lie at the root.

    Args:
        scenario: the module of mpe2, such as ``simple_push``.
        num_envs: how many copies.
        max_cycles: length of an episode in steps.
        terminate_at_limit: whether the end of an episode counts as terminal, as EPyMARL stores
            it (no bootstrapping), or as a truncation.
        seed: seed of the copies' random states; they are independent of one another.
        device: where the tensors are placed (the game runs on the CPU).

    Raises:
        ImportError: if mpe2 is not installed.
    """

    def __init__(
        self,
        scenario: str,
        num_envs: int,
        max_cycles: int = 25,
        terminate_at_limit: bool = True,
        seed: int | None = None,
        device: DEVICE_TYPING = "cpu",
    ):
        super().__init__(device=device, batch_size=[num_envs])
        self.max_cycles = max_cycles
        self.terminate_at_limit = terminate_at_limit
        self._game = _load_scenario(scenario).raw_env(max_cycles=max_cycles)
        self._game.reset()
        self._worlds = [self._game.scenario.make_world() for _ in range(num_envs)]
        self._elapsed = np.zeros(num_envs, dtype=np.int64)
        self.set_seed(seed)
        names = self._game.possible_agents
        self.group_map: dict[str, list[str]] = {}
        for name in names:
            self.group_map.setdefault(re.sub(r"_\d+$", "", name), []).append(name)
        self._indices = {
            group: [names.index(member) for member in members]
            for group, members in self.group_map.items()
        }
        self._make_specs()

    def _make_specs(self) -> None:
        observation, action, reward = Composite(), Composite(), Composite()
        for group, members in self.group_map.items():
            shape = (*self.batch_size, len(members))
            size = self._game.observation_space(members[0]).shape[0]
            n_actions = self._game.action_space(members[0]).n
            for spec, key, leaf in (
                (observation, "observation", Unbounded((*shape, size))),
                (action, "action", Categorical(int(n_actions), shape=shape)),
                (reward, "reward", Unbounded((*shape, 1))),
            ):
                spec[group] = Composite({key: leaf}, shape=shape)
        for spec in (observation, action, reward):
            spec.shape = self.batch_size
        self.observation_spec = observation.to(self.device)
        self.action_spec = action.to(self.device)
        self.reward_spec = reward.to(self.device)
        self.done_spec = Composite(
            {
                key: Binary(n=1, shape=(*self.batch_size, 1), dtype=torch.bool)
                for key in ("done", "terminated", "truncated")
            },
            shape=self.batch_size,
        ).to(self.device)

    def _set_seed(self, seed: int | None) -> None:
        streams = np.random.SeedSequence(seed).spawn(len(self._worlds))
        self._generators = [np.random.default_rng(stream) for stream in streams]

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDict:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        slots = range(len(self._worlds)) if mask is None else mask.view(-1).nonzero().view(-1)
        for slot in map(int, slots):
            self._game.scenario.reset_world(self._worlds[slot], self._generators[slot])
            self._elapsed[slot] = 0
        return self._output([self._observe(world) for world in self._worlds])

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        actions = torch.zeros(self.batch_size[0], len(self._game.possible_agents), dtype=torch.int)
        for group, indices in self._indices.items():
            actions[:, indices] = tensordict.get((group, "action")).to(actions)
        observations, rewards = [], []
        for world, chosen in zip(self._worlds, actions.tolist()):
            self._game.world = world
            self._game.current_actions = chosen
            self._game._execute_world_step()
            observations.append(self._observe(world))
            rewards.append(list(self._game.rewards.values()))
        self._elapsed += 1
        return self._output(observations, rewards)

    def _observe(self, world: Any) -> list[np.ndarray]:
        return [self._game.scenario.observation(agent, world) for agent in world.agents]

    def _output(self, observations: list, rewards: list | None = None) -> TensorDict:
        """Stack the copies' observations (and rewards) into a tensordict with done flags."""
        ended = torch.from_numpy(self._elapsed >= self.max_cycles).unsqueeze(-1).to(self.device)
        never = torch.zeros_like(ended)
        out = TensorDict(
            {
                "done": ended,
                "terminated": ended.clone() if self.terminate_at_limit else never,
                "truncated": never.clone() if self.terminate_at_limit else ended.clone(),
            },
            batch_size=self.batch_size,
            device=self.device,
        )
        for group, indices in self._indices.items():
            stacked = np.array([[copy[i] for i in indices] for copy in observations], np.float32)
            content = {"observation": torch.from_numpy(stacked)}
            if rewards is not None:
                earned = np.array([[copy[i] for i in indices] for copy in rewards], np.float32)
                content["reward"] = torch.from_numpy(earned).unsqueeze(-1)
            out[group] = TensorDict(
                content, batch_size=(*self.batch_size, len(indices)), device=self.device
            )
        return out


def _load_scenario(name: str) -> Any:
    try:
        return importlib.import_module(f"mpe2.{name}.{name}")
    except ModuleNotFoundError as error:
        if error.name == "mpe2":
            raise ImportError(
                f"the task mpe/{name} needs mpe2: pip install 'benchmarl-mkt[mpe]'"
            ) from error
        raise


class MpeClass(TaskClass):
    """One mpe2 scenario as a BenchMARL task, all agents controlled, grouped by name."""

    def get_env_fun(
        self,
        num_envs: int,
        continuous_actions: bool,
        seed: int | None,
        device: DEVICE_TYPING,
    ) -> Callable[[], EnvBase]:
        scenario, config = self.name.lower(), dict(self.config)
        return lambda: MpeEnv(scenario, num_envs, seed=seed, device=device, **config)

    def supports_continuous_actions(self) -> bool:
        return False

    def supports_discrete_actions(self) -> bool:
        return True

    def has_render(self, env: EnvBase) -> bool:
        return False

    def max_steps(self, env: EnvBase) -> int:
        return self.config["max_cycles"]

    def group_map(self, env: EnvBase) -> dict[str, list[str]]:
        return env.group_map

    def state_spec(self, env: EnvBase) -> Composite | None:
        return None

    def action_mask_spec(self, env: EnvBase) -> Composite | None:
        return None

    def observation_spec(self, env: EnvBase) -> Composite:
        return env.full_observation_spec_unbatched.clone()

    def info_spec(self, env: EnvBase) -> Composite | None:
        return None

    def action_spec(self, env: EnvBase) -> Composite:
        return env.full_action_spec_unbatched

    @staticmethod
    def env_name() -> str:
        return "mpe"


class MpeTask(Task):
    """The scenarios of mpe2 that have discrete actions and no partial-observability options."""

    SIMPLE_SPEAKER_LISTENER = None
    SIMPLE_PUSH = None
    SIMPLE_ADVERSARY = None
    SIMPLE_SPREAD = None
    SIMPLE_TAG = None
    SIMPLE_REFERENCE = None

    @staticmethod
    def associated_class() -> type[TaskClass]:
        return MpeClass

    def get_from_yaml(self, path: str | None = None) -> TaskClass:
        path = path or str(conf_path() / "task" / "mpe" / f"{self.name.lower()}.yaml")
        return self.get_task(config=_read_yaml_config(path))
