"""A PettingZoo game as a BenchMARL task, its class written as BenchMARL's own of that kind are.

Runners on a line of ten places earn, each step, minus their distance to the finish; who is there
leaves the game, the others go on. It counts the games that are alive.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from benchmarl.environments.common import Task, TaskClass
from gymnasium import spaces
from pettingzoo import ParallelEnv
from torchrl.data import Composite
from torchrl.envs import PettingZooWrapper, StepCounter

FINISH = 9
DEFAULTS = {
    "agents": 3,
    "observation": "vector",  # vector, scalar, dict, mixed, image
    "actions": "one",  # one, several, alike: two of three choices each
    "limit": 6,
    "counter": False,  # whether the task has a transform that keeps a state
}


class Line(ParallelEnv):
    """The game; ``alive`` are the games that are open, ``most`` how many were at once."""

    metadata: ClassVar[dict] = {"name": "line", "render_modes": []}
    render_mode = None
    alive: ClassVar[set] = set()
    most = made = 0

    def __init__(self, agents, observation, actions, limit):
        self.kind, self.actions, self.limit = observation, actions, limit
        self.possible_agents = [f"runner_{i}" for i in range(agents)]
        self.agents, self.random = [], np.random.default_rng(0)
        Line.alive.add(id(self))
        Line.made += 1
        Line.most = max(Line.most, len(Line.alive))

    @classmethod
    def forget(cls):
        cls.alive.clear()
        cls.most = cls.made = 0

    def observation_space(self, agent):
        small = spaces.Box(0, FINISH, (2,), np.float32)
        match self.kind:
            case "scalar":
                far = spaces.Box(0, FINISH, (), np.float32)
                return spaces.Dict({"observation": small, "far": far})
            case "dict":
                far = spaces.Box(0, FINISH, (1, 2), np.float32)
                return spaces.Dict({"observation": small, "far": far})
            case "mixed":
                return spaces.Box(0, FINISH, (2 + int(agent[-1]),), np.float32)
            case "image":
                return spaces.Box(0, 255, (88, 88, 3), np.uint8)
        return small

    def action_space(self, agent):
        several = {"several": [3, 2], "alike": [3, 3]}.get(self.actions)
        return spaces.MultiDiscrete(several) if several else spaces.Discrete(3)

    def _seen(self, agent):
        small = np.array([self.places[agent], self.time], np.float32)
        far = np.float32(FINISH - self.places[agent])
        match self.kind:
            case "scalar":
                return {"observation": small, "far": far}
            case "dict":
                return {"observation": small, "far": np.array([[far, -far]], np.float32)}
            case "mixed":
                return np.pad(small, (0, int(agent[-1])))
            case "image":
                return np.full((88, 88, 3), self.places[agent], np.uint8)
        return small

    def reset(self, seed=None, options=None):
        if seed is not None:
            self.random = np.random.default_rng(seed)
        self.agents, self.time = list(self.possible_agents), 0
        self.places = {agent: int(self.random.integers(FINISH)) for agent in self.agents}
        return {a: self._seen(a) for a in self.agents}, {a: {} for a in self.agents}

    def step(self, actions):
        running, self.time = list(self.agents), self.time + 1
        for agent in running:
            move = int(np.ravel(actions[agent])[0]) - 1
            self.places[agent] = int(np.clip(self.places[agent] + move, 0, FINISH))
        there = {a: self.places[a] == FINISH for a in running}
        late = {a: self.time >= self.limit and not there[a] for a in running}
        rewards = {a: float(self.places[a] - FINISH) for a in running}
        self.agents = [a for a in running if not (there[a] or late[a])]
        return {a: self._seen(a) for a in running}, rewards, there, late, {a: {} for a in running}

    def close(self):
        Line.alive.discard(id(self))


class LineClass(TaskClass):
    """Groups and actions come from the environment, as in BenchMARL's PettingZoo classes."""

    def get_env_fun(self, num_envs, continuous_actions, seed, device):
        config = {key: value for key, value in self.config.items() if key != "counter"}
        return lambda: PettingZooWrapper(
            Line(**config),
            categorical_actions=True,
            device=device,
            seed=seed,
            use_mask=True,
            done_on_any=False,
        )

    def get_env_transforms(self, env):
        return [StepCounter()] if self.config["counter"] else []

    def supports_continuous_actions(self):
        return False

    def supports_discrete_actions(self):
        return True

    def has_render(self, env):
        return False

    def max_steps(self, env):
        return self.config["limit"]

    def group_map(self, env):
        return env.group_map

    def state_spec(self, env):
        return None

    def action_mask_spec(self, env):
        return None

    def observation_spec(self, env):
        return Composite(
            {
                group: Composite(
                    {
                        key: env.observation_spec[group, key].clone()
                        for key in ("observation", "far")
                        if key in env.observation_spec[group].keys()
                    },
                    shape=env.observation_spec[group].shape,
                )
                for group in env.group_map
            }
        )

    def info_spec(self, env):
        return None

    def action_spec(self, env):
        return env.full_action_spec

    @staticmethod
    def env_name():
        return "games"


class GamesTask(Task):
    LINE = None

    @staticmethod
    def associated_class():
        return LineClass

    def get_from_yaml(self, path=None):
        return self.get_task(dict(DEFAULTS))


def register_games() -> None:
    """Put the game into BenchMARL's registry."""
    from benchmarl.environments import task_config_registry

    task_config_registry["games/line"] = GamesTask.LINE


def line(name: str = "line", **config):
    """One entry of a task set."""
    return {"task": "games/line", "name": name, "config": config}
