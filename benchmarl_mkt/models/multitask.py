"""The student's network: per-task embedding E_k, shared trunk F, per-task head EA_k (Eq. 1-2)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import torch
from benchmarl.models import Mlp, model_config_registry
from benchmarl.models.common import Model, ModelConfig, parse_model_config
from benchmarl.utils import _read_yaml_config
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from torchrl.data import Composite, Unbounded

from benchmarl_mkt.files import conf_path
from benchmarl_mkt.models.serialisation import model_to_dict

# Trunks that treat every agent for itself, so that one serves teams of any size.
TRUNKS = ("mlp", "gru", "lstm")
_IN, _OUT = "_embedding", "_features"
Trunk = Callable[[TensorDictBase], TensorDictBase]

# One trunk for all groups of an experiment. BenchMARL asks for one model per group and gives each
# the experiment's own ``action_spec`` object, which no other experiment has. A trunk keeps that
# object alive, so an identity is never used again while its trunk lives.
_TRUNKS: WeakValueDictionary[tuple, Model] = WeakValueDictionary()


class MultiTaskModel(Model):
    r"""Eq. 1-2: :math:`Q_k(o, \cdot) = EA_k(F(E_k(o)))`, with one trunk F for all groups.

    E_k and EA_k are linear layers, with a ReLU after E_k (and after F, as it is a hidden layer);
    with ``layer_norm`` both are normalised before it.
    The input entries of an agent are concatenated; a centralised model (MAPPO's critic)
    concatenates the agents' too. Input [*B, n_agents, d] (or [*B, d] without agent dimension),
    output [*B, n_agents, out] (or [*B, out] if centralised).

    Args:
        embedding_size: size of E_k's output.
        feature_size: size of F's output.
        trunk: a BenchMARL model configuration: ``name`` and the fields of its YAML.
        layer_norm: whether the outputs of E_k and F are normalised (without learned parameters).

    Raises:
        ValueError: if parameters are not shared by the agents of a team, or the trunk is not one
            of mlp, gru, lstm.
    """

    in_keys: list
    out_keys: list

    def __init__(
        self,
        embedding_size: int,
        feature_size: int,
        trunk: Mapping[str, Any],
        layer_norm: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not self.share_params:
            raise ValueError(
                "experiment.share_policy_params: must be true with model=multitask, whose trunk "
                "is shared by all agents and tasks"
            )
        self.embedding_size, self.feature_size = embedding_size, feature_size
        self.activate = NormalisedReLU() if layer_norm else nn.ReLU(inplace=True)
        leading = 1 if self.input_has_agent_dim else 0
        size = sum(spec.shape[leading:].numel() for spec in self.input_spec.values(True, True))
        if self.centralised and self.input_has_agent_dim:
            size *= self.n_agents
        self.embedding = nn.Linear(size, embedding_size, device=self.device)
        self.trunk = self._shared_trunk(dict(trunk))
        self.head = nn.Linear(feature_size, self.output_leaf_spec.shape[-1], device=self.device)
        self._input_keys = list(self.in_keys)
        self._input_dims = [self.input_spec[key].ndim - leading for key in self.in_keys]
        states = trunk_config(trunk).get_model_state_spec(self.model_index)
        self._hidden = list(states.keys())  # names of the trunk's; none for a feed-forward one
        if self._hidden:
            keys = [(self.agent_group, key) for key in self._hidden]
            self.in_keys = [*self.in_keys, "is_init", *keys]
            self.out_keys = [*self.out_keys, *(("next", *key) for key in keys)]

    def _shared_trunk(self, trunk: dict[str, Any]) -> Model:
        config = trunk_config(trunk)
        key = (
            id(self.action_spec),
            json.dumps(model_to_dict(config), sort_keys=True),
            self.is_critic,
            self.centralised,
            self.model_index,
            self.embedding_size,
            self.feature_size,
            str(torch.device(self.device)),
        )
        if key in _TRUNKS:
            return _TRUNKS[key]
        # A feed-forward trunk sees rows [M, size]. A recurrent one keeps BenchMARL's agent
        # dimension, of size one: agents are rows too.
        agents = (1,) if config.is_rnn else ()
        _TRUNKS[key] = shared = config.get_model(
            input_spec=Composite({_IN: Unbounded(shape=(*agents, self.embedding_size))}),
            output_spec=Composite({_OUT: Unbounded(shape=(*agents, self.feature_size))}),
            agent_group="trunk",
            input_has_agent_dim=config.is_rnn,
            n_agents=1,
            centralised=not config.is_rnn,
            share_params=True,
            device=self.device,
            action_spec=self.action_spec,
            model_index=self.model_index,
        )
        return shared

    def compute(self, data: Tensor, is_init: Tensor | None = None) -> Tensor:
        """Map inputs [*B, N, d] to outputs [*B, N, out]; see :func:`network_outputs`."""
        group, trunk = self.agent_group, self.trunk
        parts = {group: self.embedding}, trunk, {group: self.head}, {group: data}
        return network_outputs(*parts, is_init, self.activate)[group]

    def _step(self, data: Tensor, tensordict: TensorDictBase) -> Tensor:
        """One step of a recurrent trunk: reads and writes the group's hidden states."""
        lead, group = data.shape[:-1], tensordict.get(self.agent_group)
        embedded, *targets = embed(self.embedding, data.flatten(0, -2))
        count = len(embedded)
        state = {key: group.get(key).flatten(0, len(lead) - 1).unsqueeze(1) for key in self._hidden}
        inputs = {
            _IN: self.activate(embedded).unsqueeze(1),
            "is_init": tensordict.get("is_init").unsqueeze(-2).expand(*lead, 1).flatten(0, -2),
            "trunk": TensorDict(state, [count, 1]),
        }
        out = self.trunk(TensorDict(inputs, [count]))
        for key in self._hidden:
            new = out.get(("next", "trunk", key))
            tensordict.set(("next", self.agent_group, key), new.view(*lead, *new.shape[2:]))
        features = self.activate(out.get(_OUT).squeeze(1))
        return self.head(features, *targets).view(*lead, -1)

    def read(self, entries: TensorDictBase | Mapping[Any, Tensor]) -> Tensor:
        """Concatenate the model's input entries: [*B, N, d]; N is 1 if centralised."""
        dims = zip(self._input_keys, self._input_dims)
        data = joined([entries[key].flatten(-count) for key, count in dims], -1)
        if self.centralised:  # all agents in one row; the row is one "agent"
            data = (data.flatten(-2) if self.input_has_agent_dim else data).unsqueeze(-2)
        return data

    def evaluate(self, tensordict: TensorDictBase) -> Tensor:
        """Compute the output from the model's input entries, without writing it.

        A recurrent trunk writes its new hidden states under ``next``.
        """
        data = self.read(tensordict)
        if not self.is_recurrent:
            out = self.compute(data)
        elif (self.agent_group, self._hidden[0]) in tensordict.keys(True):
            out = self._step(data, tensordict)
        else:
            out = self.compute(data, tensordict.get("is_init"))
        return out.squeeze(-2) if self.centralised else out

    @property
    def is_recurrent(self) -> bool:
        """Whether the trunk has hidden states."""
        return bool(self._hidden)

    def _forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        return tensordict.set(self.out_key, self.evaluate(tensordict))


class NormalisedReLU(nn.Module):
    """Layer normalisation of rows [*, size], without learned parameters, and a ReLU."""

    def forward(self, rows: Tensor) -> Tensor:
        """Return what is above the row's mean, in the row's standard deviations."""
        return torch.relu_(nn.functional.layer_norm(rows, rows.shape[-1:]))


def network_outputs(
    embeddings: Mapping[str, nn.Module],
    trunk: Trunk,
    heads: Mapping[str, nn.Module],
    data: Mapping[str, Tensor],
    is_init: Tensor | None = None,
    activate: Callable[[Tensor], Tensor] = torch.relu_,
) -> dict[str, Tensor]:
    """Eq. 1-2 for the tasks of ``data``: contiguous 2-D products, and one pass of the trunk.

    Maps inputs [*B_k, N_k, d_k] by E_k (``embeddings``), F (``trunk``) and EA_k (``heads``) to
    outputs [*B_k, N_k, out_k]; ``activate`` follows E_k and F. A recurrent trunk takes sequences
    [B, T, N_k, d_k], starts from zeros, and ``is_init`` [B, T, 1] is true where episodes begin.
    """
    inputs, targets = [], []
    for task, x in data.items():
        rows, *others = embed(embeddings[task], x.reshape(-1, x.shape[-1]))
        inputs.append(activate(rows).view(*x.shape[:-1], -1))
        targets.append(others)
    features = _features(trunk, inputs, is_init, activate)
    return {
        task: heads[task](part, *others).view(*data[task].shape[:-1], -1)
        for task, part, others in zip(data, features, targets)
    }


def embed(embedding: nn.Module, rows: Tensor) -> tuple[Any, ...]:
    """E_k of rows [M, d], and what the head reads besides the features, if anything."""
    out = embedding(rows)
    return out if isinstance(out, tuple) else (out,)


def _features(
    trunk: Trunk,
    inputs: list[Tensor],
    is_init: Tensor | None,
    activate: Callable[[Tensor], Tensor],
) -> list[Tensor]:
    """Apply F to inputs [*B_k, N_k, e] of several tasks at once; rows [M_k, f] in their order."""
    if is_init is None:
        assert isinstance(trunk, Mlp), "a trunk with hidden states needs is_init"
        rows = [x.reshape(-1, x.shape[-1]) for x in inputs]
        features = activate(trunk.mlp[0](joined(rows, 0)))  # without the tensordicts around it
        return list(features.split([len(part) for part in rows]))
    # an agent's sequence is a row: [B, T, N, e] to [B N, T, 1, e]
    rows = [x.transpose(1, 2).flatten(0, 1).unsqueeze(2) for x in inputs]
    starts = [is_init.repeat_interleave(x.shape[2], 0) for x in inputs]
    sequences = {_IN: joined(rows, 0), "is_init": joined(starts, 0)}
    batch = sequences[_IN].shape[:2]
    features = activate(trunk(TensorDict(sequences, batch)).get(_OUT))
    parts = features.split([len(part) for part in rows])
    return [
        part.view(x.shape[0], x.shape[2], x.shape[1], -1).transpose(1, 2).flatten(0, 2)
        for part, x in zip(parts, inputs)
    ]


def joined(parts: list[Tensor], dim: int) -> Tensor:
    """``torch.cat``, but a single part is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def trunk_config(trunk: Mapping[str, Any]) -> ModelConfig:
    """Build the BenchMARL configuration of a trunk from ``name`` and its fields.

    Fields that are left out come from BenchMARL's own YAML of that model.

    Raises:
        ValueError: if the name is not one of mlp, gru, lstm, or a field is unknown.
    """
    if not isinstance(trunk, Mapping):
        raise ValueError(f"model.trunk: {trunk!r} must be a mapping with name, one of {TRUNKS}")
    name = trunk.get("name")
    if name not in TRUNKS:
        raise ValueError(f"model.trunk.name: {name!r} must be one of {TRUNKS}")
    config_class = model_config_registry[name]
    defaults = asdict(config_class.get_from_yaml())
    given = parse_model_config(dict(trunk))
    unknown = sorted(set(given) - set(defaults))
    if unknown:
        raise ValueError(f"model.trunk: unknown {unknown}; {name} has {sorted(defaults)}")
    return config_class(**{**defaults, **given})


@dataclass
class MultiTaskModelConfig(ModelConfig):
    """Configuration of :class:`MultiTaskModel`; see ``conf/model/multitask.yaml``."""

    embedding_size: int = 64
    feature_size: int = 64
    trunk: dict[str, Any] = field(
        default_factory=lambda: {
            "name": "mlp",
            "num_cells": [],
            "activation_class": "torch.nn.ReLU",
        }
    )
    layer_norm: bool = False
    file: ClassVar[str] = "multitask.yaml"

    def __post_init__(self) -> None:
        if type(self.layer_norm) is not bool:
            raise ValueError(f"model.layer_norm: {self.layer_norm!r} must be true or false")
        sizes = {key: size for key, size in vars(self).items() if key.endswith("_size")}
        for name, size in sizes.items():
            if type(size) is not int or size < 1:
                raise ValueError(f"model.{name}: {size!r} must be an integer of at least 1")
        trunk_config(self.trunk)

    @staticmethod
    def associated_class() -> type[MultiTaskModel]:
        return MultiTaskModel

    @property
    def is_rnn(self) -> bool:
        return trunk_config(self.trunk).is_rnn

    def get_model_state_spec(self, model_index: int = 0) -> Composite:
        return trunk_config(self.trunk).get_model_state_spec(model_index)

    @classmethod
    def get_from_yaml(cls, path: str | None = None) -> MultiTaskModelConfig:
        """Read the configuration from ``path``, by default the shipped one."""
        config = _read_yaml_config(path or str(conf_path() / "model" / cls.file))
        return cls(**parse_model_config(config))


def as_multitask(config: ModelConfig) -> MultiTaskModelConfig:
    """Return the configuration itself, or one with that BenchMARL model as its trunk F."""
    if isinstance(config, MultiTaskModelConfig):
        return config
    return MultiTaskModelConfig(trunk=model_to_dict(config))
