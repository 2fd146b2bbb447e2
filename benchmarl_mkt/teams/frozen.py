"""A frozen team of one task: observations to values and greedy actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from benchmarl.models.common import Model, ModelConfig
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.data import Categorical, Composite, Unbounded

from benchmarl_mkt.models.actions import greedy_actions
from benchmarl_mkt.models.layout import EntityLayout, described
from benchmarl_mkt.teams.folder import TeamSpecs


class FrozenTeam(TensorDictModuleBase):
    """The N agents of one task, with the weights that they have; batch dimensions [*B] are free.

    As a module of TensorDict's it acts greedily: it reads ``observation`` [*B, N, D] and
    ``action_mask`` [*B, N, A] (bool, true where an action is available) and writes
    ``action_value`` (or ``logits``) [*B, N, A] and ``action`` [*B, N] (integers). What an
    observation is, zero padding and agent id included, says
    :class:`~benchmarl_mkt.environments.Team`. Called with a tensor of observations it gives the
    values alone (:meth:`values`).

    A recurrent team acts one step at a time. It also reads ``is_init`` [*B, 1] (bool, true in an
    episode's first step, when the states are not used) and its hidden states, zeros if they are
    left out, and writes the new ones under ``next``; the shapes are in :attr:`state_shapes`.

    Args:
        model: the agents' BenchMARL model.
        config: its configuration.
        metadata: content of ``teacher.json``.
        path: where it came from.
    """

    def __init__(
        self, model: Model, config: ModelConfig, metadata: dict[str, Any], path: Path | None = None
    ):
        super().__init__()
        self.model, self.config, self.metadata, self.path = model, config, metadata, path
        self.specs = TeamSpecs(**metadata["specs"])
        spec = config.get_model_state_spec()
        self.state_shapes: dict[str, tuple[int, ...]] = {
            key: (self.specs.n_agents, *leaf.shape) for key, leaf in spec.items()
        }
        self.out_key = model.out_key[-1]
        states = ["is_init", *self.state_shapes] if self.state_shapes else []
        self.in_keys = ["observation", "action_mask", *states]
        new_states = [("next", key) for key in self.state_shapes]
        self.out_keys = [self.out_key, "action", *new_states]

    @property
    def is_recurrent(self) -> bool:
        """Whether the team remembers."""
        return bool(self.state_shapes)

    @property
    def kind(self) -> str:
        """What the outputs are: ``values`` (QMIX, VDN, IQL) or ``logits`` (MAPPO, IPPO)."""
        return self.metadata["kind"]

    @property
    def score(self) -> dict[str, float]:
        """Return over fresh episodes: mean, low and high of the 95 % interval, episodes."""
        return self.metadata["score"]

    @property
    def temperature(self) -> float:
        """The calibrated temperature of Eq. 3 (see :func:`calibrated_temperature`)."""
        return float(self.metadata["temperature"])

    def forward(
        self, data: TensorDictBase | Tensor, is_init: Tensor | None = None
    ) -> TensorDictBase | Tensor:
        """Write values, actions and new hidden states; of a tensor, return :meth:`values`.

        Raises:
            ValueError: if an entry is missing or has another size than the team was trained with.
        """
        if isinstance(data, Tensor):
            return self.values(data, is_init)
        observation, mask = (self._entry(data, key) for key in self.in_keys[:2])
        given = ((key, data.get(key, None)) for key in self.in_keys[2:])
        states = {key: value for key, value in given if value is not None}
        for key, value in self.act(observation, mask, states).items():
            data.set(key, value)
        return data

    @torch.no_grad()
    def values(self, observation: Tensor, is_init: Tensor | None = None) -> Tensor:
        """Map observations [*B, N, D] to values or logits [*B, N, A].

        A recurrent team needs whole sequences [B, T, N, D] and ``is_init`` [B, T, 1], true in
        the first step of each episode; it starts from zeros.
        """
        own = next(self.parameters()).device
        team = TensorDict({"observation": observation.to(own)}, observation.shape[:-1])
        data = TensorDict({self.model.agent_group: team}, observation.shape[:-2])
        if is_init is not None:
            data.set("is_init", is_init.to(own))
        return self.model(data).get(self.model.out_key).to(observation.device)

    @torch.no_grad()
    def act(
        self, observation: Tensor, mask: Tensor, states: dict[str, Tensor]
    ) -> dict[str | tuple[str, str], Tensor]:
        """Compute :attr:`out_keys` from tensors; ``states`` holds ``is_init`` and hidden states.

        States that are left out are zeros, ``is_init`` is false then. The network may be on another
        device.
        """
        group, device = self.model.agent_group, next(self.parameters()).device
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
        new_states = {("next", key): data.get(("next", group, key)) for key in hidden}
        return {self.out_key: values, "action": greedy_actions(values, mask), **new_states}

    def _entry(self, data: TensorDictBase, key: str) -> Tensor:
        size = self.specs.observation_size if key == "observation" else self.specs.n_actions
        expected = (self.specs.n_agents, size)
        entry = data.get(key, None)
        if entry is None or tuple(entry.shape[-2:]) != expected:
            given = "missing" if entry is None else f"{list(entry.shape)}"
            raise ValueError(
                f"{key}: {given}, but the team of {self.metadata['task']['tasks'][0]['task']} "
                f"needs [*B, {expected[0]}, {expected[1]}]"
            )
        return entry


def build_model(
    config: ModelConfig,
    specs: TeamSpecs,
    kind: str,
    share_params: bool = True,
    layout: EntityLayout | None = None,
) -> Model:
    """Build the agents' network of a team, as BenchMARL's algorithms build theirs."""
    out = "action_value" if kind == "values" else "logits"
    agents = (specs.n_agents,)
    seen = Composite(observation=Unbounded((*agents, specs.observation_size)), shape=agents)
    values = Unbounded((*agents, specs.n_actions))
    action = Categorical(specs.n_actions, shape=agents)
    return config.get_model(
        input_spec=Composite(team=seen if layout is None else described(seen, layout)),
        output_spec=Composite(team=Composite({out: values}, shape=agents)),
        agent_group="team",
        input_has_agent_dim=True,
        n_agents=specs.n_agents,
        centralised=False,
        share_params=share_params,
        device="cpu",
        action_spec=Composite(team=Composite(action=action, shape=agents)),
    )


def calibrated_temperature(values: Tensor, mask: Tensor, kind: str) -> float:
    """Choose t of Eq. 3 from what a teacher shows: its mean gap between best and second best.

    Values of trained teachers lie so close together that softmax(Q_T) at t = 1 is almost uniform;
    divided by the mean gap, the best action is on average e times as likely as the second. Logits
    are a policy already: t = 1.

    Args:
        values: outputs [M, n_actions] in visited states.
        mask: available actions [M, n_actions].
        kind: ``values`` or ``logits``.
    """
    if kind == "logits":
        return 1.0
    choosing = mask.sum(-1) > 1
    best = values.masked_fill(~mask, -torch.inf)[choosing].topk(2, -1).values
    gap = (best[:, 0] - best[:, 1]).mean().item() if len(best) else 1.0
    return max(gap, 1e-6)
