"""Temporal-difference learning of the team value (Eq. 5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarl_mkt.models.actions import (  # noqa: F401
    chosen_values,
    epsilon_greedy_actions,
    greedy_actions,
    random_actions,
)


def standardise_rewards(rewards: Tensor, mask: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Give the minibatch's rewards zero mean and unit (population) variance.

    Table III: "rewards standardised". Rewards and ``mask`` (true = counts) have the same shape;
    masked entries become zero.
    """
    if mask is None:
        return (rewards - rewards.mean()) / (rewards.std(correction=0) + eps)
    count = mask.sum().clamp(min=1)
    centred = rewards - torch.where(mask, rewards, 0.0).sum() / count
    centred = torch.where(mask, centred, 0.0)
    return centred / ((centred.square().sum() / count).sqrt() + eps)


def td_targets(rewards: Tensor, next_values: Tensor, terminated: Tensor, gamma: float) -> Tensor:
    r"""Eq. 5's target :math:`y = r + \gamma (1 - terminated) Q_{tot}^-(s', \cdot)`, all [*B]."""
    return rewards + gamma * next_values * (~terminated)


def lambda_targets(
    rewards: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    valid: Tensor,
    gamma: float,
    lmbda: float,
) -> Tensor:
    r"""Peng's Q(lambda): targets that look further than one step, over segments [B, T, ...].

    .. math::
        G_t = r_t + \gamma (1 - terminated_t) ((1 - \lambda) Q_{tot}^-(s_{t+1}) + \lambda G_{t+1})

    where step t + 1 is not ``valid`` (another episode, idle, or its own next observation lost) and
    in the last step, :math:`Q_{tot}^-(s_{t+1})` takes the place of the bracket. What is not valid
    does not reach what is; its own targets are of no use. Actions that explored are not cut off
    (`Peng and Williams 1996 <https://doi.org/10.1007/BF00114731>`_; with deep networks
    `arXiv:2103.00107 <https://arxiv.org/abs/2103.00107>`_). With ``lmbda`` 0 this is
    :func:`td_targets`, with 1 the return of the segment.
    """
    if lmbda == 0:
        return td_targets(rewards, next_values, terminated, gamma)
    discount = torch.full_like(rewards, gamma).masked_fill(terminated, 0.0)
    ahead = torch.zeros_like(rewards)  # what G_{t+1} counts in the bracket of step t
    ahead[:, :-1].masked_fill_(valid[:, 1:], lmbda)
    known = torch.where(valid, rewards + discount * (1 - ahead) * next_values, 0.0)
    # G_t = known_t + factor_t G_{t+1}: a product with all products of consecutive factors.
    factor = (discount * ahead).movedim(1, -1)  # [B, ..., T]
    rows = torch.ones(factor.shape[-1], factor.shape[-1], dtype=torch.bool, device=factor.device)
    before = nn.functional.pad(factor[..., :-1], (1, 0)).unsqueeze(-2)
    weights = torch.where(rows.triu(1), before, 1.0).cumprod(-1).triu()  # [B, ..., T, T]
    return (weights @ known.movedim(1, -1).unsqueeze(-1)).squeeze(-1).movedim(-1, 1)


def hysteretic_square(error: Tensor, hysteresis: float) -> Tensor:
    """Squared errors, target minus value; those below zero count ``hysteresis`` times.

    An agent then forgives its team mates' exploration (Matignon et al. 2007; with deep networks
    Omidshafiei et al. 2017, https://arxiv.org/abs/1703.06182). With 1 the plain square.
    """
    if hysteresis == 1.0:
        return error.square()
    return error.square() * torch.where(error < 0, hysteresis, 1.0)


def masked_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over the entries where ``mask`` is true; zero if there is none.

    What the mask hides may be anything: infinities and not-a-number do not show.
    """
    if mask is None:
        return values.mean()
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)
