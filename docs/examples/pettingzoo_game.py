"""A PettingZoo game as a task: Butterfly's knights, archers and zombies, in a set with MPE.

Four agents shoot zombies together; who is caught leaves the game, the others go on. The game is not
vectorised: its copies are played one after the other, or in processes of their own with
``experiment.parallel_collection=true``::

    pip install 'pettingzoo[butterfly]>=1.27'
    python docs/examples/pettingzoo_game.py

Whatever follows on the command line is handed to ``benchmarl run``.
"""

import sys
from collections.abc import Callable

from benchmarl.environments import task_config_registry
from benchmarl.environments.common import Task, TaskClass
from torchrl.data import Composite
from torchrl.envs import EnvBase, PettingZooWrapper

from benchmarl_mkt.cli import main


class ButterflyClass(TaskClass):
    """What BenchMARL asks of a task; groups and sizes come from one copy of the game."""

    def get_env_fun(self, num_envs, continuous_actions, seed, device) -> Callable[[], EnvBase]:
        def make() -> EnvBase:
            from pettingzoo.butterfly import knights_archers_zombies_v11

            game = knights_archers_zombies_v11.parallel_env(**self.config)
            return PettingZooWrapper(
                game,
                categorical_actions=True,
                use_mask=True,  # agents leave the game one by one
                done_on_any=False,
                seed=seed,
                device=device,
            )

        return make

    def supports_continuous_actions(self) -> bool:
        return False

    def supports_discrete_actions(self) -> bool:
        return True

    def has_render(self, env: EnvBase) -> bool:
        return False

    def max_steps(self, env: EnvBase) -> int:
        return self.config["max_cycles"]

    def group_map(self, env: EnvBase) -> dict[str, list[str]]:
        return env.group_map  # archers and knights: one team

    def state_spec(self, env: EnvBase) -> None:
        return None

    def action_mask_spec(self, env: EnvBase) -> None:
        return None

    def info_spec(self, env: EnvBase) -> None:
        return None

    def observation_spec(self, env: EnvBase) -> Composite:
        seen = {
            group: Composite(
                observation=env.observation_spec[group, "observation"],
                shape=env.observation_spec[group].shape,
            )
            for group in env.group_map
        }
        return Composite(seen)

    def action_spec(self, env: EnvBase) -> Composite:
        return env.full_action_spec

    @staticmethod
    def env_name() -> str:
        return "butterfly"


class ButterflyTask(Task):
    """The tasks of this environment."""

    KNIGHTS_ARCHERS_ZOMBIES = None

    @staticmethod
    def associated_class() -> type[TaskClass]:
        return ButterflyClass

    def get_from_yaml(self, path: str | None = None) -> TaskClass:
        return self.get_task(config={"max_cycles": 100, "max_zombies": 5})


# At the top level, so that the processes that train teachers, which import this file, have it, too.
name = "butterfly/knights_archers_zombies"
task_config_registry[name] = ButterflyTask.KNIGHTS_ARCHERS_ZOMBIES

if __name__ == "__main__":
    vdn, tasks = "algorithm.mixer=vdn", f"task.tasks=[{name},mpe/simple_push]"
    main(["run", "algorithm=mkt", vdn, "task=multitask/custom", tasks, *sys.argv[1:]])
