"""Your own TorchRL environment as a task, from outside: one file, nothing registered by hand.

Two walkers in a corridor are rewarded for standing together. They become the task
``corridor/meet``, and one student learns it together with MPE's ``simple_push``::

    python docs/examples/own_environment.py

Whatever follows on the command line is handed to ``benchmarl run``.
"""

import sys
from collections.abc import Callable

import torch
from benchmarl.environments import task_config_registry
from benchmarl.environments.common import Task, TaskClass
from tensordict import TensorDict
from torchrl.data import Binary, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from benchmarl_mkt.cli import main

LENGTH, STEPS, N = 9, 25, 2


class CorridorEnv(EnvBase):
    """N walkers on LENGTH places; actions left, stay, right; the team is paid for being close."""

    def __init__(self, num_envs: int, seed: int | None, device):
        super().__init__(device=device, batch_size=[num_envs])
        shape, team = (num_envs, N), (num_envs,)
        self.group_map = {"walkers": ["walker_0", "walker_1"]}
        self.observation_spec = Composite(
            walkers=Composite(observation=Unbounded((*shape, 2)), shape=shape), shape=team
        )
        self.action_spec = Composite(
            walkers=Composite(action=Categorical(3, shape=shape), shape=shape), shape=team
        )
        self.reward_spec = Composite(
            walkers=Composite(reward=Unbounded((*shape, 1)), shape=shape), shape=team
        )
        flags = ("done", "terminated", "truncated")
        self.done_spec = Composite(
            {flag: Binary(1, shape=(num_envs, 1), dtype=torch.bool) for flag in flags}, shape=team
        )
        self.place = torch.zeros(shape, dtype=torch.long)
        self.elapsed = torch.zeros(num_envs, dtype=torch.long)
        self.set_seed(seed)

    def _set_seed(self, seed: int | None) -> None:
        self.generator = torch.Generator().manual_seed(seed or 0)

    def _reset(self, tensordict: TensorDict | None = None, **kwargs) -> TensorDict:
        mask = torch.ones(self.batch_size, dtype=torch.bool)
        if tensordict is not None and "_reset" in tensordict.keys():
            mask = tensordict["_reset"].view(-1)
        fresh = torch.randint(LENGTH, self.place.shape, generator=self.generator)
        self.place = torch.where(mask.unsqueeze(-1), fresh, self.place)
        self.elapsed = torch.where(mask, 0, self.elapsed)
        return self._seen()

    def _step(self, tensordict: TensorDict) -> TensorDict:
        move = tensordict["walkers", "action"] - 1
        self.place = (self.place + move).clamp(0, LENGTH - 1)
        self.elapsed = self.elapsed + 1
        seen = self._seen()
        distance = (self.place[:, 0] - self.place[:, 1]).abs() / LENGTH
        seen["walkers", "reward"] = -distance.view(-1, 1, 1).expand(-1, N, 1) / N
        return seen

    def _seen(self) -> TensorDict:
        own, other = self.place / LENGTH, self.place.flip(-1) / LENGTH
        over = (self.elapsed >= STEPS).unsqueeze(-1)
        team = TensorDict({"observation": torch.stack([own, other], -1)}, (*self.batch_size, N))
        flags = {"done": over, "truncated": over.clone(), "terminated": torch.zeros_like(over)}
        return TensorDict({"walkers": team, **flags}, self.batch_size)


class CorridorClass(TaskClass):
    """What BenchMARL asks of a task."""

    def get_env_fun(self, num_envs, continuous_actions, seed, device) -> Callable[[], EnvBase]:
        return lambda: CorridorEnv(num_envs, seed, device)

    def supports_continuous_actions(self) -> bool:
        return False

    def supports_discrete_actions(self) -> bool:
        return True

    def has_render(self, env: EnvBase) -> bool:
        return False

    def max_steps(self, env: EnvBase) -> int:
        return STEPS

    def group_map(self, env: EnvBase) -> dict[str, list[str]]:
        return env.group_map

    def state_spec(self, env: EnvBase) -> None:
        return None  # then it is all observations in a row

    def action_mask_spec(self, env: EnvBase) -> None:
        return None  # all actions are always available

    def info_spec(self, env: EnvBase) -> None:
        return None

    def observation_spec(self, env: EnvBase) -> Composite:
        return env.full_observation_spec_unbatched

    def action_spec(self, env: EnvBase) -> Composite:
        return env.full_action_spec_unbatched

    @staticmethod
    def env_name() -> str:
        return "corridor"


class CorridorTask(Task):
    """The tasks of this environment."""

    MEET = None

    @staticmethod
    def associated_class() -> type[TaskClass]:
        return CorridorClass

    def get_from_yaml(self, path: str | None = None) -> TaskClass:
        return self.get_task(config={})


# At the top level, so that the processes that train teachers, which import this file, have it, too.
task_config_registry["corridor/meet"] = CorridorTask.MEET

if __name__ == "__main__":
    tasks = "task.tasks=[corridor/meet,mpe/simple_push]"
    main(["run", "algorithm=mkt", "task=multitask/custom", tasks, *sys.argv[1:]])
