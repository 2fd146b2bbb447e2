"""One episode of every task with a trained team, side by side as one animated GIF."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torchrl.envs.utils import step_mdp

from benchmarl_mkt.rendering.scenes import picture
from benchmarl_mkt.teams import team_task
from benchmarl_mkt.teams.evaluation import greedy_policy
from benchmarl_mkt.teams.frozen import FrozenTeam

_CAPTION, _GAP, _COLUMNS = 40, 6, 4
_STEP, _HOLD = 120, 1500  # milliseconds a picture stays; the last one's


@dataclass
class Episode:
    """One episode of one task: pictures, uint8 [H, W, 3], and at each the return so far.

    The first is of the start, the others are of what follows every step.
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
    policy = greedy_policy(team)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        data, taken = env.reset(), 0
        episodes = {name: Episode([picture(own.env)], [0.0]) for name, own in env.teams.items()}
        while taken != steps and not data["done"].item():
            active = [name for name in episodes if data["active", name]]
            after = env.step(policy(data))
            for name in active:
                reward = after["next", name, "reward"][0, 0, 0].item()
                episodes[name].frames.append(picture(env.teams[name].env))
                episodes[name].returns.append(episodes[name].returns[-1] + reward)
            data, taken = step_mdp(after), taken + 1
    env.close()
    return episodes


def write_gif(episodes: Mapping[str, Episode], path: Path) -> Path:
    """Write one panel per task, with its name and its return so far; it repeats for ever.

    An episode that is over shows its last picture. Panels have the size of the first task's.
    """
    length = max(len(episode.frames) for episode in episodes.values())
    pages = [_page(episodes, step) for step in range(length)]
    palette = pages[-1].quantize(128)
    frames = [page.quantize(palette=palette, dither=Image.Dither.NONE) for page in pages]
    path.parent.mkdir(parents=True, exist_ok=True)
    duration = [_STEP] * (length - 1) + [_HOLD]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0)
    return path


def _page(episodes: Mapping[str, Episode], step: int) -> Image.Image:
    height, width = next(iter(episodes.values())).frames[0].shape[:2]
    columns = min(len(episodes), _COLUMNS)
    rows = -(-len(episodes) // columns)
    across, down = width + _GAP, _CAPTION + height + _GAP
    page = Image.new("RGB", (columns * across + _GAP, rows * down + _GAP), (221, 225, 230))
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    for place, (task, episode) in enumerate(episodes.items()):
        now = min(step, len(episode.frames) - 1)
        x, y = _GAP + place % columns * across, _GAP + place // columns * down
        panel = Image.fromarray(episode.frames[now])
        if panel.size != (width, height):
            panel = panel.resize((width, height), Image.Resampling.LANCZOS)
        page.paste(panel, (x, y + _CAPTION))
        pen.text((x + 4, y + 2), task, "black", font)
        pen.text((x + 4, y + 20), f"step {now}   return {episode.returns[now]:.2f}", "black", font)
    return page
