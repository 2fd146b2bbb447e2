"""Mixers: from the agents' chosen values and the task's state to one team value (Eq. 4)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchrl.modules import MLP

from benchmarl_mkt.models.entity import AgentsEncoder, EntityEncoder, Parts
from benchmarl_mkt.models.layout import EntityLayout

MIXERS = ("qmix", "vdn", "vdn_s", "attention", "none")
Sizes = Mapping[str, int]  # by task
_perceptron = partial(MLP, activation_class=nn.ReLU)


class Entities(NamedTuple):
    """What the states of tasks are made of, and the size of an entity's token.

    ``layouts`` has for a task the layout of a row, and how many rows, one after the other, are a
    state: one, or the agents' observations.
    """

    layouts: Mapping[str, tuple[EntityLayout, int]]
    token_size: int


class _StateMixer(nn.Module):
    """A mixer that reads the state z = SE_k(s) of size ``state_embed_dim``.

    SE_k is a linear layer of the task's own or, of a state whose entities are described, the
    embedding of :class:`~benchmarl_mkt.models.EntityModel`, with weights by type of entity, pooled
    as sets also where the agents read by attention.
    """

    reads_state = True

    def __init__(self, state_sizes: Sizes, state_embed_dim: int, entities: Entities | None = None):
        super().__init__()
        self.state_embeddings, part = nn.ModuleDict(), Parts({})
        for task, size in state_sizes.items():
            if entities and task in entities.layouts:
                layout, rows = entities.layouts[task]
                encoder = EntityEncoder(layout, part, entities.token_size, state_embed_dim)
                self.state_embeddings[task] = AgentsEncoder(encoder, rows)
            else:
                self.state_embeddings[task] = nn.Linear(size, state_embed_dim)
        self.parts = part.modules

    def embedded(self, task: str, state: Tensor) -> Tensor:
        """Return the rows z [M, state_embed_dim] of states [*B, S_k]."""
        return torch.relu(self.state_embeddings[task](state.reshape(-1, state.shape[-1])))


class MultiTaskMixer(_StateMixer):
    r"""QMIX over several tasks: per-task state embedding SE_k, shared hypernetworks (Eq. 4).

    .. math::
        Q_{tot} = |W_2(z)|^\top \mathrm{elu}(|W_1(z)|^\top q + b_1(z)) + b_2(z), \quad z = SE_k(s)

    The hypernetworks W_1 and W_2 have two layers; b_1 is linear and b_2 has two layers, as in
    QMIX (`arXiv:1803.11485 <https://arxiv.org/abs/1803.11485>`_). Absolute weights make Q_tot
    monotone in every agent's value. All four read the same z, so their first layers are one
    product, ``first``; ``second_*`` are the second layers.

    Args:
        state_sizes: task -> size S_k of its state.
        n_agents: number of agents N, the same for all tasks.
        mixing_embed_dim: hidden units of the mixing network (paper's Table III: 32).
        state_embed_dim: size of SE_k's output (32).
        hypernet_embed_dim: hidden units of the hypernetworks (64).
        entities: the states whose entities are described.
    """

    def __init__(
        self,
        state_sizes: Sizes,
        n_agents: int,
        mixing_embed_dim: int = 32,
        state_embed_dim: int = 32,
        hypernet_embed_dim: int = 64,
        entities: Entities | None = None,
    ):
        super().__init__(state_sizes, state_embed_dim, entities)
        self.n_agents, self.mixing_embed_dim = n_agents, mixing_embed_dim
        self._hidden = [hypernet_embed_dim, hypernet_embed_dim, mixing_embed_dim]
        self.first = nn.Linear(state_embed_dim, sum(self._hidden) + mixing_embed_dim)
        self.second_w1 = nn.Linear(hypernet_embed_dim, n_agents * mixing_embed_dim)
        self.second_w2 = nn.Linear(hypernet_embed_dim, mixing_embed_dim)
        self.second_b2 = nn.Linear(mixing_embed_dim, 1)

    def forward(self, task: str, values: Tensor, state: Tensor) -> Tensor:
        """Mix values [*B, n_agents] in the state [*B, S_k] of ``task`` into [*B]."""
        rows = values.reshape(-1, self.n_agents, 1)  # [M, N, 1]
        first = self.first(self.embedded(task, state))
        hyper, b1 = first.split([sum(self._hidden), self.mixing_embed_dim], -1)
        for_w1, for_w2, for_b2 = torch.relu(hyper).split(self._hidden, -1)
        w1 = self.second_w1(for_w1).abs().view(-1, self.n_agents, self.mixing_embed_dim)
        hidden = nn.functional.elu((rows * w1).sum(1) + b1)  # [M, embed]
        total = (hidden * self.second_w2(for_w2).abs()).sum(-1) + self.second_b2(for_b2).squeeze(-1)
        return total.view(values.shape[:-1])


class VdnMixer(nn.Module):
    """VDN (`arXiv:1706.05296 <https://arxiv.org/abs/1706.05296>`_): the sum of the values."""

    reads_state = False

    def forward(self, task: str, values: Tensor, state: Tensor | None) -> Tensor:
        """Sum values [*B, n_agents] into [*B]; the state is not used."""
        return values.sum(-1)


class VdnStateMixer(_StateMixer):
    r"""VDN-S (`arXiv:1803.11485 <https://arxiv.org/abs/1803.11485>`_, 6.2): VDN and a state value.

    .. math:: Q_{tot} = \sum_i q_i + V(z), \quad z = SE_k(s)

    V, of two hidden layers of ``hypernet_embed_dim`` units, is shared by the tasks; teams may be of
    any sizes. The other arguments are those of :class:`MultiTaskMixer`.
    """

    def __init__(
        self,
        state_sizes: Sizes,
        state_embed_dim: int = 32,
        hypernet_embed_dim: int = 64,
        entities: Entities | None = None,
    ):
        super().__init__(state_sizes, state_embed_dim, entities)
        self.value = _perceptron(state_embed_dim, 1, num_cells=[hypernet_embed_dim] * 2)

    def forward(self, task: str, values: Tensor, state: Tensor) -> Tensor:
        """Mix values [*B, N_k] in the state [*B, S_k] of ``task`` into [*B]."""
        value = self.value(self.embedded(task, state))
        return values.sum(-1) + value.view(values.shape[:-1])


class AttentionMixer(_StateMixer):
    r"""Teams of any sizes under shared weights: attention of the state over the agents.

    .. math::
        Q_{tot} = \sum_h |w_h(z)| \sum_i \lambda_{h,i}(z) \, q_i + c(z), \quad
        \lambda_{h,\cdot}(z) = softmax_i (query_h(z)^\top key_h(u_{k,i}) / \sqrt{d}), \quad
        z = SE_k(s)

    The form is Qatten's (`arXiv:2002.03939 <https://arxiv.org/abs/2002.03939>`_). Only SE_k and
    the agents' vectors u_{k,i} are a task's own; query, key, w and c are shared. Monotone in every
    agent's value.

    Args:
        state_sizes: as ``entities``, see :class:`MultiTaskMixer`.
        team_sizes: task -> number of agents N_k.
        state_embed_dim: size d of SE_k's output and of the agents' vectors.
        hypernet_embed_dim: hidden units of w and c.
        heads: number of attention heads H.
    """

    def __init__(
        self,
        state_sizes: Sizes,
        team_sizes: Sizes,
        state_embed_dim: int = 32,
        hypernet_embed_dim: int = 64,
        heads: int = 4,
        entities: Entities | None = None,
    ):
        super().__init__(state_sizes, state_embed_dim, entities)
        self.heads, dim = heads, state_embed_dim
        self.agents = nn.ParameterDict(
            {task: nn.Parameter(torch.randn(size, dim)) for task, size in team_sizes.items()}
        )
        self.query, self.key = nn.Linear(dim, heads * dim), nn.Linear(dim, heads * dim)
        self.weight = _perceptron(dim, heads, num_cells=[hypernet_embed_dim])
        self.bias = _perceptron(dim, 1, num_cells=[hypernet_embed_dim])

    def forward(self, task: str, values: Tensor, state: Tensor) -> Tensor:
        """Mix values [*B, N_k] in the state [*B, S_k] of ``task`` into [*B]."""
        rows = values.reshape(-1, values.shape[-1])  # [M, N]
        z = self.embedded(task, state)
        query = self.query(z).unflatten(-1, (self.heads, -1))  # [M, H, d]
        key = self.key(self.agents[task]).unflatten(-1, (self.heads, -1))  # [N, H, d]
        attention = torch.einsum("mhd,nhd->mhn", query, key / query.shape[-1] ** 0.5).softmax(-1)
        heads = torch.einsum("mhn,mn->mh", attention, rows)
        total = (self.weight(z).abs() * heads).sum(-1) + self.bias(z).squeeze(-1)
        return total.view(values.shape[:-1])


class IndependentMixer(nn.Module):
    """No mixing: every agent learns from its own value, as independent Q-learners do."""

    reads_state = False

    def forward(self, task: str, values: Tensor, state: Tensor | None) -> Tensor:
        """Return the values [*B, n_agents] themselves; the state is not used."""
        return values


def make_mixer(
    kind: str,
    state_sizes: Sizes,
    team_sizes: Sizes,
    *,
    mixing_embed_dim: int,
    device: torch.device | str | None,
    **options: Any,
) -> nn.Module:
    """Return the mixer that ``kind``, one of ``MIXERS``, names; see the classes for the rest."""
    mixer: nn.Module
    if kind == "qmix":
        n_agents = next(iter(team_sizes.values()))
        mixer = MultiTaskMixer(state_sizes, n_agents, mixing_embed_dim, **options)
    elif kind == "vdn_s":
        mixer = VdnStateMixer(state_sizes, **options)
    elif kind == "attention":
        mixer = AttentionMixer(state_sizes, team_sizes, **options)
    else:
        mixer = VdnMixer() if kind == "vdn" else IndependentMixer()
    return mixer.to(device)
