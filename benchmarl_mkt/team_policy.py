"""A trained team of one task as a module of its own: observations to greedy actions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from benchmarl_mkt.models.actions import greedy_actions
from benchmarl_mkt.serialisation import model_from_dict

if TYPE_CHECKING:
    from benchmarl_mkt.teachers.load import Teacher


class TeamPolicy(TensorDictModuleBase):
    """Acts greedily for the N agents of one task; batch dimensions [*B] are free.

    Reads ``observation`` [*B, N, D] and ``action_mask`` [*B, N, A] (bool, true where an action is
    available); writes ``action_value`` (or ``logits``) [*B, N, A] and ``action`` [*B, N]
    (integers). What an observation is, zero padding and agent id included, says
    :class:`~benchmarl_mkt.environments.Team`.

    A recurrent team takes one step at a time. It also reads ``is_init`` [*B, 1] (bool, true in an
    episode's first step, when the states are not used) and its hidden states, zeros if they are
    left out, and writes the new ones under ``next``; the shapes are in :attr:`state_shapes`.

    Args:
        agents: the team of one task, see :func:`~benchmarl_mkt.teams.load_agents`.
    """

    def __init__(self, agents: Teacher):
        super().__init__()
        self.model, self.metadata, self.specs = agents.model, agents.metadata, agents.specs
        spec = model_from_dict(agents.metadata["model"]).get_model_state_spec()
        self.state_shapes: dict[str, tuple[int, ...]] = {
            key: (self.specs.n_agents, *leaf.shape) for key, leaf in spec.items()
        }
        self.out_key = self.model.out_key[-1]
        states = ["is_init", *self.state_shapes] if self.state_shapes else []
        self.in_keys = ["observation", "action_mask", *states]
        self.out_keys = [
            *(self.out_key, "action"),
            *(("next", key) for key in self.state_shapes),
        ]

    @property
    def is_recurrent(self) -> bool:
        """Whether the team remembers."""
        return bool(self.state_shapes)

    @torch.no_grad()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write values, actions and new hidden states.

        Raises:
            ValueError: if an entry is missing or has another size than the team was trained with.
        """
        observation, mask = (self._entry(tensordict, key) for key in self.in_keys[:2])
        given = ((key, tensordict.get(key, None)) for key in self.in_keys[2:])
        states = {key: value for key, value in given if value is not None}
        for key, value in self.act(observation, mask, states).items():
            tensordict.set(key, value)
        return tensordict

    def act(
        self, observation: Tensor, mask: Tensor, states: dict[str, Tensor]
    ) -> dict[str | tuple[str, str], Tensor]:
        """Compute :attr:`out_keys` from tensors; ``states`` holds ``is_init`` and hidden states.

        States that are left out are zeros, ``is_init`` is false then. The network may be on another
        device.
        """
        group, device = self.model.agent_group, next(self.model.parameters()).device
        *batch, _, _ = observation.shape
        hidden = {
            key: states[key] if key in states else observation.new_zeros(*batch, *shape)
            for key, shape in self.state_shapes.items()
        }
        team = TensorDict({"observation": observation, **hidden}, observation.shape[:-1])
        data = TensorDict({group: team}, batch)
        if self.is_recurrent:
            never = torch.zeros(*batch, 1, dtype=torch.bool, device=observation.device)
            data.set("is_init", states.get("is_init", never))
        data = self.model(data.to(device)).to(observation.device)
        values = data.get(self.model.out_key)
        return {
            self.out_key: values,
            "action": greedy_actions(values, mask),
            **{("next", key): data.get(("next", group, key)) for key in hidden},
        }

    def _entry(self, tensordict: TensorDictBase, key: str) -> Tensor:
        size = self.specs.observation_size if key == "observation" else self.specs.n_actions
        expected = (self.specs.n_agents, size)
        entry = tensordict.get(key, None)
        if entry is None or tuple(entry.shape[-2:]) != expected:
            found = "missing" if entry is None else f"{list(entry.shape)}"
            raise ValueError(
                f"{key}: {found}, but the team of {self.metadata['task']['tasks'][0]['task']} "
                f"needs [*B, {expected[0]}, {expected[1]}]"
            )
        return entry
