"""The multi-particle environments (MPE), many copies stepped as one TorchRL environment.

The game is that of `mpe2 <https://mpe2.farama.org>`_ (discrete actions), without the turn-taking
AEC layer around it; see :mod:`benchmarl_mkt.environments.mpe.games`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import torch
from benchmarl.environments.common import TaskClass
from benchmarl.utils import DEVICE_TYPING
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase

from benchmarl_mkt.environments.common import ScenarioClass, ShippedTask
from benchmarl_mkt.environments.leaves import Leaves, LeavesEnv, end_leaves
from benchmarl_mkt.environments.mpe.games import ARRAY_SCENARIOS, ArrayGames, RawGames
from benchmarl_mkt.models.layout import EntityLayout, EntityList

SPREAD = "simple_spread"  # the scenario of any number of agents


class MpeEnv(LeavesEnv):
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
        n_agents: of ``simple_spread``, which has as many landmarks; None is mpe2's number.

    Raises:
        ImportError: if mpe2 is not installed.
        ValueError: if ``n_agents`` is no positive integer, or of another scenario.
    """

    def __init__(
        self,
        scenario: str,
        num_envs: int,
        max_cycles: int = 25,
        terminate_at_limit: bool = True,
        seed: int | None = None,
        device: DEVICE_TYPING = "cpu",
        n_agents: int | None = None,
    ):
        number = {} if n_agents is None else {"N": n_agents}
        if number and (scenario != SPREAD or type(n_agents) is not int or n_agents < 1):
            raise ValueError(
                f"task.n_agents: {n_agents!r} must be a positive integer, of mpe/{SPREAD} alone"
            )
        super().__init__(device=device, batch_size=[num_envs])
        self.max_cycles = max_cycles
        self.terminate_at_limit = terminate_at_limit
        games = ArrayGames if scenario in ARRAY_SCENARIOS else RawGames
        self.games = games(scenario, num_envs, max_cycles, **number)
        self._elapsed = np.zeros(num_envs, dtype=np.int64)
        self.set_seed(seed)
        self.group_map: dict[str, list[str]] = {}
        self._indices: dict[str, list[int]] = {}  # where a group's agents are among all
        for index, name in enumerate(self.games.agents):
            group = re.sub(r"_\d+$", "", name)
            self.group_map.setdefault(group, []).append(name)
            self._indices.setdefault(group, []).append(index)
        game = self.games.game
        sizes = {
            group: (game.observation_space(one).shape[0], int(game.action_space(one).n))
            for group, (one, *_) in self.group_map.items()
        }
        self._set_specs(sizes, masked=False)

    def _set_seed(self, seed: int | None) -> None:
        streams = np.random.SeedSequence(seed).spawn(self.batch_size[0])
        self._generators = [np.random.default_rng(stream) for stream in streams]

    def reset_leaves(self, mask: Tensor | None) -> Leaves:
        slots = range(self.batch_size[0]) if mask is None else mask.view(-1).nonzero().view(-1)
        for slot in map(int, slots):
            self.games.reset(slot, self._generators[slot])
            self._elapsed[slot] = 0
        return self._output()

    def begin_step(self, data: TensorDictBase | Leaves) -> Callable[[], Leaves]:
        return lambda: self._play(data)

    def _play(self, data: TensorDictBase | Leaves) -> Leaves:
        actions = np.empty((self.batch_size[0], len(self.games.agents)), dtype=np.int64)
        for group, indices in self._indices.items():
            actions[:, indices] = data[group, "action"].cpu().numpy()
        rewards = self.games.step(actions)
        self._elapsed += 1
        return self._output(rewards)

    def _output(self, rewards: np.ndarray | None = None) -> Leaves:
        """Observations, done flags and ``rewards`` [B, agents], if any, by key."""
        ended = torch.from_numpy(self._elapsed >= self.max_cycles).unsqueeze(-1)
        leaves = end_leaves(ended, ended & self.terminate_at_limit)
        observations = self.games.observe()
        for group, indices in self._indices.items():
            seen = np.stack([observations[i] for i in indices], 1, dtype=np.float32)
            leaves[group, "observation"] = torch.from_numpy(seen)
            if rewards is not None:
                earned = rewards[:, indices, None].astype(np.float32)
                leaves[group, "reward"] = torch.from_numpy(earned)
        return {key: value.to(self.device) for key, value in leaves.items()}


class MpeClass(ScenarioClass):
    """One mpe2 scenario as a BenchMARL task, all agents controlled, grouped by name."""

    environment, limit = MpeEnv, "max_cycles"

    def action_mask_spec(self, env: EnvBase) -> None:
        return None

    def entity_layout(self, env: EnvBase) -> dict[str, EntityLayout]:
        """Return what an agent of ``simple_spread`` sees: landmarks and other agents.

        After its velocity and position, and before what the silent others say: always nothing.
        """
        if self.name.lower() != SPREAD:
            return {}
        ((group, agents),) = env.group_map.items()
        n = len(agents)  # and as many landmarks
        others, said, end = 4 + 2 * n, 2 + 4 * n, 6 * n
        seen = (
            EntityList("mpe/landmark", n, ((4, 2),)),
            EntityList("mpe/agent", n - 1, ((others, 2),)),
        )
        return {group: EntityLayout("mpe/self", ((0, 4),), seen, dropped=((said, end),))}

    @staticmethod
    def env_name() -> str:
        return "mpe"


class MpeTask(ShippedTask):
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
