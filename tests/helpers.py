"""What several test files build: tiny experiments, task sets, networks and segments."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import torch
from benchmarl.experiment import Experiment, ExperimentConfig
from benchmarl.utils import _add_rnn_transforms
from tensordict import TensorDict
from torchrl.data import Categorical, Composite, Unbounded

from benchmarl_mkt.environments import MultiTaskTask
from benchmarl_mkt.models import MultiTaskModelConfig
from benchmarl_mkt.teams.evaluation import Episodes, play_on
from benchmarl_mkt.training.monitors import Accounts

REPOSITORY = Path(__file__).resolve().parents[1]
PUSH, SPEAKER = "mpe/simple_push", "mpe/simple_speaker_listener"

# A run of seconds, as a preset of an experiment: 2 iterations of 2 episodes of 25 steps.
TINY = {
    "prefer_continuous_actions": False,
    "lr": 0.001,
    "soft_target_update": False,
    "hard_target_update_frequency": 3,
    "exploration_eps_init": 1.0,
    "exploration_eps_end": 0.1,
    "max_n_frames": 100,
    "off_policy_collected_frames_per_batch": 50,
    "off_policy_n_envs_per_worker": 2,
    "off_policy_n_optimizer_steps": 2,
    "off_policy_train_batch_size": 100,
    "off_policy_memory_size": 1000,
    "on_policy_collected_frames_per_batch": 50,
    "on_policy_n_envs_per_worker": 2,
    "on_policy_n_minibatch_iters": 1,
    "on_policy_minibatch_size": 50,
    "render": False,
    "evaluation_interval": 50,
    "evaluation_episodes": 2,
    "loggers": [],
    "create_json": True,
}


def tiny_config(folder: Path, **changes) -> ExperimentConfig:
    """The experiment of ``TINY``, writing into ``folder``."""
    config = ExperimentConfig.get_from_yaml()
    for key, value in {**TINY, "save_folder": str(folder), **changes}.items():
        assert hasattr(config, key), key
        setattr(config, key, value)
    return config


def task_set(*tasks, name: str = "CUSTOM", **config):
    """A task set as BenchMARL gets it."""
    return MultiTaskTask[name].get_task({"tasks": list(tasks), **config})


def make_experiment(
    folder: Path, task, algorithm, model=None, seed: int = 0, callbacks=None, critic=None, **changes
):
    """A BenchMARL experiment of seconds."""
    return Experiment(
        task=task,
        algorithm_config=algorithm,
        model_config=small_model() if model is None else model,
        critic_model_config=critic,
        seed=seed,
        config=tiny_config(folder, **changes),
        callbacks=callbacks,
    )


def accounts_of(experiment: Experiment) -> dict[str, dict[str, int]]:
    """Every task's own frames and episodes."""
    (accounts,) = (c for c in experiment.callbacks if isinstance(c, Accounts))
    return accounts.tasks


def small_model(**changes) -> MultiTaskModelConfig:
    return MultiTaskModelConfig(**{"embedding_size": 8, "feature_size": 8, **changes})


def make_agents(sizes: dict[str, tuple[int, int, int]], config=None, action_spec=None) -> dict:
    """Networks of several tasks with one trunk; sizes: task -> agents, observation, actions."""
    config = small_model() if config is None else config
    if action_spec is None:
        action_spec = action_specs(sizes)
    return {
        task: config.get_model(
            input_spec=Composite({task: Composite(observation=Unbounded((n, size)), shape=(n,))}),
            output_spec=Composite(
                {task: Composite(action_value=Unbounded((n, actions)), shape=(n,))}
            ),
            agent_group=task,
            input_has_agent_dim=True,
            n_agents=n,
            centralised=False,
            share_params=True,
            device="cpu",
            action_spec=action_spec,
        )
        for task, (n, size, actions) in sizes.items()
    }


def action_specs(sizes: dict[str, tuple[int, int, int]]) -> Composite:
    return Composite(
        {
            task: Composite(action=Categorical(actions, shape=(n,)), shape=(n,))
            for task, (n, _, actions) in sizes.items()
        }
    )


def random_segments(
    agents: int, size: int, actions: int, state: int, batch: int = 3, steps: int = 4
) -> TensorDict:
    """Segments of one task with masks, terminations and legal actions, drawn from torch's RNG."""
    mask = torch.rand(batch, steps + 1, agents, actions) < 0.7
    mask[..., 0] = True
    draw = torch.rand(batch, steps, agents, actions).masked_fill(~mask[:, :-1], -1.0)
    return TensorDict(
        {
            "observation": torch.randn(batch, steps + 1, agents, size),
            "action_mask": mask,
            "state": torch.randn(batch, steps + 1, state),
            "action": draw.argmax(-1),
            "reward": torch.randn(batch, steps) * 3,
            "terminated": torch.rand(batch, steps) < 0.3,
            "active": torch.ones(batch, steps, dtype=torch.bool),
            "bootstrap": torch.ones(batch, steps, dtype=torch.bool),
            "teacher_values": torch.randn(batch, steps, agents, actions),
        },
        batch_size=[batch],
    )


def random_masked(mask: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Uniform available actions: [*B, A] to [*B]."""
    return torch.rand(mask.shape, generator=generator).masked_fill(~mask, -1.0).argmax(-1)


def command(*arguments: str, cwd: Path, store: Path) -> subprocess.CompletedProcess:
    """Run ``python ARGUMENTS`` in a fresh process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "BENCHMARL_MKT_STORE": str(store)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def hydra_overrides(folder: Path) -> list[str]:
    """``TINY`` as Hydra overrides, results under ``folder``."""
    values = {**TINY, "save_folder": str(folder)}
    texts = {True: "true", False: "false"}
    return [f"hydra.run.dir={folder}"] + [
        f"experiment.{key}={texts.get(value, value) if isinstance(value, bool) else value}"
        for key, value in values.items()
    ]


def team_state(env, data, task: str):
    """The state [*B, S] of a task in a multi-task environment: its own, or its observations."""
    length = env.teams[task].state_length
    if length is None:
        return data["state", task]
    return data[task, "observation"][..., :length].flatten(-2)


def play_as_torchrl(experiment: Experiment, episodes: int, seed: int) -> Episodes:
    """Play with the experiment's own policy, whose hidden states TorchRL's transforms carry."""
    task, model = experiment.task, experiment.model_config
    env = task.get_env_fun(episodes, continuous_actions=False, seed=0, device="cpu")()
    if model.is_rnn:
        env = _add_rnn_transforms(lambda: env, env.group_map, model)()
    with contextlib.closing(env):
        return play_on(env, experiment.policy, episodes, seed)
