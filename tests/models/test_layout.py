"""Descriptions of observations: what is refused, and the way through BenchMARL and JSON."""

import json
from dataclasses import replace

import pytest
import torch
from torchrl.data import Composite, Unbounded

from benchmarl_mkt.models import EntityLayout, EntityList, Pointer, with_layouts
from benchmarl_mkt.models.layout import EntitySpec, described, layout_of

ALLY = EntityList("ally", 2, ((0, 3),), present=0, pointer=Pointer(2, 1, 5.0, 2))
ENEMY = EntityList("enemy", 3, ((6, 2), (16, 1)), present=0, actions=2, dropped=(1,))
LAYOUT = EntityLayout("unit", ((12, 14), (19, 20)), (ALLY, ENEMY), dropped=((14, 16),))
SIZE, ACTIONS = 20, 6


def changed(index: int, **changes) -> EntityLayout:
    """The layout with another list."""
    lists = list(LAYOUT.lists)
    lists[index] = replace(lists[index], **changes)
    return replace(LAYOUT, lists=tuple(lists))


def test_a_layout_that_fits():
    assert LAYOUT.check(SIZE, ACTIONS) is LAYOUT
    assert LAYOUT.basic_actions(ACTIONS) == [0, 1, 5]
    assert [part.kept for part in LAYOUT.lists] == [[0, 1], [0, 2]]
    assert [LAYOUT.pointed_at(index) for index in (0, 1)] == [False, True]
    with_id = replace(LAYOUT, agent_id=4)
    assert with_id.check(SIZE + 4, ACTIONS) is with_id


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (replace(LAYOUT, own=((12, 14),)), "number 19 of 20 is described 0 times"),
        (replace(LAYOUT, own=((12, 15), (19, 20))), "number 14 of 20 is described 2 times"),
        (replace(LAYOUT, agent_id=1), "number 19 of 20 is described 2 times"),
        (changed(1, count=4), r"number 12 of 20 is described 2 times"),
        (replace(LAYOUT, own=((12, 14), (19, 21))), r"\(19, 21\) is no slice of the 20 numbers"),
        (changed(0, count=-1), "count of at least 0"),
        (changed(1, parts=()), "parts of at least 1"),
        (changed(0, present=3), r"ally has 3 numbers, but \[2, 3\] are named"),
        (changed(1, dropped=(3,)), "enemy has 3 numbers"),
        (changed(0, pointer=Pointer(2, 2, 1.0)), "ally points to list 2, which is not there"),
        (changed(1, actions=4), r"actions \[4, 5, 6\] target entities"),
        (changed(0, actions=3), r"actions \[3, 4, 2, 3, 4\] target entities"),
        (changed(0, type="unit"), "must have another name"),
        (changed(0, type="a.b"), "without dots"),
        (changed(0, type=""), "without dots"),
        (EntityLayout("unit", dropped=((0, SIZE),)), "there is nothing in it"),
    ],
)
def test_a_wrong_layout_is_refused_in_one_line(layout, message):
    with pytest.raises(ValueError, match=message) as error:
        layout.check(SIZE, ACTIONS)
    assert str(error.value).startswith("entity_layout: unit: ")
    assert "\n" not in str(error.value)


def test_a_list_of_nobody_and_one_slice_of_nothing():
    alone = EntityLayout("unit", ((0, 4),), (replace(ENEMY, count=0, parts=((0, 2),), dropped=()),))
    alone.check(4, 2)
    assert alone.basic_actions(2) == [0, 1]


def test_through_json_and_back():
    data = json.loads(json.dumps(LAYOUT.to_dict()))
    assert EntityLayout.from_dict(data) == LAYOUT
    assert EntityLayout.from_dict(data).to_dict() == LAYOUT.to_dict()


@pytest.mark.parametrize(
    "change",
    [
        {"own": [[0]]},
        {"own": [["0", 1]]},
        {"own": 3},
        {"lists": [{"type": "a"}]},
        {"lists": [5]},
        {"unknown": 1},
        {"dropped": None},
    ],
)
def test_what_is_no_layout_is_refused(change):
    data = {**LAYOUT.to_dict(), **change}
    with pytest.raises(ValueError, match="entity_layout: "):
        EntityLayout.from_dict(data)


@pytest.mark.parametrize(
    "change",
    [
        {"present": 0.5},
        {"actions": 1.5},
        {"count": 2.0},
        {"pointer": {"feature": 0, "to": 0, "scale": "x", "offset": 0}},
    ],
)
def test_a_list_of_no_numbers_is_refused(change):
    data = LAYOUT.to_dict()
    data["lists"] = [{**data["lists"][0], **change}]
    with pytest.raises(ValueError, match="entity_layout: TypeError"):
        EntityLayout.from_dict(data)


def test_a_specification_keeps_its_layout():
    group = Composite(observation=Unbounded((4, 12)), more=Unbounded((4, 2, 4)), shape=(4,))
    plain = Composite(observation=Unbounded((2, 5)), shape=(2,))
    spec = with_layouts(Composite(units=group, others=plain), {"units": LAYOUT})
    assert isinstance(spec["units"], EntitySpec)
    assert type(spec["others"]) is Composite
    for copy in (spec, spec.clone(), spec.to("cpu"), spec.clone().to(torch.device("meta"))):
        assert copy["units"].layout == LAYOUT
        assert copy["units"].shape == (4,)
        assert copy["units", "observation"].shape == (4, 12)
    as_given = Composite(units=spec["units"].clone().to("cpu"))  # as BenchMARL's algorithms do
    assert layout_of(as_given, "units") == LAYOUT
    assert layout_of(Composite(others=plain), "others") is None
    state = described(Composite(state=Unbounded((SIZE,))), LAYOUT)
    assert layout_of(state, "units") == LAYOUT  # what is no group's is a state


@pytest.mark.parametrize(
    ("change", "shape"),
    [
        (lambda spec: spec[2], ()),
        (lambda spec: spec[1:3], (2,)),
        (lambda spec: spec[..., None], (4, 1)),
        (lambda spec: spec.unbind()[3], ()),
        (lambda spec: spec.unsqueeze(0), (1, 4)),
        (lambda spec: spec.unsqueeze(0).squeeze(), (4,)),
        (lambda spec: spec.unsqueeze(-1).squeeze(-1), (4,)),
        (lambda spec: spec.reshape(2, 2), (2, 2)),
        (lambda spec: spec.reshape(2, 2).flatten(0, 1), (4,)),
        (lambda spec: spec.unflatten(0, (2, 2)), (2, 2)),
        (lambda spec: spec.expand(5, 4), (5, 4)),
        (lambda spec: Composite(units=spec, shape=(4,)).expand(5, 4)["units"], (5, 4)),
    ],
)
def test_another_batch_of_the_same_rows_keeps_their_layout(change, shape):
    entries = {"observation": Unbounded((4, 12)), "more": Unbounded((4, 2, 4))}
    spec = described(Composite(entries, shape=(4,)), LAYOUT)
    for found in (change(spec), change(spec).clone().to("meta")):
        assert type(found) is EntitySpec
        assert found.layout == LAYOUT
        assert found.shape == shape
        assert found["observation"].shape == (*shape, 12)
    assert layout_of(Composite(units=change(spec)), "units") == LAYOUT


def test_other_entries_have_no_layout():
    inner = Composite(deep=Unbounded((4, SIZE)), shape=(4,))
    spec = described(Composite(inner=inner, shape=(4,)), LAYOUT)
    assert type(spec["inner"]) is Composite
    assert spec["inner", "deep"].shape == (4, SIZE)
    assert spec.empty().layout is None
    assert spec.empty().clone().expand(2, 4).shape == (2, 4)


def test_a_layout_of_another_size_is_refused():
    group = Composite(observation=Unbounded((4, 19)), shape=(4,))
    with pytest.raises(ValueError, match="no slice of the 19 numbers"):
        with_layouts(Composite(units=group), {"units": LAYOUT})
