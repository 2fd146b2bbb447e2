"""Battles won: where environments say so, and the rate of them."""

from __future__ import annotations

from tensordict import TensorDictBase
from torch import Tensor

WON = ("info", "battle_won")  # of one task: bool [*B], as BenchMARL's SMACv2 has it
TEAMS_WON = "won"  # of several tasks: (TEAMS_WON, task), bool [*B, 1]


def won(steps: TensorDictBase, task: str) -> Tensor | None:
    """Whether the battle of ``task`` was won by each step of a rollout, of one task or of several.

    bool [*B]; None if the task knows no victory.
    """
    after = steps.get("next")
    if TEAMS_WON not in after.keys():
        return after.get(WON, None)
    flags = after.get((TEAMS_WON, task), None)
    return None if flags is None else flags.squeeze(-1)


def win_rate(batch: TensorDictBase, name: str, key: tuple[str, ...]) -> dict[str, float]:
    """The share of ``key`` [*B] or [*B, 1] among the steps that end an episode, if any, by name."""
    ended = batch.get(("next", "done")).squeeze(-1)
    if not ended.any():
        return {}
    return {name: batch.get(key).view(ended.shape)[ended].float().mean().item()}
