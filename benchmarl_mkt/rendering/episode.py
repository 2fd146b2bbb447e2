"""Playing one episode of every task with a trained team, and keeping its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torchrl.envs.utils import step_mdp

from benchmarl_mkt.rendering.scenes import picture
from benchmarl_mkt.teams import team_task
from benchmarl_mkt.teams.evaluation import greedy_policy
from benchmarl_mkt.teams.frozen import FrozenTeam


@dataclass
class Episode:
    """One episode of one task.

    Args:
        frames: pictures, uint8 [H, W, 3]: the start, then one after every step.
        returns: the return so far at each picture.
    """

    frames: list[np.ndarray] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)


@torch.no_grad()
def record(
    team: Mapping[str, FrozenTeam], seed: int = 0, steps: int | None = None
) -> dict[str, Episode]:
    """Play one greedy episode of every task: task -> its episode.

    With the same seed it is the first of the episodes that
    :func:`~benchmarl_mkt.teams.evaluate_team` plays with ``episodes=1``.

    Args:
        team: task -> its agents, see :func:`~benchmarl_mkt.teams.load_team`.
        seed: seed of the environments.
        steps: at most so many steps; None for the whole episode.

    Raises:
        ValueError: if a task cannot be drawn.
    """
    env = team_task(team).get_env_fun(1, continuous_actions=False, seed=seed, device="cpu")()
    policy, episodes = greedy_policy(team), {name: Episode() for name in env.teams}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        data, playing, taken = env.reset(), True, 0
        for name, episode in episodes.items():
            episode.frames.append(picture(env.teams[name].env))
            episode.returns.append(0.0)
        while playing and taken != steps:
            active = {name: bool(data["active", name]) for name in episodes}
            after = env.step(policy(data))
            for name, episode in episodes.items():
                if active[name]:
                    reward = after["next", name, "reward"][0, 0, 0].item()
                    episode.frames.append(picture(env.teams[name].env))
                    episode.returns.append(episode.returns[-1] + reward)
            data, taken = step_mdp(after), taken + 1
            playing = not data["done"].item()
    env.close()
    return episodes
