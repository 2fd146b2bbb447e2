"""Battles won: where environments say so, and the rate of them."""

from __future__ import annotations

from tensordict import TensorDictBase
from torch import Tensor

WON = ("info", "battle_won")  # of one task: bool [*B], as BenchMARL's SMACv2 has it
TEAMS_WON = "won"  # of several tasks: (TEAMS_WON, task), bool [*B, 1]


def won(steps: TensorDictBase, task: str) -> Tensor | None:
    """Whether the battle of ``task`` was won by each of the steps: bool [*B].

    None if the task knows no victory.

    Args:
        steps: what a rollout or a collector gives, of one task or of several.
        task: the agent group.
    """
    after = steps.get("next")
    if TEAMS_WON in after.keys():
        found = after.get((TEAMS_WON, task), None)
        return None if found is None else found.squeeze(-1)
    return after.get(WON, None)


def win_rate(batch: TensorDictBase, name: str, key: tuple[str, ...]) -> dict[str, float]:
    """The share of ``key`` [*B] or [*B, 1] among the steps of a batch that end an episode.

    Returns:
        It, as ``name``; nothing if no episode ended.
    """
    ended = batch.get(("next", "done")).squeeze(-1)
    if not ended.any():
        return {}
    return {name: batch.get(key).view(ended.shape)[ended].float().mean().item()}
