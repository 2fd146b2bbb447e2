"""Scoring policies: whole episodes on fresh environments."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs.utils import ExplorationType, set_exploration_type, step_mdp

from benchmarl_mkt.environments import MultiTaskClass, MultiTaskEnv
from benchmarl_mkt.models.policy import random_actions

Policy = Callable[[TensorDictBase], TensorDictBase]


@torch.no_grad()
def episode_returns(
    env: MultiTaskEnv, policy: Policy, observer: Callable[[TensorDictBase], None] | None = None
) -> dict[str, Tensor]:
    """Play one round in every copy of ``env``: task -> team returns [num_envs].

    The policy acts deterministically where it can. ``observer`` sees the tensordict of every step
    after the policy acted.
    """
    returns = {task: torch.zeros(env.batch_size, device=env.device) for task in env.teams}
    playing = torch.ones(env.batch_size, dtype=torch.bool, device=env.device)
    data = env.reset()
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        while playing.any():
            data = policy(data)
            if observer is not None:
                observer(data)
            after = env.step(data)
            for task, total in returns.items():
                total += after.get(("next", task, "reward"))[:, 0, 0] * playing
            data = step_mdp(after)
            playing &= ~data.get("done").squeeze(-1)
    return returns


def random_policy(tasks: list[str]) -> Policy:
    """Return the policy that draws uniformly among the available actions."""

    def act(data: TensorDictBase) -> TensorDictBase:
        for task in tasks:
            data.set((task, "action"), random_actions(data.get((task, "action_mask"))))
        return data

    return act


def random_returns(task: MultiTaskClass, episodes: int, seed: int) -> dict[str, Tensor]:
    """Score uniformly random play: task -> returns [episodes]."""
    env = task.get_env_fun(episodes, continuous_actions=False, seed=seed, device="cpu")()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        returns = episode_returns(env, random_policy(list(env.teams)))
    env.close()
    return returns
