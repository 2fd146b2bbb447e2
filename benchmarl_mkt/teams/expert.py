"""An expert that was trained on a plain task: one network per agent group, seen as one team."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarl.models.common import Model
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from benchmarl_mkt.models.layout import EntityLayout
from benchmarl_mkt.models.serialisation import model_from_dict
from benchmarl_mkt.teams import onnx_expert
from benchmarl_mkt.teams.folder import TeamSpecs
from benchmarl_mkt.teams.frozen import FrozenTeam, build_model


class ExpertNetwork(nn.Module):
    """Networks of several agent groups, called as a team's one network is.

    A team's observation [*B, N, D] holds the groups' agents in a row, their observations first,
    then zero padding and agent ids (:class:`~benchmarl_mkt.environments.Team`). A group's network
    sees what it was trained on, its n agents' first d numbers. Its outputs [*B, n, a] are padded
    with zeros to [*B, N, A]; the padded actions are masked.

    Args:
        models: every group's network, in the team's order.
        groups: every group's sizes n, d, a.
        team: the team's sizes N, D, A.

    Raises:
        ValueError: if the groups do not make up the team.
    """

    agent_group = "team"

    def __init__(self, models: Sequence[Model], groups: Sequence[TeamSpecs], team: TeamSpecs):
        super().__init__()
        self.groups, self.team = list(groups), team
        longest = max((group.observation_size for group in groups), default=0)
        most = max((group.n_actions for group in groups), default=0)
        count = sum(group.n_agents for group in groups)
        if count != team.n_agents or longest > team.observation_size or most != team.n_actions:
            raise ValueError(f"its groups {self.groups} do not make up {team}")
        self.models = nn.ModuleList(models)
        self.out_key = models[0].out_key

    def forward(self, data: TensorDictBase) -> TensorDictBase:
        """Read ``(team, observation)`` [*B, N, D]; write values or logits [*B, N, A].

        Recurrent networks also read ``is_init`` and hidden states and write the new ones under
        ``next``, as BenchMARL's do.
        """
        parts = data.get(self.agent_group).split([g.n_agents for g in self.groups], -1)
        outputs = []
        for model, group, part in zip(self.models, self.groups, parts):
            rows = part.get("observation")[..., : group.observation_size]
            own = TensorDict({self.agent_group: part.copy().set("observation", rows)}, data.shape)
            if "is_init" in data.keys():
                own.set("is_init", data.get("is_init"))
            outputs.append(model(own))
        values = [padded(out.get(self.out_key), self.team.n_actions) for out in outputs]
        data.set(self.out_key, torch.cat(values, -2))
        after = [out.get(("next", self.agent_group), None) for out in outputs]
        for key in after[0].keys() if after[0] is not None else ():
            states = torch.cat([entries.get(key) for entries in after], data.ndim)
            data.set(("next", self.agent_group, key), states)
        return data


def own_network(model: nn.Module) -> nn.Module:
    """Return a team's network; an expert's of a task with one agent group without its wrapping."""
    one = isinstance(model, ExpertNetwork) and len(model.models) == 1
    return model.models[0] if one else model


def padded(values: Tensor, size: int) -> Tensor:
    """Values [*B, n, a] of a group with zeros for the actions that it does not have: [*B, n, A]."""
    return nn.functional.pad(values, (0, size - values.shape[-1]))


def build_network(metadata: Mapping[str, Any]) -> tuple[nn.Module, Any]:
    """Build the network that the metadata of a team's folder describes, and its configuration.

    Args:
        metadata: content of ``teacher.json``; of an expert, ``expert`` lists its groups.

    Raises:
        ImportError: if it needs a package that is not installed.
        ValueError, LookupError, TypeError: if the metadata describes none.
    """
    team, kind = TeamSpecs(**metadata["specs"]), metadata["kind"]
    fields = dict(metadata["model"])
    if fields.get("name") == onnx_expert.NAME:
        del fields["name"]
        onnx = onnx_expert.OnnxConfig(**fields)
        return onnx_expert.OnnxNetwork(onnx, team, kind), onnx
    config, share = model_from_dict(fields), metadata["share_params"]
    if "expert" not in metadata:
        return build_model(config, team, kind, share, _layout_in(metadata)), config
    described = metadata["expert"]["groups"]
    groups = [
        TeamSpecs(**{key: group[key] for key in TeamSpecs.__dataclass_fields__})
        for group in described
    ]
    models = [
        build_model(config, group, kind, share, _layout_in(entry))
        for group, entry in zip(groups, described)
    ]
    return ExpertNetwork(models, groups, team), config


def _layout_in(metadata: Mapping[str, Any]) -> EntityLayout | None:
    return metadata.get("layout") and EntityLayout.from_dict(metadata["layout"])


def build_team(
    metadata: dict[str, Any], weights: Mapping[str, Tensor], path: Path | None = None
) -> FrozenTeam:
    """Build the frozen team that the metadata and weights of a team's folder describe.

    Raises:
        ImportError, ValueError, LookupError, TypeError: as :func:`build_network` does.
        RuntimeError: as :func:`load_weights` does.
    """
    network, config = build_network(metadata)
    load_weights(network, weights)
    return FrozenTeam(network.requires_grad_(False).eval(), config, metadata, path)


def load_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a network its weights; what a ``state_dict`` holds besides tensors stays its own.

    Raises:
        RuntimeError: if one is missing, unknown or has another shape.
    """
    own = network.state_dict()
    sizes = {key: value for key, value in own.items() if not isinstance(value, Tensor)}
    network.load_state_dict({**sizes, **weights})
