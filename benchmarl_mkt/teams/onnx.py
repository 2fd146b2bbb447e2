"""A trained team as one ONNX file, for places without torch or Python."""

from __future__ import annotations

import json
import logging
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from benchmarl.models import Mlp
from torch import Tensor, nn

from benchmarl_mkt.models.actions import greedy_actions
from benchmarl_mkt.models.entity import EntityEncoder, EntityModel
from benchmarl_mkt.models.multitask import MultiTaskModel, embed
from benchmarl_mkt.teams.expert import ExpertNetwork, own_network, padded
from benchmarl_mkt.teams.frozen import FrozenTeam
from benchmarl_mkt.teams.onnx_expert import OnnxNetwork

_PACKAGES = ("onnx", "onnxscript")


def export_policy(policy: FrozenTeam, path: str | Path) -> Path:
    """Write a team's policy of one task as ONNX.

    Inputs, with a batch dimension B of any size: ``observation`` float32 [B, N, D] and
    ``action_mask`` bool [B, N, A]. Outputs: ``action_value`` (or ``logits``) float32 [B, N, A] and
    ``action`` int64 [B, N], the best available one. A team that came as an ONNX file is
    written as it came.

    Args:
        policy: one of :func:`~benchmarl_mkt.teams.load_team`'s.
        path: the file, ``.onnx``; one that is there is replaced.

    Raises:
        ImportError: if onnx or onnxscript is not installed.
        ValueError: if the path does not end with .onnx, or :func:`plain_network` refuses the
            network.
    """
    path = _checked(path)
    if isinstance(policy.model, OnnxNetwork):  # it is the file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(policy.model.content.cpu().numpy().tobytes())
        return path
    specs, batch = policy.specs, torch.export.Dim("batch")
    inputs = {
        "observation": torch.zeros(2, specs.n_agents, specs.observation_size),
        "action_mask": torch.ones(2, specs.n_agents, specs.n_actions, dtype=torch.bool),
    }
    shapes = ({0: batch}, {0: batch})
    return _write(path, _Greedy(plain_network(policy.model)), inputs, shapes, policy.out_keys)


def export_entities(policy: FrozenTeam, path: str | Path) -> Path:
    """Write a network over entities as ONNX, for teams and lists of any sizes.

    Inputs: ``own`` float32 [B, N, numbers of its own]; for every type of entity, by its name,
    [B, N, entities, numbers]: those that the task's ``entity_layout`` keeps, then, where entities
    of a list may name these, how many do, and last 1 where the entity is there, else 0; at least
    one entity, which need not be there. Output:
    ``action_value`` (or ``logits``) [B, N, A] of the basic actions, then of those that target
    entities, list by list. The file's metadata has the layout, ``entity_layout``, as JSON.

    Args:
        policy: one of :func:`~benchmarl_mkt.teams.load_team`'s.
        path: as for :func:`export_policy`.

    Raises:
        ImportError: if onnx or onnxscript is not installed.
        ValueError: if the path does not end with .onnx, or the network is another one, reads agent
            ids, has no list of entities or no numbers of its own, or two of the names are one.
    """
    path, model = _checked(path), own_network(policy.model)
    encoder = getattr(model, "embedding", None)
    if (
        not isinstance(encoder, EntityEncoder)
        or not isinstance(model.trunk, Mlp)
        or encoder.reads_id
        or not (encoder.layout.own and encoder.layout.lists)
    ):
        raise ValueError(
            "export: only a network over entities (model=multitask_entity, without agent_id, with "
            "an mlp trunk) of a task that describes its own numbers and lists has free sizes"
        )
    layout, batch, agents = encoder.layout, torch.export.Dim("batch"), torch.export.Dim("agents")
    names = ["own", policy.out_key, *(entities.type for entities in layout.lists)]
    if len(set(names)) < len(names):
        raise ValueError(f"export: {names} name inputs and the output; give lists other types")
    inputs = {"own": torch.zeros(2, 3, sum(stop - start for start, stop in layout.own))}
    shapes = []
    for index, entities in enumerate(layout.lists):
        inputs[entities.type] = torch.ones(2, 3, 4 + index, encoder.list_size(index) + 1)
        shapes.append({0: batch, 1: agents, 2: torch.export.Dim(f"entities_{index}", min=1)})
    described = {"entity_layout": json.dumps(layout.to_dict())}
    free = ({0: batch, 1: agents}, tuple(shapes))
    return _write(path, _OfEntities(model), inputs, free, [policy.out_key], described)


def _checked(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if path.suffix != ".onnx" or path.is_dir():
        raise ValueError(f"out: {str(path)!r} must be a file that ends with .onnx")
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise ImportError(
            f"export: {' and '.join(missing)} not installed; pip install 'benchmarl-mkt[onnx]'"
        )
    return path


def _write(
    path: Path,
    network: nn.Module,
    inputs: dict[str, Tensor],
    shapes: tuple,
    outputs: list,
    described: dict[str, str] | None = None,
) -> Path:
    """Export a network; ``shapes`` says which of the inputs' dimensions are free."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it reports optional packages
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, on its own inner workings
        program = torch.onnx.export(
            network.eval(),
            tuple(inputs.values()),
            dynamo=True,
            verbose=False,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=shapes,
        )
    program.model.metadata_props.update(described or {})
    path.parent.mkdir(parents=True, exist_ok=True)
    program.save(str(path), external_data=False)
    return path


def plain_network(model: nn.Module) -> nn.Module:
    """Return the same network without tensordicts: observations [*B, N, D] to [*B, N, A].

    Args:
        model: the agents' network, feed-forward: :class:`MultiTaskModel` with an ``mlp`` trunk,
            BenchMARL's ``mlp``, or an expert's of that.

    Raises:
        ValueError: if it is another one.
    """
    if isinstance(model, ExpertNetwork):
        return _PerGroup([plain_network(part) for part in model.models], model)
    if isinstance(model, MultiTaskModel) and isinstance(model.trunk, Mlp):
        return _OfRows(model)
    if isinstance(model, Mlp) and model.input_has_agent_dim and not model.centralised:
        own = 1 if model.share_params else model.n_agents
        return _PerAgent([_agents_net(model, agent) for agent in range(own)])
    name = type(getattr(model, "trunk", model)).__name__
    raise ValueError(
        f"export: a network of {name} cannot be written as ONNX, an mlp can; use "
        "benchmarl_mkt.teams.load_team, which runs any"
    )


def _agents_net(model: Mlp, agent: int) -> nn.Module:
    """One agent's network out of BenchMARL's stacked ones."""
    net, params = model.mlp.get_stateful_net(), model.mlp.params
    (params if model.share_params else params[agent]).data.clone().to_module(net)
    return net


class _OfRows(nn.Module):
    """Eq. 1-2 of one task."""

    def __init__(self, model: MultiTaskModel):
        super().__init__()
        self.model, self.trunk = model, model.trunk.mlp[0]  # sees rows, so it is one plain MLP

    def forward(self, observation: Tensor) -> Tensor:
        activate = self.model.activate
        embedded, *targets = embed(self.model.embedding, observation.flatten(0, -2))
        features = activate(self.trunk(activate(embedded)))
        return self.model.head(features, *targets).unflatten(0, observation.shape[:-1])


class _OfEntities(nn.Module):
    """Eq. 1-2 of a network over entities, from their numbers instead of an observation."""

    def __init__(self, model: EntityModel):
        super().__init__()
        self.model, self.trunk = model, model.trunk.mlp[0]

    def forward(self, own: Tensor, *lists: Tensor) -> Tensor:
        rows = [x.flatten(0, 1).transpose(0, 1) for x in lists]  # [n, M, f]
        rows = [x * x[..., -1:] for x in rows]
        embedded, targets = self.model.embedding.of_entities(own.flatten(0, 1), rows)
        activate = self.model.activate
        features = activate(self.trunk(activate(embedded)))
        return self.model.head(features, targets, in_order=True).unflatten(0, own.shape[:2])


class _PerAgent(nn.Module):
    """One network for all agents, or one for each."""

    def __init__(self, nets: list[nn.Module]):
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, observation: Tensor) -> Tensor:
        if len(self.nets) == 1:
            return self.nets[0](observation)
        parts = zip(self.nets, observation.unbind(-2))
        return torch.stack([net(part) for net, part in parts], -2)


class _PerGroup(nn.Module):
    """An expert's networks, each for its group of agents."""

    def __init__(self, nets: list[nn.Module], expert: ExpertNetwork):
        super().__init__()
        self.nets, self.groups = nn.ModuleList(nets), expert.groups
        self.n_actions = expert.team.n_actions

    def forward(self, observation: Tensor) -> Tensor:
        agents = observation.split([group.n_agents for group in self.groups], -2)
        return torch.cat(
            [
                padded(net(part[..., : group.observation_size]), self.n_actions)
                for net, group, part in zip(self.nets, self.groups, agents)
            ],
            -2,
        )


class _Greedy(nn.Module):
    """Values and the best available action."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, observation: Tensor, action_mask: Tensor) -> tuple[Tensor, Tensor]:
        values = self.network(observation)
        return values, greedy_actions(values, action_mask)
