"""What a built-in algorithm learns from of its team's part in the rounds: its own episodes."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torchrl.envs import Transform


class OwnEpisode(Transform):
    """Shows one team its own episodes in what BenchMARL samples from the team's replay buffer.

    BenchMARL's QMIX and VDN take an episode's end from the root, where it is the round's: they get
    the team's own. Steps in which the team has idled teach nothing: in a minibatch [B] of single
    steps its own steps, repeated in turn, stand in their place. Sequences (recurrent models) and
    minibatches of idle steps alone are left as they are but for the ends.
    """

    def __init__(self, group: str):
        super().__init__()
        self.group = group

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        after = tensordict.get("next")
        for flag in ("done", "terminated", "truncated"):
            after.set(flag, after.get((self.group, flag)).any(-2))
        active = tensordict.get(("active", self.group)).squeeze(-1)
        if active.ndim > 1 or active.all() or not active.any():
            return tensordict
        own = active.nonzero().squeeze(-1)
        rows = torch.arange(len(active), device=active.device)
        rows[~active] = own.repeat(-(-len(active) // len(own)))[: len(active) - len(own)]
        return tensordict[rows]
