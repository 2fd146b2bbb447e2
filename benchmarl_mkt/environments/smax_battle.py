"""SMAX in JAX: many battles of one scenario, compiled once for every number of copies.

Importing this module imports JAX, on one CPU thread unless the environment says otherwise, and
keeps what is compiled in the user's cache.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from benchmarl_mkt.environments.smax_scenarios import SCENARIOS
from benchmarl_mkt.paths import cache_path


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Hide what JaxMARL prints when imported; it puts ``sys.__stdout__`` back in between."""
    kept = sys.stdout, sys.stderr, sys.__stdout__
    sys.stdout = sys.__stdout__ = io.StringIO()  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr, sys.__stdout__ = kept  # type: ignore[misc]


os.environ.setdefault("JAX_PLATFORMS", "cpu")  # read by jax, when imported
os.environ.setdefault("PJRT_NPROC", "1")  # threads of its CPU client
try:
    with _muted():
        import jax
        import jax.numpy as jnp
        from jaxmarl.environments.smax.heuristic_enemy_smax_env import HeuristicEnemySMAX
        from jaxmarl.environments.smax.smax_env import Scenario as SmaxScenario
except ImportError as error:
    raise ImportError(
        f"task: smax/* needs JaxMARL ({error}); pip install 'benchmarl-mkt[smax]'"
    ) from error

# A battle is worth 1 for all damage and 1 for the victory; SMAC's largest return is 20.
REWARD_SCALE = 10.0
FEW = 4  # battles that are started anew together, if not more are to be

if jax.config.jax_compilation_cache_dir is None:
    jax.config.update("jax_compilation_cache_dir", str(cache_path() / "jax"))


class View(NamedTuple):
    """What the allies show, for B battles, N allies, A actions, S state entries."""

    observation: jax.Array  # [B, N, D] float32
    action_mask: jax.Array  # [B, N, A] bool
    state: jax.Array  # [B, S] float32 within [-1, 1]
    reward: jax.Array  # [B] float32
    terminated: jax.Array  # [B] bool: one army is dead
    steps: jax.Array  # [B] int32: steps of the episode so far
    won: jax.Array  # [B] bool: an ally is alive and no enemy


class Battles(NamedTuple):
    """Running battles: what the next step needs, and what they show."""

    keys: jax.Array  # [B, 2], a random state for each
    states: Any  # SMAX's own state, every leaf with B in front
    enemies: jax.Array  # [B, E, D] float32: what the E enemies see
    view: View


class Battlefield:
    """Compiled functions of one scenario; use :func:`battlefield`, which keeps them.

    ``restart(battles, mask [B])`` and ``step(battles, actions [B, N])`` give :class:`Battles`.
    Nothing is reset by a step: the last observation is the true one. An action that is not
    available does nothing, as in SMAX.

    Args:
        name: one of :data:`~benchmarl_mkt.environments.smax_scenarios.SCENARIOS`. Its step limit
            is left to the caller.
    """

    def __init__(self, name: str):
        scenario = SCENARIOS[name]
        sizes = len(scenario.allies), len(scenario.enemies)
        units = jnp.array(scenario.unit_types, dtype=jnp.uint8)
        self.env = HeuristicEnemySMAX(
            scenario=SmaxScenario(units, *sizes, False, False),
            walls_cause_death=False,
        )
        self.n_agents = sizes[0]
        self.observation_size = self.env.obs_size
        self.n_actions = self.env.num_ally_actions
        self.state_size = self.env.state_size
        self._scale = self._state_scale(units)
        self.step = jax.jit(jax.vmap(self._step))
        self._restart_rows = jax.jit(self._restart)
        self._keys = jax.jit(jax.vmap(jax.random.PRNGKey))
        self._empty: dict[int, Battles] = {}

    def empty(self, seeds: Any) -> Battles:
        """Battles that have yet to be restarted, one for each of ``seeds`` (uint32 [B])."""
        keys = self._keys(seeds)
        if len(seeds) not in self._empty:  # tracing takes longer than many steps
            shapes = jax.eval_shape(jax.vmap(self._start), keys)
            zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
            self._empty[len(seeds)] = zeros
        return self._empty[len(seeds)]._replace(keys=keys)

    def restart(self, battles: Battles, mask: np.ndarray) -> Battles:
        """Start the battles of ``mask`` [B] anew: mostly few, for which a whole batch is wasted."""
        rows = np.flatnonzero(mask)
        if len(rows) == 0:
            return battles
        count = FEW if len(rows) <= FEW else len(mask)  # each is compiled once; some rows repeat
        return self._restart_rows(battles, np.resize(rows, count))

    def units(self, battles: Battles, slot: int) -> tuple[Any, np.ndarray, np.ndarray]:
        """Return SMAX's state of one battle, and of every unit type its radius and full health."""
        state = jax.tree.map(lambda leaf: np.asarray(leaf[slot]), battles.states.state)
        return state, np.asarray(self.env.unit_type_radiuses), np.asarray(self.env.unit_type_health)

    def _state_scale(self, units: jax.Array) -> jax.Array:
        """Factors [S] for SMAX's world state: it has positions up to 32, seconds and unit types."""
        env = self.env
        factors = jnp.ones((len(units), len(env.own_features)))
        factors = factors.at[:, 1:3].set(1 / jnp.array([env.map_width, env.map_height]))
        factors = factors.at[:, 3].set(1 / env.unit_type_weapon_cooldowns[units])
        types = jnp.full(len(units), 1 / (env.unit_type_bits - 1))
        return jnp.concatenate([factors.reshape(-1), jnp.ones(len(units)), types])

    def _start(self, key: jax.Array) -> Battles:
        key, own = jax.random.split(key)
        _, state = self.env.reset(own)
        return self._battle(key, state, self.env.get_all_unit_obs(state), 0.0)

    def _restart(self, battles: Battles, rows: jax.Array) -> Battles:
        fresh = jax.vmap(self._start)(battles.keys[rows])
        return jax.tree.map(lambda new, old: old.at[rows].set(new), fresh, battles)

    def _step(self, battles: Battles, actions: jax.Array) -> Battles:
        """What ``env.step_env`` does, bit by bit, but what enemies see is not computed again."""
        env, before = self.env, battles.states
        key, own = jax.random.split(battles.keys)
        _, enemies_own = jax.random.split(own)
        chosen, memory = env.get_enemy_actions(
            enemies_own, before.enemy_policy_state, battles.enemies
        )
        chosen.update({agent: actions[i] for i, agent in enumerate(env.agents)})
        seen, game, rewards, _, _ = env._env.step_env(own, before.state, chosen)
        state = before.replace(state=game, enemy_policy_state=memory)
        reward = REWARD_SCALE * rewards[env.agents[0]]  # the team's, the same for all
        return self._battle(key, state, seen, reward)

    def _battle(
        self, key: jax.Array, state: Any, seen: dict[str, jax.Array], reward: jax.Array | float
    ) -> Battles:
        """Put a battle together; ``seen`` are all units' observations."""
        enemies = jnp.stack([seen[agent] for agent in self.env.enemy_agents])
        return Battles(key, state, enemies, self._view(seen, state, reward))

    def _view(self, observations: dict, state: Any, reward: jax.Array | float) -> View:
        env, alive = self.env, state.state.unit_alive
        allies, enemies = alive[: self.n_agents].any(), alive[self.n_agents :].any()
        masks = env.get_avail_actions(state)
        return View(
            observation=jnp.stack([observations[agent] for agent in env.agents]),
            action_mask=jnp.stack([masks[agent] for agent in env.agents]).astype(bool),
            # A weapon that is not used cools down below zero, without end.
            state=jnp.clip(env.get_world_state(state) * self._scale, -1, 1),
            reward=jnp.asarray(reward, jnp.float32),
            terminated=~(allies & enemies),
            steps=state.state.step,
            won=allies & ~enemies,
        )


@functools.cache
def battlefield(name: str) -> Battlefield:
    """Return the one battlefield of a scenario: training and evaluation share what is compiled."""
    return Battlefield(name)
