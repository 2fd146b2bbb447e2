"""Mixers: from the agents' chosen values and the task's state to one team value (Eq. 4)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class MultiTaskMixer(nn.Module):
    r"""QMIX over several tasks: per-task state embedding SE_k, shared hypernetworks (Eq. 4).

    .. math::
        Q_{tot} = |W_2(z)|^\top \mathrm{elu}(|W_1(z)|^\top q + b_1(z)) + b_2(z), \quad z = SE_k(s)

    The hypernetworks W_1 and W_2 have two layers; b_1 is linear and b_2 has two layers, as in
    QMIX (`arXiv:1803.11485 <https://arxiv.org/abs/1803.11485>`_). Absolute weights make Q_tot
    monotone in every agent's value. All four read the same z, so their first layers are one
    product, ``first``; ``second_*`` are the second layers.

    Args:
        state_sizes: task -> size S_k of its state.
        n_agents: number of agents, the same for all tasks.
        mixing_embed_dim: hidden units of the mixing network (paper's Table III: 32).
        state_embed_dim: size of SE_k's output (32).
        hypernet_embed_dim: hidden units of the hypernetworks (64).
    """

    def __init__(
        self,
        state_sizes: Mapping[str, int],
        n_agents: int,
        mixing_embed_dim: int = 32,
        state_embed_dim: int = 32,
        hypernet_embed_dim: int = 64,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        self.n_agents, self.mixing_embed_dim = n_agents, mixing_embed_dim
        self._hidden = [hypernet_embed_dim, hypernet_embed_dim, mixing_embed_dim]
        linear, embed = nn.Linear, mixing_embed_dim
        self.state_embeddings = nn.ModuleDict(
            {task: linear(size, state_embed_dim) for task, size in state_sizes.items()}
        )
        self.first = linear(state_embed_dim, sum(self._hidden) + embed)
        self.second_w1 = linear(hypernet_embed_dim, n_agents * embed)
        self.second_w2 = linear(hypernet_embed_dim, embed)
        self.second_b2 = linear(embed, 1)
        self.to(device)

    def forward(self, task: str, values: Tensor, state: Tensor) -> Tensor:
        """Mix values [*B, n_agents] in the state [*B, S_k] of ``task`` into [*B]."""
        rows = values.reshape(-1, self.n_agents, 1)  # [M, N, 1]
        z = torch.relu(self.state_embeddings[task](state.reshape(-1, state.shape[-1])))
        hyper, b1 = self.first(z).split([sum(self._hidden), self.mixing_embed_dim], -1)
        for_w1, for_w2, for_b2 = torch.relu(hyper).split(self._hidden, -1)
        w1 = self.second_w1(for_w1).abs().view(-1, self.n_agents, self.mixing_embed_dim)
        hidden = nn.functional.elu((rows * w1).sum(1) + b1)  # [M, embed]
        total = (hidden * self.second_w2(for_w2).abs()).sum(-1) + self.second_b2(for_b2).squeeze(-1)
        return total.view(values.shape[:-1])


class VdnMixer(nn.Module):
    """VDN (`arXiv:1706.05296 <https://arxiv.org/abs/1706.05296>`_): the sum of the values."""

    def forward(self, task: str, values: Tensor, state: Tensor) -> Tensor:
        """Sum values [*B, n_agents] into [*B]; the state is not used."""
        return values.sum(-1)
