"""Many copies of one mpe2 game: stepped one by one, or as arrays where the scenario is known here.

Both start every episode through mpe2's own ``reset_world``. The array version computes mpe2's
physics, observations and rewards for all copies at once; a test holds it equal to mpe2, step by
step.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

Parts = list[list[ndarray]]  # every agent's observation, in pieces [B, d]

# Unit force of the five moves: none, left, right, down, up.
_MOVES = np.array([[0.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])


class Entity(NamedTuple):
    """An agent or a landmark in one copy, to be drawn."""

    entity: Any  # mpe2's, for what does not change
    position: ndarray  # x and y
    color: ndarray  # red, green, blue in [0, 1]
    message: int | None  # index of the word that the agent says; None if it says nothing


class RawGames:
    """``count`` (B) copies of any mpe2 scenario, each a world of mpe2's, stepped by mpe2 itself.

    ``sizes`` are the scenario's own, such as N of ``simple_spread``.

    Raises:
        ImportError: if mpe2 is not installed.
    """

    def __init__(self, scenario: str, count: int, max_cycles: int, **sizes: int):
        self.game = _load_scenario(scenario).raw_env(max_cycles=max_cycles, **sizes)
        self.game.reset()
        self.agents: list[str] = list(self.game.possible_agents)
        self.worlds = [self.game.scenario.make_world(**sizes) for _ in range(count)]

    def reset(self, slot: int, generator: np.random.Generator) -> None:
        """Start a new episode in copy ``slot``."""
        self.game.scenario.reset_world(self.worlds[slot], generator)

    def step(self, actions: ndarray) -> ndarray:
        """Advance all copies by ``actions`` [B, agents]; return rewards [B, agents]."""
        rewards = []
        for world, chosen in zip(self.worlds, actions.tolist()):
            self.game.world, self.game.current_actions = world, chosen
            self.game._execute_world_step()
            rewards.append(list(self.game.rewards.values()))
        return np.array(rewards)

    def observe(self) -> list[ndarray]:
        """Return every agent's observations [B, d]."""
        observe = self.game.scenario.observation
        copies = [[observe(agent, world) for agent in world.agents] for world in self.worlds]
        return [np.array(per_agent) for per_agent in zip(*copies)]

    def entities(self, slot: int) -> list[Entity]:
        """Return what is in copy ``slot``: agents, then landmarks."""
        world = self.worlds[slot]
        speaks = {id(a): a.state.c for a in world.agents if not a.silent}
        return [Entity(e, e.state.p_pos, e.color, _word(speaks.get(id(e)))) for e in world.entities]


class ArrayGames(RawGames):
    """B copies of a scenario in :data:`ARRAY_SCENARIOS` as arrays.

    Entities are the agents, then the landmarks: ``position`` and ``velocity`` [B, entities, 2],
    ``color`` [B, entities, 3], ``message`` [B, agents, dim_c], ``goal`` [B] (entity index).
    """

    def __init__(self, scenario: str, count: int, max_cycles: int):
        super().__init__(scenario, 0, max_cycles)  # arrays are in the worlds' place
        self._observe, self._reward = ARRAY_SCENARIOS[scenario]
        self.world = world = self.game.world
        entities, self.n_agents = world.entities, len(world.agents)
        self.position = np.zeros((count, len(entities), 2))
        self.velocity = np.zeros_like(self.position)
        self.color = np.zeros((count, len(entities), 3))
        self.message = np.zeros((count, self.n_agents, world.dim_c))
        self.goal = np.zeros(count, dtype=np.int64)
        self.copies = np.arange(count)
        self._movable = [i for i, agent in enumerate(world.agents) if agent.movable]
        self._speakers = [i for i, agent in enumerate(world.agents) if not agent.silent]
        self._strength = np.array([5.0 if a.accel is None else a.accel for a in world.agents])
        colliding = [i for i, entity in enumerate(entities) if entity.collide]
        self._pairs = [(a, b) for a in colliding for b in colliding if a < b]

    def reset(self, slot: int, generator: np.random.Generator) -> None:
        world = self.world
        self.game.scenario.reset_world(world, generator)
        for i, entity in enumerate(world.entities):
            self.position[slot, i] = entity.state.p_pos
            self.velocity[slot, i] = entity.state.p_vel
            self.color[slot, i] = entity.color
        self.message[slot] = 0.0
        goals = (getattr(world.agents[0], name, None) for name in ("_goal_b", "_goal_a"))
        goal = next(goal for goal in goals if goal is not None)
        self.goal[slot] = self.n_agents + world.landmarks.index(goal)

    def step(self, actions: ndarray) -> ndarray:
        world, entities = self.world, self.world.entities
        force = np.zeros_like(self.position)
        moves = actions[:, self._movable] % len(_MOVES)
        force[:, self._movable] = _MOVES[moves] * self._strength[self._movable, None]
        for a, b in self._pairs:
            push = self._contact(a, b)
            force[:, a] += push * entities[a].movable
            force[:, b] -= push * entities[b].movable
        for i in self._movable:
            self.position[:, i] += self.velocity[:, i] * world.dt
            velocity = self.velocity[:, i] * (1 - world.damping)
            velocity += force[:, i] / entities[i].mass * world.dt
            limit = entities[i].max_speed
            if limit is not None:
                speed = np.sqrt(np.square(velocity).sum(-1, keepdims=True))
                slowed = velocity / np.maximum(speed, 1e-300) * limit
                velocity = np.where(speed > limit, slowed, velocity)
            self.velocity[:, i] = velocity
        for i in self._speakers:
            said = actions[:, i] // (len(_MOVES) if entities[i].movable else 1)
            self.message[:, i] = np.eye(world.dim_c)[said]
        return self._reward(self)

    def observe(self) -> list[ndarray]:
        return [np.concatenate(parts, 1) for parts in self._observe(self)]

    def entities(self, slot: int) -> list[Entity]:
        messages = {i: self.message[slot, i] for i in self._speakers}
        return [
            Entity(e, self.position[slot, i], self.color[slot, i], _word(messages.get(i)))
            for i, e in enumerate(self.world.entities)
        ]

    def _contact(self, a: int, b: int) -> ndarray:
        """Force [B, 2] of entity b on entity a: mpe2's soft contact."""
        world, entities = self.world, self.world.entities
        delta = self.position[:, a] - self.position[:, b]
        distance = np.sqrt(np.square(delta).sum(-1, keepdims=True))
        gap, margin = distance - (entities[a].size + entities[b].size), world.contact_margin
        penetration = np.logaddexp(0, -gap / margin) * margin
        return world.contact_force * delta / distance * penetration

    def seen_from(self, agent: int, others: list[int]) -> ndarray:
        """Positions of entities relative to an agent, in a row: [B, 2 * len(others)]."""
        relative = self.position[:, others] - self.position[:, agent, None]
        return relative.reshape(len(relative), -1)

    def goal_from(self, agent: int) -> ndarray:
        """Position of the goal relative to an agent [B, 2]."""
        return self.position[self.copies, self.goal] - self.position[:, agent]

    def goal_distance(self, agent: int) -> ndarray:
        """Distance of an agent from the goal [B]."""
        return np.sqrt(np.square(self.goal_from(agent)).sum(-1))


def _speaker_listener_observe(games: ArrayGames) -> Parts:
    listener = [games.velocity[:, 1], games.seen_from(1, [2, 3, 4]), games.message[:, 0]]
    return [[games.color[games.copies, games.goal]], listener]


def _speaker_listener_reward(games: ArrayGames) -> ndarray:
    reward = -np.square(games.goal_from(1)).sum(-1)
    return np.stack([reward, reward], 1)


def _push_observe(games: ArrayGames) -> Parts:
    adversary = [games.velocity[:, 0], games.seen_from(0, [2, 3, 1])]
    agent = [games.velocity[:, 1], games.goal_from(1), games.color[:, 1]]
    agent += [games.seen_from(1, [2, 3]), games.color[:, 2], games.color[:, 3]]
    return [adversary, [*agent, games.seen_from(1, [0])]]


def _push_reward(games: ArrayGames) -> ndarray:
    adversary, agent = games.goal_distance(0), games.goal_distance(1)
    return np.stack([agent - adversary, -agent], 1)


def _adversary_observe(games: ArrayGames) -> Parts:
    around = [games.seen_from(i, [3, 4, *(j for j in range(3) if j != i)]) for i in range(3)]
    return [around[:1], *([games.goal_from(i), around[i]] for i in (1, 2))]


def _adversary_reward(games: ArrayGames) -> ndarray:
    adversary = games.goal_distance(0)
    good = adversary - np.minimum(games.goal_distance(1), games.goal_distance(2))
    return np.stack([-adversary, good, good], 1)


# Scenario -> (observations, rewards) of its arrays.
ARRAY_SCENARIOS: dict[str, tuple[Callable, Callable]] = {
    "simple_speaker_listener": (_speaker_listener_observe, _speaker_listener_reward),
    "simple_push": (_push_observe, _push_reward),
    "simple_adversary": (_adversary_observe, _adversary_reward),
}


def _word(message: ndarray | None) -> int | None:
    return int(message.argmax()) if message is not None and message.any() else None


def _load_scenario(name: str) -> Any:
    try:
        return importlib.import_module(f"mpe2.{name}.{name}")
    except ModuleNotFoundError as error:
        if error.name == "mpe2":
            raise ImportError(
                f"the task mpe/{name} needs mpe2: pip install 'benchmarl-mkt[mpe]'"
            ) from error
        raise
