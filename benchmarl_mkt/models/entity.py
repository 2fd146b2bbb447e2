"""A network over entities: weights by type of entity, for teams of any sizes.

What it is made of is published: sets of entities pooled by type (Deep Sets,
`arXiv:1703.06114 <https://arxiv.org/abs/1703.06114>`_), actions scored by the entity that they
target, so that one network plays teams of any sizes (UPDeT,
`arXiv:2101.08001 <https://arxiv.org/abs/2101.08001>`_), and values that read the entities of the
task, by masked attention of the agent to them (REFIL, `arXiv:2006.04222
<https://arxiv.org/abs/2006.04222>`_).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from benchmarl_mkt.models.layout import EntityLayout, EntityList, layout_of
from benchmarl_mkt.models.multitask import MultiTaskModel, MultiTaskModelConfig
from benchmarl_mkt.models.pooling import CACHED, in_chunks, pooled, target_scores

POOLINGS = ("sets", "attention")
HEADS = 4  # of the attention
_ACTING = ("action_value", "logits")  # outputs with one number for every action
_PARTS: WeakKeyDictionary[nn.Module, dict[str, nn.Module]] = WeakKeyDictionary()  # by trunk
Targets = list[tuple[Tensor, Tensor]]  # of a list: entities [n, M, f], weights of tokens [w, f]


class EntityModel(MultiTaskModel):
    r"""Eq. 1-2 with an embedding E and a head EA whose weights belong to types of entities.

    .. math::
        t_j = relu(T_{type(j)} \, x_j), \quad
        E(o) = P_{own} \, t_{own} + \sum_{type} P_{type} \, [mean_j t_j ; max_j t_j], \quad
        c = relu(F(relu(E(o))))

    Basic actions are linear in c; the action that targets entity j has the value
    :math:`v^\top relu(W c + U t_j)`. With ``pooling="attention"`` the sum over types is one layer
    of what the agent reads from all tokens (:class:`Attention`). Which numbers describe which
    entity says the :class:`~benchmarl_mkt.models.layout.EntityLayout` that the input's
    specification carries.
    Without one the observation is a single entity with weights of its own, and the network is
    :class:`MultiTaskModel`'s. A centralised model (MAPPO's critic) averages relu(E(o)) over the
    agents; a model whose output is not one number per action has a linear head.

    Args:
        pooling: ``sets`` or ``attention``.
        token_size: size w of the tokens t; for attention a multiple of 4.
        score_size: rows of W and U.
        agent_id: whether agents are told apart by their number, where there is a layout.
        kwargs: those of :class:`MultiTaskModel`; ``embedding_size`` is that of E's output.

    Raises:
        ValueError: if a layout does not fit, or types of one name have other sizes in two tasks.
    """

    def __init__(
        self, pooling: str, token_size: int, score_size: int, agent_id: bool, **kwargs: Any
    ):
        super().__init__(**kwargs)
        # All groups of an experiment have one trunk, and so the same parts.
        part = Parts(_PARTS.setdefault(self.trunk, {}), self.device)
        self.layout, self.parts = layout_of(self.input_spec, self.agent_group), part.modules
        if self.layout is None:
            return
        leading, n_outputs = int(self.input_has_agent_dim), self.output_leaf_spec.shape[-1]
        acts = not self.centralised and self.out_key[-1] in _ACTING
        size = sum(spec.shape[leading:].numel() for spec in self.input_spec.values(True, True))
        layout = self.layout.check(size, n_outputs if acts else None)
        if not acts:
            seen = tuple(replace(entities, actions=None) for entities in layout.lists)
            layout = replace(layout, lists=seen)
        encoder = EntityEncoder(layout, part, token_size, self.embedding_size, agent_id, pooling)
        pools = self.centralised and self.input_has_agent_dim
        self.embedding = AgentsEncoder(encoder, self.n_agents) if pools else encoder
        sizes = self.feature_size, token_size, score_size
        self.head = EntityHead(layout, part, n_outputs, *sizes)


class Parts:
    """Modules by name, one for all that ask.

    Those that ask keep them in plain dictionaries, which register nothing, so that each occurs once
    among a student's: a target network, averaged weight by weight, would else average some several
    times.

    Args:
        known: those that there are, by name; new ones are added.
        device: where new ones are placed.

    Attributes:
        modules: those that were asked for.
    """

    def __init__(self, known: dict[str, nn.Module], device: torch.device | str | None = None):
        self.known, self.device, self.modules = known, device, nn.ModuleDict()

    def __call__(self, name: str, kind: Callable[..., nn.Module], *sizes: int) -> nn.Module:
        """Return the module of that name.

        Raises:
            ValueError: if it was made with other sizes.
        """
        if name not in self.known:
            self.known[name] = kind(*sizes).to(self.device)
            self.known[name].made_with = sizes
        module = self.modules[name] = self.known[name]
        if module.made_with != sizes:
            raise ValueError(
                f"entity_layout: {name} has sizes {module.made_with} in one task and {sizes} in "
                "another; give one of the types another name"
            )
        return module


class Hidden(nn.Linear):
    """A layer before a ReLU. Its orthogonal weights keep signals' size through many layers.

    As MAPPO's (`arXiv:2103.01955 <https://arxiv.org/abs/2103.01955>`_, appendix).
    """

    gain = 2**0.5

    def reset_parameters(self) -> None:
        """Draw orthogonal weights, without bias."""
        nn.init.orthogonal_(self.weight, self.gain)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Output(Hidden):
    """A last layer: at first all actions are nearly alike."""

    gain = 0.01


class Attention(nn.Module):
    """What agents read from tokens w, by four heads of attention: [M, e].

    The query is the agent's own token; keys and values are its own and those of all entities that
    are there (REFIL, `arXiv:2006.04222 <https://arxiv.org/abs/2006.04222>`_, Eq. 3).
    """

    def __init__(self, token_size: int, embedding_size: int):
        super().__init__()
        self.query = nn.Linear(token_size, token_size)
        self.key_value = nn.Linear(token_size, 2 * token_size)
        self.out = Hidden(token_size, embedding_size)

    def forward(self, own: Tensor, tokens: Tensor, there: Tensor) -> Tensor:
        """Read tokens [n, M, w] that are ``there`` [n, M], for agents [M, w]."""
        tokens = torch.cat((own.unsqueeze(0), tokens))
        mask = torch.cat((torch.ones_like(own[None, :, 0], dtype=torch.bool), there))
        mask = mask.t().unflatten(-1, (1, 1, -1))  # [M, 1, 1, n + 1]
        query = self.query(own).unflatten(-1, (HEADS, 1, -1))  # [M, heads, 1, w / heads]
        both = self.key_value(tokens).unflatten(-1, (2, HEADS, -1))
        key, value = both.permute(2, 1, 3, 0, 4)  # [M, heads, n + 1, w / heads]
        read = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(read.flatten(1))


class EntityEncoder(nn.Module):
    """E of rows [M, D]: [M, e], and the entities that actions target.

    Args:
        layout: what a row is made of.
        part: gives the modules.
        token_size: size w of a token.
        embedding_size: size e of the output.
        agent_id: whether to read the agent id.
        pooling: ``sets`` or ``attention``.
    """

    def __init__(
        self,
        layout: EntityLayout,
        part: Parts,
        token_size: int,
        embedding_size: int,
        agent_id: bool = False,
        pooling: str = "sets",
    ):
        super().__init__()
        self.layout = layout
        self._id = layout.agent_id if agent_id else 0
        own = sum(stop - start for start, stop in layout.own)
        layers = []
        if own:
            layers.append((f"{layout.type}:token", own, token_size))
            layers.append((f"{layout.type}:pool", token_size, embedding_size))
        if self._id:
            layers.append((f"{layout.type}:id_{self._id}", self._id, embedding_size))
        for index, entities in enumerate(layout.lists):
            layers.append((f"{entities.type}:token", self.list_size(index), token_size))
            if pooling == "sets":
                layers.append((f"{entities.type}:pool", 2 * token_size, embedding_size))
        self._borrowed = {name: part(name, Hidden, *sizes) for name, *sizes in layers}
        if pooling == "attention" and layout.lists:
            self._borrowed["attention"] = part("attention", Attention, token_size, embedding_size)

    @property
    def reads_id(self) -> bool:
        """Whether agents are told apart by their number."""
        return bool(self._id)

    def list_size(self, index: int) -> int:
        """How many numbers a token of list ``index`` is made of."""
        return len(self.layout.lists[index].kept) + self.layout.pointed_at(index)

    def forward(self, rows: Tensor) -> tuple[Tensor, Targets]:
        """Embed rows, before an activation."""
        own = [rows[:, start:stop] for start, stop in self.layout.own]
        agent_id = rows[:, -self._id :] if self._id else None
        lists = entity_rows(self.layout, rows)
        return self.of_entities(torch.cat(own, -1) if own else None, lists, agent_id)

    def of_entities(
        self, own: Tensor | None, lists: list[Tensor], agent_id: Tensor | None = None
    ) -> tuple[Tensor, Targets]:
        """Embed an agent's own numbers [M, o] and the lists that :func:`entity_rows` gives."""
        layout, modules = self.layout, self._borrowed
        terms, targets, tokens, own_token = [], [], [], None
        if own is not None:
            own_token = torch.relu(modules[f"{layout.type}:token"](own))
            terms.append(modules[f"{layout.type}:pool"](own_token))
        if agent_id is not None:
            terms.append(modules[f"{layout.type}:id_{self._id}"](agent_id))
        for entities, x in zip(layout.lists, lists):
            layer = modules[f"{entities.type}:token"]
            weight = torch.cat((layer.weight, layer.bias.unsqueeze(-1)), -1)
            if "attention" in modules:
                tokens.append(torch.relu(x @ weight.t()))
            else:
                terms.append(modules[f"{entities.type}:pool"](pooled(x, weight)))
            if entities.actions is not None:
                targets.append((x, weight))
        if tokens:
            if own_token is None:
                own_token = torch.zeros_like(tokens[0].sum(0))
            there = torch.cat([x[..., -1] for x in lists]) > 0
            terms.append(modules["attention"](own_token, torch.cat(tokens), there))
        return sum(terms[1:], terms[0]), targets


class AgentsEncoder(nn.Module):
    """The mean over N agents of relu(E(o)), as one row: [M, N D] to [M, e]."""

    def __init__(self, encoder: EntityEncoder, n_agents: int):
        super().__init__()
        self.encoder, self.n_agents = encoder, n_agents

    def forward(self, rows: Tensor) -> Tensor:
        """Embed the agents' concatenated observations."""
        embedded, _ = self.encoder(rows.reshape(len(rows) * self.n_agents, -1))
        return torch.relu(embedded).view(len(rows), self.n_agents, -1).mean(1)


class EntityHead(nn.Module):
    """EA: values [M, A] of basic actions and of those that target entities.

    Args:
        layout: what an observation is made of.
        part: gives the modules.
        n_actions: number of actions A.
        feature_size: size of the features c.
        token_size: size w of a token.
        score_size: rows of W and U.
    """

    def __init__(
        self,
        layout: EntityLayout,
        part: Parts,
        n_actions: int,
        feature_size: int,
        token_size: int,
        score_size: int,
    ):
        super().__init__()
        order = layout.basic_actions(n_actions)
        self._borrowed: dict[str, nn.Module] = {}
        if order:
            name = f"{layout.type}:basic"
            self._borrowed["basic"] = part(name, Output, feature_size, len(order))
        self._scores = []
        for entities in layout.lists:
            if entities.actions is not None:
                order += range(entities.actions, entities.actions + entities.count)
                self._scores.append(f"{entities.type}:score")
                sizes = feature_size, token_size, score_size
                self._borrowed[self._scores[-1]] = part(self._scores[-1], TargetScore, *sizes)
        places = [order.index(action) for action in range(n_actions)]
        self._places = None if places == sorted(places) else places

    def forward(
        self, features: Tensor, targets: Targets | tuple[()] = (), in_order: bool = False
    ) -> Tensor:
        """Value the actions, from features c [M, f] and what the encoder gave besides.

        With ``in_order`` basic actions come first, then the targeted ones, list by list.
        """
        values = [self._borrowed["basic"](features)] if "basic" in self._borrowed else []
        for name, entities in zip(self._scores, targets):
            values.append(self._borrowed[name](features, *entities))
        joined = torch.cat(values, -1)
        return joined if in_order or self._places is None else joined[:, self._places]


class TargetScore(nn.Module):
    """v, W and U of one type: features [M, f] and n entities to scores [M, n]."""

    def __init__(self, feature_size: int, token_size: int, score_size: int):
        super().__init__()
        self.query = Hidden(feature_size, score_size)
        self.key = Hidden(token_size, score_size, bias=False)
        self.out = Output(score_size, 1)

    def forward(self, features: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Score every entity."""
        query = self.query(features)
        return target_scores(x, weight, self.key.weight, query, self.out.weight[0]) + self.out.bias


def entity_rows(layout: EntityLayout, rows: Tensor) -> list[Tensor]:
    """Take the lists of rows [M, D] apart: each [n, M, f], as pooling reads it.

    The f numbers of an entity are those that are kept, how many present entities point at it (if
    any may), and 1. Of an entity that is not there all are zero, if its numbers are finite.
    """
    chunk = max(1, CACHED // rows.shape[1])
    if in_chunks(rows) and len(rows) > chunk:
        chunks = [entity_rows(layout, part) for part in rows.split(chunk)]
        return [torch.cat(parts, 1) for parts in zip(*chunks)]
    views = [_numbers(entities, rows) for entities in layout.lists]
    present = [
        numbers.new_ones(*numbers.shape[:2], 1)
        if entities.present is None
        else (numbers[..., entities.present : entities.present + 1] > 0).to(numbers.dtype)
        for entities, numbers in zip(layout.lists, views)
    ]
    found = []
    for index, (entities, numbers) in enumerate(zip(layout.lists, views)):
        columns = [numbers[..., start:stop] for start, stop in _runs(entities.kept)]
        if layout.pointed_at(index):
            columns.append(_pointed_at(layout, index, views, present))
        x = torch.cat([*columns, present[index]], -1)
        found.append(x if entities.present is None else x.mul_(present[index]))
    return found


def _numbers(entities: EntityList, rows: Tensor) -> Tensor:
    """The numbers of a list's entities: [n, M, size]."""
    parts = []
    for start, size in entities.parts:
        flat = rows[:, start : start + entities.count * size]
        parts.append(flat.unflatten(-1, (entities.count, size)).transpose(0, 1))
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def _pointed_at(
    layout: EntityLayout, index: int, views: list[Tensor], present: list[Tensor]
) -> Tensor:
    """How many present entities point at those of a list: [n, M, 1]."""
    n, agents, _ = views[index].shape
    counts = views[index].new_zeros(n + 1, agents)  # the last row: at none
    for entities, numbers, there in zip(layout.lists, views, present):
        pointer = entities.pointer
        if pointer is not None and pointer.to == index:
            named = (numbers[..., pointer.feature] * pointer.scale).round().long() - pointer.offset
            named = torch.where((named < 0) | (named > n), n, named)
            counts = counts.scatter_add(0, named, there.squeeze(-1))
    return counts[:n].unsqueeze(-1)


def _runs(indices: list[int]) -> list[tuple[int, int]]:
    """Slices of consecutive indices."""
    breaks = [i for i in range(1, len(indices)) if indices[i] != indices[i - 1] + 1]
    edges = [0, *breaks, len(indices)]
    return [(indices[a], indices[b - 1] + 1) for a, b in itertools.pairwise(edges) if b > a]


@dataclass
class EntityModelConfig(MultiTaskModelConfig):
    """Configuration of :class:`EntityModel`; see ``conf/model/multitask_entity.yaml``."""

    pooling: str = "sets"
    token_size: int = 32
    score_size: int = 32
    agent_id: bool = False
    file: ClassVar[str] = "multitask_entity.yaml"

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.agent_id) is not bool:
            raise ValueError(f"model.agent_id: {self.agent_id!r} must be true or false")
        if self.pooling not in POOLINGS:
            raise ValueError(f"model.pooling: {self.pooling!r} must be one of {POOLINGS}")
        if self.pooling == "attention" and self.token_size % HEADS:
            raise ValueError(
                f"model.token_size: {self.token_size} must be a multiple of {HEADS} for attention"
            )

    @staticmethod
    def associated_class() -> type[EntityModel]:
        return EntityModel
