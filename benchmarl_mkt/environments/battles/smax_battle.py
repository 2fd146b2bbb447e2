"""SMAX in JAX: many battles of one scenario, compiled once for every number of copies.

Importing this module imports JAX, on one CPU thread unless the environment says otherwise, and
keeps what is compiled in the user's cache.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from benchmarl_mkt.environments.battles.smax_scenarios import Scenario
from benchmarl_mkt.files import cache_path

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # read by jax, when imported
os.environ.setdefault("PJRT_NPROC", "1")  # threads of its CPU client


@contextlib.contextmanager
def _one_game_of(package: str, folder: str) -> Iterator[None]:
    """Meanwhile, ``package.folder.x`` is imported without the code of ``package`` and ``folder``.

    JaxMARL's import all of its games, which takes some seconds, and prints. Later imports of the
    package are the ordinary ones.
    """
    spec = None if package in sys.modules else importlib.util.find_spec(package)
    if spec is None:  # it is imported already, or not installed
        yield
        return
    root = next(iter(spec.submodule_search_locations or ()))
    for name, place in ((package, root), (f"{package}.{folder}", os.path.join(root, folder))):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [place]
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == package]:
            del sys.modules[name]


try:
    import jax
    import jax.numpy as jnp

    with _one_game_of("jaxmarl", "environments"):
        from jaxmarl.environments.smax.heuristic_enemy_smax_env import HeuristicEnemySMAX
        from jaxmarl.environments.smax.smax_env import Scenario as SmaxScenario
except ImportError as error:
    raise ImportError(
        f"task: smax/* needs JaxMARL ({error}); pip install 'benchmarl-mkt[smax]'"
    ) from error

# A battle is worth 1 for all damage and 1 for the victory; SMAC's largest return is 20.
REWARD_SCALE = 10.0
FEW = 4  # battles that are started anew together, if not more are to be
CHUNK = 32  # battles that are stepped together at most
CACHE_BYTES = 2**31
logger = logging.getLogger(__name__)

if jax.config.jax_compilation_cache_dir is None:
    jax.config.update("jax_compilation_cache_dir", str(cache_path() / "jax"))
    jax.config.update("jax_compilation_cache_max_size", CACHE_BYTES)  # the oldest goes


class View(NamedTuple):
    """What the allies show, for B battles, N allies, A actions, S state entries."""

    observation: np.ndarray  # [B, N, D] float32
    action_mask: np.ndarray  # [B, N, A] bool
    state: np.ndarray  # [B, S] float32 within [-1, 1]
    reward: np.ndarray  # [B, N, 1] float32: the team's, for each of them
    terminated: np.ndarray  # [B, 1] bool: one army is dead
    truncated: np.ndarray  # [B, 1] bool: it is the last step, and both are alive
    done: np.ndarray  # [B, 1] bool: one of the two
    won: np.ndarray  # [B] bool: an ally is alive and no enemy


class Battle(NamedTuple):
    """A battle, or B of them with B in front: what its next step needs, and what it shows.

    It shows two arrays, since every array that leaves JAX takes its time.
    """

    key: jax.Array  # [2], a random state
    state: Any  # SMAX's own
    enemies: jax.Array  # [E, D] float32: what the E enemies see
    numbers: jax.Array  # [N D + S + N] float32: observations, state, rewards
    flags: jax.Array  # [N A + 4] bool: masks, terminated, truncated, done, won


class Battles(NamedTuple):
    """B slots, each with a battle that runs and one that waits to be the next."""

    running: Battle
    waiting: Battle
    keys: jax.Array  # [B, 2], the random state of each slot's battles to come
    used: np.ndarray | None = None  # slots whose waiting battle runs, and has to be replaced


class Battlefield:
    """Compiled functions of one scenario; use :func:`battlefield`, which keeps them.

    Nothing is reset by a step: the last observation is the true one. An action that is not
    available does nothing, as in SMAX. A slot's next battle is prepared while somebody else
    computes, so that nobody waits for it.
    """

    def __init__(self, scenario: Scenario):
        self.scenario, self.max_steps = scenario, scenario.max_steps
        self.n_agents = len(scenario.allies)
        units = jnp.array(scenario.unit_types, dtype=jnp.uint8)
        armies = SmaxScenario(units, self.n_agents, len(scenario.enemies), False, False)
        self.env = HeuristicEnemySMAX(scenario=armies, walls_cause_death=False)
        self.observation_size = self.env.obs_size
        self.n_actions = self.env.num_ally_actions
        self.state_size = self.env.state_size
        self._scale = self._state_scale(units)
        self._keys = jax.jit(jax.vmap(jax.random.PRNGKey))
        self._begin = compiled(jax.vmap(self._start))
        self._proceed = compiled(jax.vmap(self._step))
        self._place_rows, self._prepare_rows = jax.jit(_place), compiled(self._prepare)
        self._compiling: dict[int, threading.Thread] = {}  # by the number of battles

    def chunk_size(self, count: int) -> int:
        """Return how many of ``count`` battles to step at a time.

        Every number is compiled for itself, which takes long: one that is compiled is taken if
        little is lost by it.
        """
        most = min(count, CHUNK)
        sizes = (size for size in self._compiling if size <= 2 * count and 8 * size >= most)
        return next(sizes, most)

    def compile(self, size: int) -> None:
        """Begin to compile for chunks of ``size`` battles, in the background, once."""
        if size not in self._compiling:
            thread = threading.Thread(target=self._compile_all, args=(size,))
            self._compiling[size] = thread
            thread.start()

    def _compile_all(self, size: int) -> None:
        """Call all that is compiled, side by side, with zeros in the shapes of ``size`` battles."""
        keys = self._keys(np.zeros(size, np.uint32))
        waiting, _ = jax.tree.map(_zeros, jax.eval_shape(self._begin, keys))
        actions, mask = np.zeros((size, self.n_agents), np.int32), np.zeros(size, bool)
        calls: list[tuple[Any, ...]] = [
            (self._proceed, waiting, actions),
            (self._begin, keys),
            *((self._prepare_rows, waiting, keys, np.zeros(rows, int)) for rows in (size, FEW)),
            (self._place_rows, waiting, waiting, mask),
        ]
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            for done in [threads.submit(function, *given) for function, *given in calls]:
                done.result()

    def slots(self, seeds: np.ndarray) -> Battles:
        """Slots, one for each of ``seeds`` (uint32 [B]), where no battle has been started.

        Waits until what they need is compiled.
        """
        self.compile(len(seeds))
        thread = self._compiling[len(seeds)]
        thread.join(timeout=2)
        if thread.is_alive():
            armies = " against ".join(self.scenario[:2])
            logger.info("compiling SMAX, %s, once: what is compiled is kept", armies)
            thread.join()
        return self._slots(seeds)

    def _slots(self, seeds: np.ndarray) -> Battles:
        waiting, keys = self._begin(self._keys(seeds))
        return Battles(jax.tree.map(_zeros, waiting), waiting, keys)

    def restart(self, battles: Battles, mask: np.ndarray) -> tuple[Battles, View]:
        """Start the next battles in the slots of ``mask`` [B]; the others show what they showed."""
        battles = self._replace_used(battles)
        running, waiting = battles.running, battles.waiting
        numbers, flags = np.array(running.numbers), np.array(running.flags)
        rows = np.flatnonzero(mask)
        if len(rows):
            numbers[rows] = np.asarray(waiting.numbers)[rows]
            flags[rows] = np.asarray(waiting.flags)[rows]
            # Mostly few: each of two sizes is compiled once, and some rows repeat.
            count = FEW if len(rows) <= FEW else len(mask)
            used = rows[np.arange(count) % len(rows)]
            battles = Battles(self._place_rows(running, waiting, mask), waiting, battles.keys, used)
        return battles, self._view(numbers, flags)

    def step(self, battles: Battles, actions: np.ndarray) -> Battles:
        """Begin to step all battles by ``actions`` [B, N] int32: nobody waits for JAX."""
        running = self._proceed(battles.running, actions)
        return self._replace_used(battles._replace(running=running))

    def view(self, battles: Battles) -> View:
        """Return what the battles show, as soon as they do."""
        return self._view(np.array(battles.running.numbers), np.array(battles.running.flags))

    def _replace_used(self, battles: Battles) -> Battles:
        if battles.used is None:
            return battles
        fresh = self._prepare_rows(battles.waiting, battles.keys, battles.used)
        return Battles(battles.running, *fresh)

    def units(self, battles: Battles, slot: int) -> tuple[Any, np.ndarray, np.ndarray]:
        """Return SMAX's state of one battle, and of every unit type its radius and full health."""
        state = jax.tree.map(lambda leaf: np.asarray(leaf[slot]), battles.running.state.state)
        return state, np.asarray(self.env.unit_type_radiuses), np.asarray(self.env.unit_type_health)

    def _view(self, numbers: np.ndarray, flags: np.ndarray) -> View:
        """Take what battles show apart; it must be a copy, JAX's arrays are never written to."""
        agents, seen = self.n_agents, self.n_agents * self.observation_size
        per_agent = (len(numbers), agents, -1)
        return View(
            observation=numbers[:, :seen].reshape(per_agent),
            action_mask=flags[:, :-4].reshape(per_agent),
            state=numbers[:, seen:-agents],
            reward=numbers[:, -agents:, None],
            terminated=flags[:, -4:-3],
            truncated=flags[:, -3:-2],
            done=flags[:, -2:-1],
            won=flags[:, -1],
        )

    def _state_scale(self, units: jax.Array) -> jax.Array:
        """Factors [S] for SMAX's world state: it has positions up to 32, seconds and unit types."""
        env = self.env
        factors = jnp.ones((len(units), len(env.own_features)))
        factors = factors.at[:, 1:3].set(1 / jnp.array([env.map_width, env.map_height]))
        factors = factors.at[:, 3].set(1 / env.unit_type_weapon_cooldowns[units])
        types = jnp.full(len(units), 1 / (env.unit_type_bits - 1))
        return jnp.concatenate([factors.reshape(-1), jnp.ones(len(units)), types])

    def _start(self, key: jax.Array) -> tuple[Battle, jax.Array]:
        """A slot's next battle, and the slot's random state after it."""
        key, own, begins = jax.random.split(key, 3)
        _, state = self.env.reset(begins)
        return self._battle(own, state, self.env.get_all_unit_obs(state), 0.0), key

    def _prepare(self, waiting: Battle, keys: jax.Array, rows: jax.Array) -> tuple:
        """Replace the waiting battles of ``rows``."""
        fresh, following = jax.vmap(self._start)(keys[rows])
        replaced = jax.tree.map(lambda new, old: old.at[rows].set(new), fresh, waiting)
        return replaced, keys.at[rows].set(following)

    def _step(self, battle: Battle, actions: jax.Array) -> Battle:
        """What ``env.step_env`` does, bit by bit, but what enemies see is not computed again."""
        env, before = self.env, battle.state
        key, own = jax.random.split(battle.key)
        _, enemies_own = jax.random.split(own)
        policy = before.enemy_policy_state
        chosen, policy = env.get_enemy_actions(enemies_own, policy, battle.enemies)
        chosen.update({agent: actions[i] for i, agent in enumerate(env.agents)})
        seen, game, rewards, _, _ = env._env.step_env(own, before.state, chosen)
        state = before.replace(state=game, enemy_policy_state=policy)
        reward = REWARD_SCALE * rewards[env.agents[0]]  # the team's, the same for all
        return self._battle(key, state, seen, reward)

    def _battle(
        self, key: jax.Array, state: Any, seen: dict[str, jax.Array], reward: jax.Array | float
    ) -> Battle:
        """Put a battle together; ``seen`` are all units' observations."""
        env = self.env
        alive, last = state.state.unit_alive, state.state.step >= self.max_steps
        allies, enemies = alive[: self.n_agents].any(), alive[self.n_agents :].any()
        both = allies & enemies
        masks = env.get_avail_actions(state)
        # A weapon that is not used cools down below zero, without end.
        world = jnp.clip(env.get_world_state(state) * self._scale, -1, 1)
        rewards = jnp.full(self.n_agents, reward, jnp.float32)
        ends = jnp.array([~both, both & last, ~both | last, allies & ~enemies])
        battle = Battle(
            key,
            state,
            jnp.stack([seen[agent] for agent in env.enemy_agents]),
            jnp.concatenate([*(seen[agent] for agent in env.agents), world, rewards]),
            jnp.concatenate([*(masks[agent].astype(bool) for agent in env.agents), ends]),
        )
        # JAX compiles anew for types that it calls weak: there are none in a battle.
        return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), battle)


def _zeros(like: jax.Array | jax.ShapeDtypeStruct) -> np.ndarray:
    return np.zeros(like.shape, like.dtype)


def compiled(function: Callable) -> Callable:
    """Compile a function that computes observations.

    XLA lets YNNPACK add up arrays of 2048 entries or more, which takes a third to a half of a
    step's time and rounds in another way than with fewer battles. Here YNNPACK only multiplies.
    """
    return jax.jit(function, **_options())


@functools.cache
def _options() -> dict[str, Any]:
    """What :func:`compiled` asks of JAX, if this version knows it."""
    asked = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"}
    try:
        jax.jit(jnp.negative, compiler_options=asked)(0.0)
    except (TypeError, jax.errors.JaxRuntimeError):
        return {}
    return {"compiler_options": asked}


def _place(running: Battle, waiting: Battle, mask: jax.Array) -> Battle:
    """Let the waiting battles of ``mask`` [B] run."""
    choose = jax.vmap(lambda chosen, new, old: jnp.where(chosen, new, old))
    return jax.tree.map(lambda new, old: choose(mask, new, old), waiting, running)


@functools.cache
def battlefield(scenario: Scenario) -> Battlefield:
    """Return the one battlefield of a scenario: training and evaluation share what is compiled."""
    return Battlefield(scenario)
