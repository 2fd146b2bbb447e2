import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from benchmarl_mkt.models import (
    AttentionMixer,
    EntityLayout,
    EntityList,
    IndependentMixer,
    MultiTaskMixer,
    VdnMixer,
    VdnStateMixer,
    mixers,
)
from benchmarl_mkt.models.mixers import Entities

STATES = {"one": 3, "two": 5}
NUMBERS = st.floats(-10, 10)


def make_mixer(n_agents: int = 3) -> MultiTaskMixer:
    torch.manual_seed(1)
    return MultiTaskMixer(STATES, n_agents, 6, 4, 7).double()


def numpy_qmix(mixer: MultiTaskMixer, task: str, values, state) -> float:
    """Eq. 4 for one team, with the mixer's parameters and nothing else of it."""
    p = {name: tensor.detach().numpy() for name, tensor in mixer.named_parameters()}

    def linear(name, x):
        return p[f"{name}.weight"] @ x + p[f"{name}.bias"]

    z = np.maximum(linear(f"state_embeddings.{task}", state), 0)
    for_w1, for_w2, for_b2, b1 = np.split(linear("first", z), [7, 14, 20])  # hidden 7, 7, 6
    w1 = np.abs(linear("second_w1", np.maximum(for_w1, 0))).reshape(len(values), -1)
    hidden = values @ w1 + b1
    hidden = np.where(hidden > 0, hidden, np.expm1(hidden))
    w2 = np.abs(linear("second_w2", np.maximum(for_w2, 0)))
    return float(hidden @ w2 + linear("second_b2", np.maximum(for_b2, 0))[0])


@pytest.mark.parametrize("task", STATES)
def test_equals_the_formula(task):
    mixer = make_mixer()
    values, state = torch.randn(2, 4, 3).double(), torch.randn(2, 4, STATES[task]).double()
    result = mixer(task, values, state)  # [2, 4]
    for index in np.ndindex(2, 4):
        expected = numpy_qmix(mixer, task, values[index].numpy(), state[index].numpy())
        assert result[index].item() == pytest.approx(expected, abs=1e-10)


@given(
    values=hnp.arrays(np.float64, 3, elements=NUMBERS),
    state=hnp.arrays(np.float64, 3, elements=NUMBERS),
    agent=st.integers(0, 2),
    more=st.floats(0, 10),
)
def test_never_falls_when_an_agents_value_rises(values, state, agent, more):
    mixer = make_mixer()
    values, state = torch.from_numpy(values), torch.from_numpy(state)
    raised = values.clone()
    raised[agent] += more
    with torch.no_grad():
        assert mixer("one", raised, state) >= mixer("one", values, state) - 1e-9


@given(
    values=hnp.arrays(np.float64, (8, 3), elements=NUMBERS),
    state=hnp.arrays(np.float64, (8, 5), elements=NUMBERS),
)
def test_gradients_in_the_values_are_not_negative(values, state):
    values = torch.from_numpy(values).requires_grad_(True)
    total = make_mixer()("two", values, torch.from_numpy(state)).sum()
    (gradient,) = torch.autograd.grad(total, values)
    assert (gradient >= 0).all()
    assert (gradient > 0).any()


def test_hypernetworks_are_shared_and_embeddings_are_not():
    mixer = make_mixer()
    sizes = {name: (m.in_features, m.out_features) for name, m in mixer.state_embeddings.items()}
    assert sizes == {"one": (3, 4), "two": (5, 4)}
    touched = {}
    for task, size in STATES.items():
        mixer.zero_grad(set_to_none=True)
        mixer(task, torch.randn(8, 3).double(), torch.randn(8, size).double()).sum().backward()
        touched[task] = {n for n, p in mixer.named_parameters() if p.grad is not None}
    own = {task: {f"state_embeddings.{task}.{w}" for w in ("weight", "bias")} for task in STATES}
    assert touched["one"] - touched["two"] == own["one"]
    assert touched["two"] - touched["one"] == own["two"]
    shared = {name.split(".")[0] for name in touched["one"] & touched["two"]}
    assert shared == {"first", "second_w1", "second_w2", "second_b2"}


def test_the_state_matters():
    mixer, values = make_mixer(), torch.randn(3).double()
    first, second = torch.randn(2, 3).double()
    assert mixer("one", values, first) != mixer("one", values, second)


def test_vdn_is_the_sum_whatever_the_state():
    values = torch.tensor([[1.0, 2.0, 3.5], [-1.0, 0.0, 0.5]])
    assert VdnMixer()("any", values, torch.randn(2, 9)).tolist() == [6.5, -0.5]


@pytest.mark.parametrize("task", STATES)
def test_vdn_s_is_the_sum_and_a_value_of_the_state(task):
    mixer = VdnStateMixer(STATES, 4, 7).double()
    values, state = torch.randn(2, 4, 3).double(), torch.randn(2, 4, STATES[task]).double()
    p = {name: tensor.detach().numpy() for name, tensor in mixer.named_parameters()}

    def linear(name, x):
        return p[f"{name}.weight"] @ x + p[f"{name}.bias"]

    result = mixer(task, values, state)
    for index in np.ndindex(2, 4):
        z = np.maximum(linear(f"state_embeddings.{task}", state[index].numpy()), 0)
        hidden = np.maximum(linear("value.2", np.maximum(linear("value.0", z), 0)), 0)
        expected = values[index].sum().item() + linear("value.4", hidden)[0]
        assert result[index].item() == pytest.approx(expected, abs=1e-10)


def test_independent_learners_keep_their_values():
    values = torch.randn(2, 3, 4)
    assert torch.equal(IndependentMixer()("any", values, torch.randn(2, 3, 9)), values)


TEAMS = {"one": 3, "two": 2}


def make_attention() -> AttentionMixer:
    torch.manual_seed(1)
    return AttentionMixer(STATES, TEAMS, 4, 7, heads=2).double()


def numpy_attention(mixer: AttentionMixer, task: str, values, state) -> float:
    """The formula of the docstring for one team, head by head and agent by agent."""
    p = {name: tensor.detach().numpy() for name, tensor in mixer.named_parameters()}

    def linear(name, x):
        return p[f"{name}.weight"] @ x + p[f"{name}.bias"]

    z = np.maximum(linear(f"state_embeddings.{task}", state), 0)
    weights = np.abs(linear("weight.2", np.maximum(linear("weight.0", z), 0)))
    total = linear("bias.2", np.maximum(linear("bias.0", z), 0))[0]
    for head, part in enumerate((slice(0, 4), slice(4, 8))):
        query = linear("query", z)[part]
        scores = [query @ linear("key", agent)[part] / 2 for agent in p[f"agents.{task}"]]
        attention = np.exp(scores) / np.exp(scores).sum()
        total += weights[head] * (attention @ values)
    return float(total)


@pytest.mark.parametrize("task", TEAMS)
def test_attention_equals_the_formula(task):
    mixer = make_attention()
    values = torch.randn(2, 4, TEAMS[task]).double()
    state = torch.randn(2, 4, STATES[task]).double()
    result = mixer(task, values, state)
    for index in np.ndindex(2, 4):
        expected = numpy_attention(mixer, task, values[index].numpy(), state[index].numpy())
        assert result[index].item() == pytest.approx(expected, abs=1e-10)


@given(
    values=hnp.arrays(np.float64, (8, 2), elements=NUMBERS),
    state=hnp.arrays(np.float64, (8, 5), elements=NUMBERS),
)
def test_attention_is_monotone(values, state):
    values = torch.from_numpy(values).requires_grad_(True)
    total = make_attention()("two", values, torch.from_numpy(state)).sum()
    (gradient,) = torch.autograd.grad(total, values)
    assert (gradient >= 0).all()
    assert (gradient > 0).any()


def test_attention_shares_all_but_embeddings_and_agents():
    mixer, touched = make_attention(), {}
    for task, size in STATES.items():
        mixer.zero_grad(set_to_none=True)
        values, state = torch.randn(8, TEAMS[task]).double(), torch.randn(8, size).double()
        mixer(task, values, state).sum().backward()
        touched[task] = {n for n, p in mixer.named_parameters() if p.grad is not None}
    own = {f"state_embeddings.one.{w}" for w in ("weight", "bias")} | {"agents.one"}
    assert touched["one"] - touched["two"] == own


def described_states() -> Entities:
    """States of two and of four units with three numbers each, and one of two agents' rows."""

    def army(count: int, start: int = 0) -> EntityLayout:
        units = EntityList("unit", count, ((start, 3),), present=0)
        return EntityLayout("state", ((0, start),) if start else (), (units,))

    seen = EntityLayout("seen", ((0, 2),), (EntityList("unit", 1, ((2, 3),), present=0),))
    return Entities({"small": (army(2), 1), "large": (army(4), 1), "agents": (seen, 2)}, 5)


@pytest.mark.parametrize("kind", ["qmix", "vdn_s", "attention"])
def test_states_of_entities(kind):
    """Units in any order, more of them who are not there, and agents in any order."""
    torch.manual_seed(0)
    sizes = {"small": 6, "large": 12, "agents": 10, "plain": 4}
    mixer = made(kind, sizes, dict.fromkeys(sizes, 2), described_states())
    values, state = torch.randn(7, 2), torch.rand(7, 4, 3)
    state[:, 2:, 0] = 0
    expected = mixer("large", values, state.flatten(1))
    torch.testing.assert_close(mixer("large", values, state[:, [3, 1, 0, 2]].flatten(1)), expected)
    small = mixer("small", values, state[:, :2].flatten(1))
    if kind != "attention":  # whose agents' vectors are the task's own
        torch.testing.assert_close(small, expected)
    seen = torch.rand(7, 2, 5)
    rows = [mixer("agents", values, part.flatten(1)) for part in (seen, seen.flip(1))]
    torch.testing.assert_close(*rows)
    assert mixer("plain", values, torch.randn(7, 4)).shape == (7,)
    own = {name.split(".")[1] for name, _ in mixer.named_parameters() if "state_emb" in name}
    assert own == {"plain"}


def test_a_mixer_of_teams_of_any_sizes_without_a_tasks_own_weights():
    sizes = {"small": 6, "large": 12}
    mixer = made("vdn_s", sizes, {"small": 3, "large": 8}, described_states())
    small, large = mixer("small", torch.zeros(2, 3), torch.rand(2, 6)), torch.rand(2, 12)
    assert small.shape == mixer("large", torch.zeros(2, 8), large).shape == (2,)
    assert not [name for name, _ in mixer.named_parameters() if "small" in name or "large" in name]


def made(kind: str, state_sizes, team_sizes, entities: Entities):
    return mixers.make_mixer(
        kind, state_sizes, team_sizes, mixing_embed_dim=4, device=None, entities=entities,
        state_embed_dim=6, hypernet_embed_dim=8,
    )  # fmt: skip
