"""What a row of numbers is made of: an agent itself, and lists of other entities, by type.

A description is pure data: it goes into ``teacher.json`` and back. To a model it comes with the
specification of what the model reads (:class:`EntitySpec`), as BenchMARL hands it on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torchrl.data import Composite

Slice = tuple[int, int]  # first number, and the one after the last


@dataclass(frozen=True)
class Pointer:
    """A number of an entity that names an entity of a list.

    It is number ``round(value * scale) - offset`` of list ``to``; outside of it, none is named.

    Args:
        feature: which of the entity's numbers it is.
        to: index of the list.
        scale: what the number is multiplied by.
        offset: what is then subtracted.
    """

    feature: int
    to: int
    scale: float
    offset: int = 0


@dataclass(frozen=True)
class EntityList:
    """``count`` entities of one type. All tasks that have the type share its weights.

    Args:
        type: the name of the type, such as ``smax/enemy``.
        count: how many there are at most.
        parts: where their numbers lie, (start, size) each: entity i has ``size`` numbers from
            ``start + i size`` on, of every part.
        present: which of an entity's numbers is above zero while it is there (visible, alive); what
            is not there changes nothing, if its numbers are finite. None: they always are.
        actions: the first of ``count`` actions that target these entities, in their order; None:
            no action does.
        pointer: a number that names an entity of another list. Entities there are told how many
            name them, and the number itself is left out.
        dropped: numbers of an entity that are left out.
    """

    type: str
    count: int
    parts: tuple[Slice, ...]
    present: int | None = None
    actions: int | None = None
    pointer: Pointer | None = None
    dropped: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """How many numbers describe one entity."""
        return sum(size for _, size in self.parts)

    @property
    def kept(self) -> list[int]:
        """Those of its numbers that a network reads as they are."""
        left_out = {*self.dropped, *([self.pointer.feature] if self.pointer else [])}
        return [i for i in range(self.size) if i not in left_out]


@dataclass(frozen=True)
class EntityLayout:
    """What an agent sees, or a state shows: numbers of its own and lists of entities.

    Every number is described once. Actions that target no entity of a list are basic ones.

    Args:
        type: the name of the agent's own type, such as ``smax/unit``.
        own: slices (start, stop) of its own numbers.
        lists: the entities that it sees.
        dropped: slices of numbers that are left out.
        agent_id: how many numbers at the end are a one-hot agent id, which a
            :class:`~benchmarl_mkt.environments.Team` appends.
    """

    type: str
    own: tuple[Slice, ...] = ()
    lists: tuple[EntityList, ...] = ()
    dropped: tuple[Slice, ...] = ()
    agent_id: int = 0

    def basic_actions(self, n_actions: int) -> list[int]:
        """Return those of ``n_actions`` that target no entity of a list."""
        targets = {action for part in self.lists for action in _targets(part)}
        return [action for action in range(n_actions) if action not in targets]

    def pointed_at(self, index: int) -> bool:
        """Whether entities of some list name those of list ``index``."""
        return any(part.pointer is not None and part.pointer.to == index for part in self.lists)

    def check(self, size: int, n_actions: int | None = None) -> EntityLayout:
        """Check that it describes rows of ``size`` numbers, and ``n_actions``, and return it.

        Raises:
            ValueError: if a number is described twice or not at all, or something names what is not
                there.
        """
        for name in (self.type, *(part.type for part in self.lists)):
            if not isinstance(name, str) or not name or "." in name:
                raise _error(self, f"the type {name!r} must be a name without dots")
        if self.type in [part.type for part in self.lists]:
            raise _error(self, "the agent's own type must have another name than those it sees")
        if not self.own and not self.lists:
            raise _error(self, "there is nothing in it; give own numbers or lists")
        slices = [*self.own, *self.dropped]
        for part in self.lists:
            slices += [(start, start + part.count * length) for start, length in part.parts]
            self._check_list(part)
        described = [0] * size
        for start, stop in [*slices, (size - self.agent_id, size)]:
            if not 0 <= start <= stop <= size:
                raise _error(self, f"({start}, {stop}) is no slice of the {size} numbers")
            described[start:stop] = [count + 1 for count in described[start:stop]]
        for index, count in enumerate(described):
            if count != 1:
                raise _error(
                    self,
                    f"number {index} of {size} is described {count} times; every number belongs "
                    "once into own, a list's parts or dropped",
                )
        targets = [action for part in self.lists for action in _targets(part)]
        if n_actions is not None and (
            len(set(targets)) < len(targets) or not set(targets) <= set(range(n_actions))
        ):
            raise _error(
                self,
                f"actions {targets} target entities; all must differ and lie below {n_actions}",
            )
        return self

    def _check_list(self, part: EntityList) -> None:
        """Check what one list says of its entities' numbers."""
        if part.count < 0 or any(size < 1 for _, size in part.parts) or not part.parts:
            raise _error(self, f"{part.type} needs a count of at least 0 and parts of at least 1")
        pointer = [] if part.pointer is None else [part.pointer.feature]
        named = [*part.dropped, *pointer, *([] if part.present is None else [part.present])]
        if any(not 0 <= i < part.size for i in named):
            raise _error(self, f"{part.type} has {part.size} numbers, but {named} are named")
        if part.pointer and not 0 <= part.pointer.to < len(self.lists):
            raise _error(self, f"{part.type} points to list {part.pointer.to}, which is not there")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EntityLayout:
        """Rebuild what :meth:`to_dict` gave, also after JSON has turned tuples into lists.

        Raises:
            ValueError: if it is no description.
        """
        try:
            lists = tuple(
                EntityList(
                    **{
                        **part,
                        "parts": _slices(part["parts"]),
                        "dropped": tuple(map(_integer, part["dropped"])),
                        "count": _integer(part["count"]),
                        "present": _index(part["present"]),
                        "actions": _index(part["actions"]),
                        "pointer": part["pointer"] and _pointer(**part["pointer"]),
                    }
                )
                for part in data["lists"]
            )
            slices = {key: _slices(data[key]) for key in ("own", "dropped")}
            ids = _integer(data["agent_id"])
            return cls(**{**data, **slices, "lists": lists, "agent_id": ids})
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ValueError(f"entity_layout: {error!r}") from error


class EntitySpec(Composite):
    """A composite specification whose entries, in a row, are what ``layout`` describes.

    So are those of its copies, and of what differs from it in batch dimensions alone.
    """

    layout: EntityLayout | None = None

    def clone(self) -> EntitySpec:
        """Return a copy, with the layout."""
        return self._described(super().clone())

    def to(self, dest: Any) -> EntitySpec:
        """Return the specification on a device or of a type, with the layout."""
        return self._described(super().to(dest))

    def __getitem__(self, item: Any) -> Any:
        """Return an entry as it is, or an index of the batch with the layout."""
        return self._described(super().__getitem__(item))

    def expand(self, *shape: Any) -> Composite:
        """Return the specification of a larger batch, with the layout."""
        out = super().expand(*shape)  # a plain composite
        return out if self.layout is None else described(out, self.layout)

    def squeeze(self, dim: int | None = None) -> EntitySpec:
        """Return the specification without batch dimensions of size one, with the layout."""
        return self._described(super().squeeze(dim))

    def unsqueeze(self, dim: int) -> EntitySpec:
        """Return the specification with another batch dimension, and with the layout."""
        return self._described(super().unsqueeze(dim))

    def unbind(self, dim: int = 0) -> tuple[EntitySpec, ...]:
        """Return the specifications along a batch dimension, each with the layout."""
        return tuple(map(self._described, super().unbind(dim)))

    def _reshape(self, shape: Any) -> EntitySpec:  # what reshape, flatten and unflatten call
        return self._described(super()._reshape(shape))

    def _described(self, found: Any) -> Any:
        if isinstance(found, EntitySpec) and found.layout is None:
            found.layout = self.layout
        return found


def described(spec: Composite, layout: EntityLayout) -> EntitySpec:
    """Return a specification of the same entries that carries their layout.

    Args:
        spec: of the entries [N, ...] of a group of N agents, or [...] of a state.
        layout: what they are in a row.

    Raises:
        ValueError: if it does not describe entries of that size.
    """
    entries, leading = dict(spec.items()), spec.ndim
    layout.check(sum(leaf.shape[leading:].numel() for leaf in spec.values(True, True)))
    found = EntitySpec(entries, shape=spec.shape, device=spec.device)
    found.layout = layout
    return found


def with_layouts(spec: Composite, layouts: Mapping[str, EntityLayout]) -> Composite:
    """Return a task's observation specification, group by group, with the layouts of groups.

    Args:
        spec: group -> its entries.
        layouts: group -> its layout; groups may be missing.

    Raises:
        ValueError: if a layout does not fit its group.
    """
    groups = {
        name: described(group, layouts[name]) if name in layouts else group
        for name, group in spec.items()
    }
    return Composite(groups, shape=spec.shape)


def layout_of(spec: Composite, group: str) -> EntityLayout | None:
    """Return the layout that a model's ``input_spec`` carries, of its group or of a state."""
    inner = spec[group] if group in spec.keys() else spec
    return getattr(inner, "layout", None)


def _targets(part: EntityList) -> range:
    """The actions that target the entities of a list."""
    return range(0) if part.actions is None else range(part.actions, part.actions + part.count)


def _error(layout: EntityLayout, what: str) -> ValueError:
    return ValueError(f"entity_layout: {layout.type}: {what}")


def _slices(pairs: Any) -> tuple[Slice, ...]:
    return tuple((_integer(first), _integer(second)) for first, second in pairs)


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is no integer")
    return value


def _index(value: Any) -> int | None:
    return None if value is None else _integer(value)


def _pointer(feature: Any, to: Any, scale: Any, offset: Any) -> Pointer:
    if type(scale) not in (int, float):
        raise TypeError(f"{scale!r} is no number")
    return Pointer(_integer(feature), _integer(to), scale, _integer(offset))
