"""Small exact environments: real TorchRL environments, wrapped as real BenchMARL tasks.

Every number of an episode follows from its length, which the observation shows, and from the
actions, so a test can predict all of it. An illegal action in a running episode raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from benchmarl.environments.common import Task, TaskClass
from tensordict import TensorDict, TensorDictBase
from torchrl.data import Binary, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

# The groups of agents: name -> number of agents, number of actions, extra observation entries.
TWO_AGENTS = {"agents": [2, 3, 0]}
DEFAULTS = {
    "groups": TWO_AGENTS,
    "length": 3,  # shortest episode
    "spread": 1,  # episodes last length + 0 .. spread - 1 steps
    "terminal": True,  # whether an episode ends as terminated or as truncated
    "masked": False,  # whether action (t + i) % n_actions of agent i is unavailable at time t
    "limit": 100,  # max_steps of the task
    "wins": False,  # whether an episode is won by ending with action 1 of the first agent
    "state": False,  # whether the task has a state of its own, of two numbers
    "breaks": None,  # [steps, "nan" or "error"]: what happens after so many steps
}


def blocked(t: int, agent: int, n_actions: int) -> int:
    """The action that a masked toy forbids."""
    return (t + agent) % n_actions


def toy_observation(t: int, length: int, agent: int, extra: int) -> list[float]:
    """What agent number ``agent`` of its group sees at time t."""
    return [t / 10, length / 10, float(agent)] + [0.5] * extra


def toy_reward(t: int, action: int, agent: int) -> float:
    """What agent number ``agent`` of its group earns for its action in step t."""
    return (action + 1.0) * (agent + 1.0) + t


class ToyEnv(EnvBase):
    """The toy game; ``num_envs`` None gives one without batch dimension that dies after done."""

    def __init__(self, config: dict[str, Any], num_envs: int | None, seed: int | None, device):
        batch = [] if num_envs is None else [num_envs]
        super().__init__(device=device, batch_size=batch)
        self.config = config
        self.group_map = {
            group: [f"{group}_{i}" for i in range(count)]
            for group, (count, _, _) in config["groups"].items()
        }
        self._t = torch.zeros(batch, dtype=torch.long)
        self._length = torch.ones(batch, dtype=torch.long)
        self.steps = 0
        self.played = 0  # steps taken, in all copies together, after their episode had ended
        self._make_specs()
        self.set_seed(seed)

    def _make_specs(self) -> None:
        batch = self.batch_size
        observation, action, reward = (Composite(shape=batch) for _ in range(3))
        for group, (count, n_actions, extra) in self.config["groups"].items():
            shape = (*batch, count)
            observation[group] = Composite(observation=Unbounded((*shape, 3 + extra)), shape=shape)
            if self.config["masked"]:
                observation[group, "action_mask"] = Binary(
                    shape=(*shape, n_actions), dtype=torch.bool
                )
            action[group] = Composite(action=Categorical(n_actions, shape=shape), shape=shape)
            reward[group] = Composite(reward=Unbounded((*shape, 1)), shape=shape)
        if self.config["state"]:
            observation["state"] = Unbounded((*batch, 2))
        if self.config["wins"]:
            battle_won = Categorical(2, shape=batch, dtype=torch.bool)
            observation["info"] = Composite(battle_won=battle_won, shape=batch)
        self.observation_spec, self.action_spec, self.reward_spec = observation, action, reward
        self.done_spec = Composite(
            {
                key: Binary(n=1, shape=(*batch, 1), dtype=torch.bool)
                for key in ("done", "terminated", "truncated")
            },
            shape=batch,
        )

    def _set_seed(self, seed: int | None) -> None:
        self._generator = torch.Generator().manual_seed(0 if seed is None else seed)

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs) -> TensorDict:
        mask = torch.ones_like(self._t, dtype=torch.bool)
        if tensordict is not None and "_reset" in tensordict.keys():
            mask = tensordict.get("_reset").view(self._t.shape)
        drawn = torch.randint(self.config["spread"], self._t.shape, generator=self._generator)
        self._length = torch.where(mask, self.config["length"] + drawn, self._length)
        self._t = torch.where(mask, 0, self._t)
        return self._output()

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        self.steps += 1
        if self.config["breaks"] == [self.steps, "error"]:
            raise ConnectionError("the game has gone")
        running = self._t < self._length
        if not running.all() and not self.batch_size:
            raise RuntimeError("stepped after the episode had ended")
        self.played += int((~running).sum())
        rewards = {}
        for group in self.group_map:
            action = tensordict.get((group, "action"))
            n_actions = self.config["groups"][group][1]
            agent = torch.arange(action.shape[-1])
            time = self._t.unsqueeze(-1)
            illegal = (action < 0) | (action >= n_actions)
            if self.config["masked"]:
                illegal |= action == (time + agent) % n_actions
            if (illegal & running.unsqueeze(-1)).any():
                raise ValueError(f"illegal action {action.tolist()} at {self._t.tolist()}")
            rewards[group] = ((action + 1.0) * (agent + 1.0) + time).unsqueeze(-1)
        self._t = self._t + 1
        first = tensordict.get((next(iter(self.group_map)), "action"))[..., 0]
        return self._output(rewards, (self._t >= self._length) & (first == 1))

    def _output(self, rewards: dict | None = None, won=None) -> TensorDict:
        ended = (self._t >= self._length).unsqueeze(-1)
        never = torch.zeros_like(ended)
        terminal = self.config["terminal"]
        out = TensorDict(
            {
                "done": ended,
                "terminated": ended.clone() if terminal else never,
                "truncated": never.clone() if terminal else ended.clone(),
            },
            batch_size=self.batch_size,
        )
        if self.config["state"]:
            out["state"] = torch.stack([self._t / 5, self._length / 5], -1)
        if self.config["wins"]:
            flags = torch.zeros_like(self._t, dtype=torch.bool) if won is None else won
            out["info"] = TensorDict({"battle_won": flags}, batch_size=self.batch_size)
        for group, (count, n_actions, extra) in self.config["groups"].items():
            shape = (*self.batch_size, count)
            agent = torch.arange(count).expand(shape)
            time, length = (x.unsqueeze(-1).expand(shape) for x in (self._t, self._length))
            columns = [time / 10, length / 10, agent.float()] + [torch.full(shape, 0.5)] * extra
            content = {"observation": torch.stack(columns, -1)}
            if self.config["breaks"] == [self.steps, "nan"]:
                content["observation"][..., -1, 1] = torch.nan
            if self.config["masked"]:
                forbidden = ((time + agent) % n_actions).unsqueeze(-1)
                content["action_mask"] = torch.arange(n_actions) != forbidden
            if rewards is not None:
                content["reward"] = rewards[group]
            out[group] = TensorDict(content, batch_size=shape)
        return out


class ToyClass(TaskClass):
    """The toy game as a BenchMARL task."""

    def get_env_fun(self, num_envs, continuous_actions, seed, device) -> Callable[[], EnvBase]:
        copies = None if self.name.lower() == "serial" else num_envs
        config = {**DEFAULTS, **self.config}
        return lambda: ToyEnv(config, copies, seed, device)

    def supports_continuous_actions(self) -> bool:
        return self.name.lower() == "continuous"

    def supports_discrete_actions(self) -> bool:
        return self.name.lower() != "continuous"

    def has_render(self, env) -> bool:
        return False

    def max_steps(self, env) -> int:
        return self.config["limit"]

    def group_map(self, env) -> dict[str, list[str]]:
        return {
            group: [f"{group}_{i}" for i in range(count)]
            for group, (count, _, _) in self.config["groups"].items()
        }

    def state_spec(self, env):
        spec = env.full_observation_spec_unbatched
        return Composite(state=spec["state"]) if self.config["state"] else None

    def action_mask_spec(self, env):
        return self._select(env, "action_mask") if self.config["masked"] else None

    def observation_spec(self, env):
        return self._select(env, "observation")

    def _select(self, env, key):
        spec = env.full_observation_spec_unbatched
        return Composite(
            {
                group: Composite({key: spec[group, key]}, shape=spec[group].shape)
                for group in self.group_map(env)
            }
        )

    def info_spec(self, env):
        return None

    def action_spec(self, env):
        return env.full_action_spec_unbatched

    @staticmethod
    def env_name() -> str:
        return "toy"


class ToyTask(Task):
    """VECTOR steps all its copies at once, SERIAL has no batch dimension."""

    VECTOR = None
    SERIAL = None
    CONTINUOUS = None

    @staticmethod
    def associated_class() -> type[TaskClass]:
        return ToyClass

    def get_from_yaml(self, path: str | None = None) -> TaskClass:
        return self.get_task(config=dict(DEFAULTS))


def register_toys() -> None:
    """Put the toys into BenchMARL's registry."""
    from benchmarl.environments import task_config_registry

    for task in ToyTask:
        task_config_registry[f"toy/{task.name.lower()}"] = task


def toy(name: str, kind: str = "vector", **config: Any) -> dict[str, Any]:
    """One entry of a task set."""
    return {"task": f"toy/{kind}", "name": name, "config": config}
