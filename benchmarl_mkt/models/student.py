"""Agents and mixer of all tasks in one module: what the loss trains and its target copies."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from benchmarl.models import Gru
from benchmarl.models.common import Model
from tensordict import TensorDictBase
from torch import Tensor, nn

from benchmarl_mkt.models.entity import EntityModel
from benchmarl_mkt.models.multitask import MultiTaskModel, Trunk, network_outputs


class StudentNetwork(nn.Module):
    """The student team: E_k and EA_k of every task, the shared trunk F once, and the mixer.

    Args:
        agents: task -> the agents' network; all have the same trunk object.
        mixer: called with (task, values [*B, N], state [*B, S]), gives [*B].

    Raises:
        ValueError: if the networks do not share one trunk.
    """

    def __init__(self, agents: Mapping[str, MultiTaskModel], mixer: nn.Module):
        super().__init__()
        first, *others = agents.values()
        if any(agent.trunk is not first.trunk for agent in others):
            raise ValueError("agents: the networks of a student must share one trunk")
        self.embeddings = nn.ModuleDict({task: net.embedding for task, net in agents.items()})
        self.trunk, self.activate = first.trunk, first.activate
        self.heads = nn.ModuleDict({task: net.head for task, net in agents.items()})
        self.parts = nn.ModuleDict()  # of entity networks, which share them
        for net in agents.values():
            if isinstance(net, EntityModel):
                self.parts.update(net.parts)
        self.mixer = mixer

    def forward(
        self, observations: Mapping[str, Tensor], is_init: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Map each task's observations [*B, N, D] to its action values [*B, N, A] (Eq. 1-2)."""
        trunk = self.trunk if is_init is None else whole_sequences(self.trunk, is_init)
        parts = self.embeddings, trunk, self.heads
        return network_outputs(*parts, observations, is_init, self.activate)


def whole_sequences(trunk: Model, is_init: Tensor) -> Trunk:
    """Return what computes as ``trunk`` does, on whole sequences at once where that is possible.

    BenchMARL's GRU steps through time, as an episode may start at any step. Where none starts
    after the first step (``is_init`` [B, T, 1]), torch's own GRU gives the same in one call.
    """
    if not isinstance(trunk, Gru) or trunk.dropout or trunk.compile or is_init[:, 1:].any():
        return trunk
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if trunk.bias else 2]
    layers = [trunk.gru.params["grus", str(layer)] for layer in range(trunk.n_layers)]
    weights = [layer[name] for layer in layers for name in names]
    (in_key,) = (key for key in trunk.in_keys if key not in trunk.rnn_keys)

    def at_once(data: TensorDictBase) -> TensorDictBase:
        rows = data.get(in_key).squeeze(2)  # [B, T, e]
        state = rows.new_zeros(trunk.n_layers, len(rows), trunk.hidden_size)
        flags = trunk.bias, trunk.n_layers, 0.0, trunk.training, False, True
        output, _ = torch.gru(rows, state, weights, *flags)
        return data.set(trunk.out_key, trunk.mlp(output.unsqueeze(2)))

    return at_once
