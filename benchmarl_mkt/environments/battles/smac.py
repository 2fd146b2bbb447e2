"""StarCraft II itself: BenchMARL's ``smacv2/*`` tasks in a task set, and SMAC's original maps.

TorchRL's wrapper of `smacv2 <https://github.com/oxwhirl/smacv2>`_ plays both; here it gets what
several copies side by side need. Nothing is imported from smacv2 before a game is made.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from benchmarl.environments.common import TaskClass
from benchmarl.environments.smacv2.common import Smacv2Class
from benchmarl.utils import DEVICE_TYPING
from tensordict import TensorDictBase
from torchrl.data import Composite, Unbounded
from torchrl.envs import EnvBase
from torchrl.envs.libs.smacv2 import SMACv2Env

from benchmarl_mkt.environments.battles.task import GROUP, BattleClass
from benchmarl_mkt.environments.common import ShippedTask
from benchmarl_mkt.environments.leaves import done_leaves
from benchmarl_mkt.environments.task_set import PLAYED_AS
from benchmarl_mkt.models.layout import EntityLayout, EntityList

MAPS = (
    "3m", "8m", "25m", "5m_vs_6m", "8m_vs_9m", "10m_vs_11m", "27m_vs_30m", "MMM", "MMM2",
    "2s3z", "3s5z", "3s5z_vs_3s6z", "3s_vs_5z", "6h_vs_8z", "corridor",
)  # fmt: skip


class StarcraftEnv(SMACv2Env):
    """One game of StarCraft II (smacv2's environment), without batch dimension.

    As TorchRL's, but the team's reward is the group's ``reward`` [N, 1], equal for all N agents,
    and an end by the step limit that smacv2 reports (``continuing_episode: true``) is a truncation.
    The seed is that of the construction: like TorchRL's it takes none later.
    """

    def _make_specs(self, env: Any) -> None:
        super()._make_specs(env)
        agents = self.n_agents
        reward = Composite(reward=Unbounded((agents, 1)), shape=(agents,))
        self.reward_spec = Composite({GROUP: reward}).to(self.device)
        self.done_spec = Composite(done_leaves((1,))).to(self.device)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        after = super()._step(tensordict)
        reward, done = after.pop("reward"), after.get("done")
        after.set((GROUP, "reward"), reward.expand(self.n_agents, 1).clone())
        truncated = done & after.get(("info", "episode_limit"))
        return after.set("truncated", truncated).set("terminated", done & ~truncated)


class StarcraftClass(BattleClass):
    """A map of SMAC or SMACv2 as a BenchMARL task; every copy is a process of the game.

    Its configuration are arguments of smacv2's ``StarCraft2Env``; ``map_name`` is needed.
    """

    def get_env_fun(
        self, num_envs: int, continuous_actions: bool, seed: int | None, device: DEVICE_TYPING
    ) -> Callable[[], EnvBase]:
        if find_spec("smacv2") is None:
            raise ImportError(
                f"task: {self.name.lower()} needs StarCraft II: pip install "
                "git+https://github.com/oxwhirl/smacv2.git, unpack the game (4.10) and the maps of "
                "that repository's releases into its Maps folder, and set SC2PATH to the game's"
            )
        options = {"categorical_actions": True, "seed": seed, "device": device}
        # smacv2 writes into its arguments
        return lambda: StarcraftEnv(**options, **copy.deepcopy(self.config))

    def max_steps(self, env: EnvBase) -> int:
        from smacv2.env.starcraft2.maps import get_map_params

        return get_map_params(self.config["map_name"])["limit"]

    def entity_layout(self, env: EnvBase) -> dict[str, EntityLayout]:
        """Return what smacv2 shows an ally: moves, enemies, other allies, itself.

        Of nothing, if ``obs_starcraft`` is off. The name of a type has the race, the kind of map
        where several types of units fight (it says what their one-hot numbers mean) and the number
        of features. A medivac's actions heal allies, but are described as the others': they target
        enemies.
        """
        own_army, other_army = self._armies(env)
        moves, own = env.get_obs_move_feats_size(), env.get_obs_own_feats_size()
        enemies, enemy_size = env.get_obs_enemy_feats_size()
        allies, ally_size = env.get_obs_ally_feats_size()
        first = moves + enemies * enemy_size
        after = first + allies * ally_size
        size = env.full_observation_spec_unbatched[GROUP, "observation"].shape[-1]
        if not after + own <= size <= after + own + 1:
            return {}
        seen = (  # an enemy in sight has a distance
            EntityList(
                f"{other_army}/enemy_{enemy_size}", enemies, ((moves, enemy_size),),
                present=1, actions=env.n_actions_no_attack,
            ),
            EntityList(f"{own_army}/ally_{ally_size}", allies, ((first, ally_size),), present=0),
        )  # fmt: skip
        itself = f"{own_army}/unit_{moves + size - after}"
        return {GROUP: EntityLayout(itself, ((0, moves), (after, size)), seen)}

    def state_layout(self, env: EnvBase) -> EntityLayout | None:
        """Return what smacv2's state shows: allies with their last basic action, enemies, the time.

        None, if observations take its place (``obs_instead_of_state``).
        """
        if env.obs_instead_of_state:
            return None
        own_army, other_army = self._armies(env)
        allies, ally = env.n_agents, env.get_ally_num_attributes()
        enemies, enemy = env.n_enemies, env.get_enemy_num_attributes()
        first, after = allies * ally, allies * ally + enemies * enemy
        parts: tuple[tuple[int, int], ...] = ((0, ally),)
        kind = f"ally_{ally}"
        targeted: tuple[int, ...] = ()
        if env.state_last_action:
            parts += ((after, env.n_actions),)
            kind += f"_{env.n_actions_no_attack}"
            # How many there are depends on the armies.
            targeted = tuple(range(ally + env.n_actions_no_attack, ally + env.n_actions))
            after += allies * env.n_actions
        lists = (
            EntityList(f"{own_army}/state/{kind}", allies, parts, present=0, dropped=targeted),
            EntityList(f"{other_army}/state/enemy_{enemy}", enemies, ((first, enemy),), present=0),
        )
        time = ((after, after + 1),) if env.state_timestep_number else ()
        return EntityLayout("smac/state", time, lists)

    def _armies(self, env: EnvBase) -> list[str]:
        """What names of types begin with: of allies, and of enemies."""
        from smacv2.env.starcraft2.maps import get_map_params

        params = get_map_params(self.config["map_name"])
        units = f"/{params['map_type']}" if env.unit_type_bits else ""
        return [f"smac/{params[side]}{units}" for side in ("a_race", "b_race")]

    def group_map(self, env: EnvBase) -> dict[str, list[str]]:
        n_agents = env.full_action_spec_unbatched[GROUP, "action"].shape[0]
        return {GROUP: [str(i) for i in range(n_agents)]}

    @staticmethod
    def env_name() -> str:
        return "smac"


PLAYED_AS[Smacv2Class] = StarcraftClass


class _SmacTask(ShippedTask):
    @staticmethod
    def associated_class() -> type[TaskClass]:
        return StarcraftClass


SmacTask = _SmacTask("SmacTask", dict.fromkeys(MAPS), module=__name__)
SmacTask.__doc__ = "SMAC's original maps, as far as the paper plays them: ``SmacTask['3m']``."
