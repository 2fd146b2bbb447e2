"""Agents and mixer of all tasks in one module: what the loss trains and its target copies."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from benchmarl_mkt.models.multitask import MultiTaskModel, network_outputs
from benchmarl_mkt.models.sequences import whole_sequences


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
        if len({id(agent.trunk) for agent in agents.values()}) != 1:
            raise ValueError("agents: the networks of a student must share one trunk")
        self.embeddings = nn.ModuleDict({task: net.embedding for task, net in agents.items()})
        self.trunk = next(iter(agents.values())).trunk
        self.activate = next(iter(agents.values())).activate
        self.heads = nn.ModuleDict({task: net.head for task, net in agents.items()})
        self.mixer = mixer

    def forward(
        self, observations: Mapping[str, Tensor], is_init: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Map each task's observations [*B, N, D] to its action values [*B, N, A] (Eq. 1-2)."""
        parts = self.embeddings, whole_sequences(self.trunk, is_init), self.heads
        return network_outputs(*parts, observations, is_init, self.activate)
