"""SMAX in JAX: many battles of one scenario, compiled once for every number of copies."""

from __future__ import annotations

import contextlib
import functools
import io
import os
from pathlib import Path
from typing import Any, NamedTuple

try:
    with contextlib.redirect_stdout(io.StringIO()):  # its optional parts print what they miss
        import jax
        import jax.numpy as jnp
        from jaxmarl.environments.smax.heuristic_enemy_smax_env import HeuristicEnemySMAX
        from jaxmarl.environments.smax.smax_env import Scenario as SmaxScenario
except ImportError as error:
    raise ImportError(
        "task=smax/* needs JaxMARL: pip install 'benchmarl-mkt[smax]'"
    ) from error

from benchmarl_mkt.environments.smax_scenarios import SCENARIOS
from benchmarl_mkt.paths import cache_path

# A battle is worth 1 for all damage and 1 for the victory; SMAC's largest return is 20.
REWARD_SCALE = 10.0

jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS", "cpu"))
jax.config.update("jax_compilation_cache_dir", str(cache_path() / "jax"))


class View(NamedTuple):
    """What the allies show, for B battles, N allies, A actions, S state entries."""

    observation: jax.Array  # [B, N, D] float32
    action_mask: jax.Array  # [B, N, A] bool
    state: jax.Array  # [B, S] float32, entries about within [-1, 1]
    reward: jax.Array  # [B] float32
    terminated: jax.Array  # [B] bool: one army is dead
    truncated: jax.Array  # [B] bool: the step limit, with both armies alive
    won: jax.Array  # [B] bool: an ally is alive and no enemy


class Battles(NamedTuple):
    """Running battles: what the next step needs, and what they show."""

    keys: jax.Array  # [B, 2], a random state for each
    states: Any
    view: View


class Battlefield:
    """Compiled functions of one scenario; use :func:`battlefield`, which keeps them.

    ``start(keys)``, ``restart(battles, mask [B])`` and ``step(battles, actions [B, N])`` give
    :class:`Battles`. Nothing is reset by a step: the last observation is the true one.

    Args:
        name: one of :data:`~benchmarl_mkt.environments.smax_scenarios.SCENARIOS`.
        max_steps: limit of an episode.
    """

    def __init__(self, name: str, max_steps: int):
        scenario = SCENARIOS[name]
        sizes = len(scenario.allies), len(scenario.enemies)
        units = jnp.array(scenario.unit_types, dtype=jnp.uint8)
        self.env = HeuristicEnemySMAX(
            scenario=SmaxScenario(units, *sizes, False, False),
            walls_cause_death=False,
            max_steps=max_steps,
        )
        self.max_steps, self.n_agents = max_steps, sizes[0]
        self.observation_size = self.env.obs_size
        self.n_actions = self.env.num_ally_actions
        self.state_size = self.env.state_size
        self._scale = self._state_scale()
        self.start = jax.jit(jax.vmap(self._start))
        self.step = jax.jit(jax.vmap(self._step))
        self.restart = jax.jit(jax.vmap(self._restart))

    def _state_scale(self) -> jax.Array:
        """Factors that bring SMAX's world state [S] to about one: it has positions up to 32."""
        env = self.env
        unit = jnp.ones(len(env.own_features))
        unit = unit.at[1:3].set(1 / jnp.array([env.map_width, env.map_height]))
        unit = unit.at[3].set(1 / env.unit_type_weapon_cooldowns.max())
        units = len(env.all_agents)
        types = jnp.full(units, 1 / (env.unit_type_bits - 1))
        return jnp.concatenate([jnp.tile(unit, units), jnp.ones(units), types])

    def _start(self, key: jax.Array) -> Battles:
        key, own = jax.random.split(key)
        observations, state = self.env.reset(own)
        return Battles(key, state, self._view(observations, state, 0.0))

    def _restart(self, battles: Battles, mask: jax.Array) -> Battles:
        fresh = self._start(battles.keys)
        return jax.tree.map(lambda new, old: jnp.where(mask, new, old), fresh, battles)

    def _step(self, battles: Battles, actions: jax.Array) -> Battles:
        key, own = jax.random.split(battles.keys)
        chosen = {agent: actions[i] for i, agent in enumerate(self.env.agents)}
        observations, state, rewards, _, _ = self.env.step_env(own, battles.states, chosen)
        reward = REWARD_SCALE * rewards[self.env.agents[0]]  # the team's, the same for all
        return Battles(key, state, self._view(observations, state, reward))

    def _view(self, observations: dict, state: Any, reward: jax.Array | float) -> View:
        env, alive = self.env, state.state.unit_alive
        allies, enemies = alive[: self.n_agents].any(), alive[self.n_agents :].any()
        terminated = ~(allies & enemies)
        masks = env.get_avail_actions(state)
        return View(
            observation=jnp.stack([observations[agent] for agent in env.agents]),
            action_mask=jnp.stack([masks[agent] for agent in env.agents]).astype(bool),
            state=env.get_world_state(state) * self._scale,
            reward=jnp.asarray(reward, jnp.float32),
            terminated=terminated,
            truncated=(state.state.step >= self.max_steps) & ~terminated,
            won=allies & ~enemies,
        )


@functools.cache
def battlefield(name: str, max_steps: int) -> Battlefield:
    """Return the one battlefield of a scenario: training and evaluation share what is compiled."""
    return Battlefield(name, max_steps)
