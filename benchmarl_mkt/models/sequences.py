"""A recurrent trunk over whole sequences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from benchmarl.models import Gru
from benchmarl.models.common import Model
from tensordict import TensorDictBase
from torch import Tensor

Trunk = Callable[[TensorDictBase], TensorDictBase]


def whole_sequences(trunk: Model, is_init: Tensor | None) -> Trunk:
    """Return what computes as ``trunk`` does, on whole sequences at once where that is possible.

    BenchMARL's GRU steps through time, as an episode may start at any step. Where none starts
    after the first step, torch's own GRU gives the same in one call.

    Args:
        trunk: a trunk of one agent, whose parameters are shared.
        is_init: for a recurrent one bool [B, T, 1], true in the first step of each episode.
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
