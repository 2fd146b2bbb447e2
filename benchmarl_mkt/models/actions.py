"""Actions from values and masks: greedy, random, epsilon-greedy, and what was chosen."""

from __future__ import annotations

import torch
from torch import Tensor


def greedy_actions(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Best available action of each agent: [*B, n_agents, n_actions] to [*B, n_agents]."""
    if mask is not None:
        values = torch.where(mask, values, -torch.inf)
    return values.argmax(-1)


def epsilon_greedy_actions(values: Tensor, mask: Tensor, eps: Tensor | float) -> Tensor:
    """Best available action of each agent or, with probability ``eps``, a uniformly random one.

    [*B, n_agents, n_actions], both, to [*B, n_agents].
    """
    at_random = torch.rand(values.shape[:-1], device=values.device) < eps
    scores = torch.rand(values.shape, device=values.device)
    return greedy_actions(torch.where(at_random.unsqueeze(-1), scores, values), mask)


def random_actions(mask: Tensor) -> Tensor:
    """Draw uniformly among the available actions: bool [*B, n_actions] to [*B]."""
    return torch.rand(mask.shape, device=mask.device).masked_fill(~mask, -1.0).argmax(-1)


def chosen_values(values: Tensor, actions: Tensor) -> Tensor:
    """Values [*B, n_agents, n_actions] of ``actions`` [*B, n_agents]: [*B, n_agents]."""
    return values.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
