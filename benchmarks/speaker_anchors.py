"""What scripted listeners earn on simple_speaker_listener, as marks for what teams have learned.

    python benchmarks/speaker_anchors.py

One goes to the centroid of the three landmarks and so does without the speaker; one knows the goal,
as after a perfect message.
"""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
import torch
from train_chaser import steer

from benchmarl_mkt.environments.mpe import MpeEnv
from benchmarl_mkt.statistics import mean_interval


def earned(listener: str, episodes: int, seed: int) -> np.ndarray:
    """Return the returns [episodes] with a listener that goes to ``centroid`` or ``goal``."""
    env = MpeEnv("simple_speaker_listener", episodes, seed=seed)
    leaves = env.reset_leaves(None)
    silent = torch.zeros(episodes, 1, dtype=torch.long)
    returns = np.zeros(episodes)
    for _ in range(env.max_cycles):
        seen = leaves["listener", "observation"][:, 0].numpy()  # velocity, landmarks, message
        landmarks = seen[:, 2:8].reshape(-1, 3, 2)
        goal = landmarks[np.arange(episodes), env.games.goal - 2]  # landmarks come after the agents
        target = landmarks.mean(1) if listener == "centroid" else goal
        moves = torch.from_numpy(steer(target, seen[:, :2]))[:, None]
        leaves = env.step_leaves({("speaker", "action"): silent, ("listener", "action"): moves})
        returns += sum(leaves[group, "reward"].sum((1, 2)).numpy() for group in env.group_map)
    return returns


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found = {
        listener: mean_interval(earned(listener, arguments.episodes, arguments.seed))._asdict()
        for listener in ("centroid", "goal")
    }
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
