"""SMAX battles, many stepped as one TorchRL environment, and BenchMARL's tasks of them.

SMAX (`JaxMARL <https://arxiv.org/abs/2311.10090>`_) resembles StarCraft micromanagement without
StarCraft; ``benchmarks/smax.md`` says how it differs from SMAC.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from benchmarl.environments.common import TaskClass
from benchmarl.utils import DEVICE_TYPING
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Bounded, Categorical, Composite
from torchrl.envs import EnvBase

from benchmarl_mkt.environments.battles.smax_scenarios import CUSTOM, SCENARIOS, scenario_of
from benchmarl_mkt.environments.battles.task import GROUP, BattleClass
from benchmarl_mkt.environments.common import ScenarioClass, ShippedTask
from benchmarl_mkt.environments.leaves import Leaves, LeavesEnv
from benchmarl_mkt.environments.wins import WON
from benchmarl_mkt.models.layout import EntityLayout, EntityList, Pointer

# Numbers of a unit that is seen and of the seeing unit itself, and actions that are no attack.
UNIT, OWN, MOVES = 13, 10, 5

if TYPE_CHECKING:  # needs JaxMARL
    from benchmarl_mkt.environments.battles.smax_battle import Battles, View


class SmaxEnv(LeavesEnv):
    """``num_envs`` battles of one SMAX scenario against its scripted enemy, batch [num_envs] = B.

    The group ``agents`` of N allies has ``observation`` [B, N, D] float32, ``action_mask``
    [B, N, A] bool, ``action`` [B, N] integer and ``reward`` [B, N, 1] (the team's: up to 20 in an
    episode, 10 for all damage and 10 for the victory). ``state`` [B, S] float32, ``done``,
    ``terminated`` (one army is dead) and ``truncated`` (``max_steps``, both alive) [B, 1] lie at
    the root, and ``("info", "battle_won")`` [B], which is SMACv2's key. An action that is not
    available does nothing.

    Args:
        scenario: one of :data:`~benchmarl_mkt.environments.battles.smax_scenarios.SCENARIOS`, or
            ``custom``.
        num_envs: how many battles.
        max_steps: length of an episode at most; by default the scenario's.
        seed: seed of the battles; they are independent of one another.
        device: where the tensors are placed (the game runs on JAX's device, by default the CPU).
        allies: the allies of ``custom``, numbers and unit letters, such as ``4s4z``.
        enemies: its enemies; by default as many of the same.

    Raises:
        ImportError: if JaxMARL is not installed.
        ValueError: if an army is none.
    """

    max_return = 20.0

    def __init__(
        self,
        scenario: str,
        num_envs: int,
        max_steps: int | None = None,
        seed: int | None = None,
        device: DEVICE_TYPING = "cpu",
        allies: str | None = None,
        enemies: str | None = None,
    ):
        from benchmarl_mkt.environments.battles.smax_battle import battlefield

        super().__init__(device=device, batch_size=[num_envs])
        self.field = battlefield(scenario_of(scenario, max_steps, allies, enemies))
        self.max_steps = self.field.max_steps
        self._size = self.field.chunk_size(num_envs)
        self.group_map = {GROUP: [f"ally_{i}" for i in range(self.field.n_agents)]}
        self.set_seed(seed)
        won = Categorical(2, self.batch_size, dtype=torch.bool)
        self._set_specs(
            {GROUP: (self.field.observation_size, self.field.n_actions)},
            {
                "state": Bounded(-1.0, 1.0, (num_envs, self.field.state_size)),
                "info": Composite(battle_won=won, shape=self.batch_size),
            },
        )

    def _set_seed(self, seed: int | None) -> None:
        seeds = np.random.SeedSequence(seed).generate_state(self.batch_size[0])
        # In the last chunk some battles may be fought for nothing.
        self._seeds = np.resize(seeds, (-(-len(seeds) // self._size), self._size))
        self._chunks: list[Battles] = []

    def prepare(self) -> None:
        """Begin to compile the scenario, if that has not begun."""
        self.field.compile(self._size)

    def reset_leaves(self, mask: Tensor | None) -> Leaves:
        if not self._chunks:
            self._chunks = [self.field.slots(seeds) for seeds in self._seeds]
        chosen = np.ones(self._seeds.shape, dtype=bool)
        if mask is not None:
            chosen.reshape(-1)[:] = np.resize(mask.view(-1).cpu().numpy(), chosen.size)
        restarted = [self.field.restart(*pair) for pair in zip(self._chunks, chosen)]
        self._chunks = [battles for battles, _ in restarted]
        leaves = self._leaves([view for _, view in restarted])
        del leaves[GROUP, "reward"]
        return leaves

    def begin_step(self, data: TensorDictBase | Leaves) -> Callable[[], Leaves]:
        actions = data[GROUP, "action"].to("cpu", torch.int32).numpy()
        parts = np.resize(actions, (*self._seeds.shape, actions.shape[1]))
        self._chunks = [self.field.step(*pair) for pair in zip(self._chunks, parts)]
        return lambda: self._leaves([self.field.view(battles) for battles in self._chunks])

    def _leaves(self, views: Sequence[View]) -> Leaves:
        """What the battles of all chunks show."""
        view, (count,) = views[0], self.batch_size
        if len(views) > 1 or self._size > count:
            view = type(view)(*(np.concatenate(parts)[:count] for parts in zip(*views)))
        of_group = ("observation", "action_mask", "reward")
        keys = {"won": WON, **{name: (GROUP, name) for name in of_group}}
        return {
            keys.get(name, name): torch.from_numpy(array).to(self.device)
            for name, array in view._asdict().items()
        }

    def render(self, mode: str = "rgb_array", pixels: int = 300) -> np.ndarray:
        """Draw the first battle: uint8 [pixels, pixels, 3]."""
        from benchmarl_mkt.drawing import draw
        from benchmarl_mkt.environments.battles.smax_scene import smax_scene

        return draw(smax_scene(*self.field.units(self._chunks[0], 0)), pixels)

    def _nested(self, leaves: Leaves) -> TensorDict:
        # TorchRL's random actions keep to the mask that the specification holds.
        self.full_action_spec[GROUP, "action"].update_mask(leaves[GROUP, "action_mask"])
        return super()._nested(leaves)


class SmaxClass(BattleClass, ScenarioClass):
    """One SMAX scenario as a BenchMARL task."""

    environment, limit = SmaxEnv, "max_steps"

    def entity_layout(self, env: EnvBase) -> dict[str, EntityLayout]:
        """Return what an ally sees: other allies, then enemies, then itself.

        A unit that is dead or out of sight has health 0. Its number 5 says what it did last: for
        an ally that shoots, whom it shoots at; for an enemy, which counts the allies backwards and
        the seeing one among them, it is dropped.
        """
        allies, enemies = self._armies
        start, own = UNIT * (allies - 1), UNIT * (allies - 1 + enemies)
        aims = Pointer(feature=5, to=1, scale=MOVES + enemies - 1, offset=MOVES)
        seen = (
            EntityList("smax/ally", allies - 1, ((0, UNIT),), present=0, pointer=aims),
            EntityList(
                "smax/enemy", enemies, ((start, UNIT),), present=0, actions=MOVES, dropped=(5,)
            ),
        )
        return {GROUP: EntityLayout("smax/unit", ((own, own + OWN),), seen)}

    def state_layout(self, env: EnvBase) -> EntityLayout:
        """Return what the state shows: allies, enemies, and who is of which army and type."""
        allies, enemies = self._armies
        units = OWN * (allies + enemies)
        armies = (
            EntityList("smax/state/ally", allies, ((0, OWN),), present=0),
            EntityList("smax/state/enemy", enemies, ((OWN * allies, OWN),), present=0),
        )
        known = ((units, units + 2 * (allies + enemies)),)  # the same in every step
        return EntityLayout("smax/state", lists=armies, dropped=known)

    @property
    def _armies(self) -> tuple[int, int]:
        scenario = scenario_of(self.name.lower(), **self.config)
        return len(scenario.allies), len(scenario.enemies)

    @staticmethod
    def env_name() -> str:
        return "smax"


class _SmaxTask(ShippedTask):
    @staticmethod
    def associated_class() -> type[TaskClass]:
        return SmaxClass


SmaxTask = _SmaxTask("SmaxTask", {name: None for name in (*SCENARIOS, CUSTOM)}, module=__name__)
SmaxTask.__doc__ = "The scenarios of SMAX; names such as 3m are no identifiers: ``SmaxTask['3m']``."
