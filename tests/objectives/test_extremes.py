"""Losses of extreme inputs: finite numbers and gradients, and what must not change them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensordict import TensorDict

from benchmarl_mkt.models import MultiTaskMixer, StudentNetwork, VdnMixer
from benchmarl_mkt.models.actions import greedy_actions
from benchmarl_mkt.objectives import MktLoss, distillation_kl, policy_entropy
from benchmarl_mkt.objectives.td import masked_mean, standardise_rewards
from tests.helpers import make_agents, random_segments

AGENTS, SIZE, ACTIONS, STATE = 2, 5, 4, 3
# Exact in single precision.
EXTREMES = st.sampled_from(
    [float(np.float32(x)) for x in (0.0, 1.0, -1.0, 1e-30, 1e4, 1e30, -1e30)]
)
VALUES = hnp.arrays("float32", (3, AGENTS, ACTIONS), elements=EXTREMES)
REWARDS = hnp.arrays("float32", (3, 4), elements=EXTREMES)
FLAGS = hnp.arrays("bool", (3, 4))
MASKS = hnp.arrays("bool", (3, AGENTS, ACTIONS))
TEMPERATURES = st.sampled_from([1e-6, 1e-2, 1.0, 1e6])  # the first is the lowest calibrated one


def at_least_one(mask) -> torch.Tensor:
    mask = torch.from_numpy(mask)
    mask[..., 0] |= ~mask.any(-1)
    return mask


@given(teacher=VALUES, student=VALUES, mask=MASKS, temperature=TEMPERATURES)
def test_divergence(teacher, student, mask, temperature):
    mask, student = torch.from_numpy(mask), torch.from_numpy(student).requires_grad_()
    divergence = distillation_kl(torch.from_numpy(teacher), student, mask, temperature)
    assert divergence.isfinite().all()
    assert (divergence >= -1e-5).all()
    divergence.mean().backward()
    assert student.grad.isfinite().all()
    assert (student.grad[~mask] == 0).all() or not mask.any(-1).all()
    choosing = mask.sum(-1, keepdim=True) > 1
    assert (student.grad[~choosing.expand_as(mask)].abs() < 1e-6).all()


@given(values=VALUES, mask=MASKS, temperature=TEMPERATURES)
def test_entropy(values, mask, temperature):
    entropy = policy_entropy(torch.from_numpy(values), torch.from_numpy(mask), temperature)
    assert ((entropy >= -1e-6) & (entropy <= 1 + 1e-6)).all()


@given(values=VALUES, mask=MASKS)
def test_greedy_actions(values, mask):
    mask = at_least_one(mask)
    action = greedy_actions(torch.from_numpy(values), mask)
    assert mask.gather(-1, action.unsqueeze(-1)).all()


@given(rewards=REWARDS, active=FLAGS)
def test_standardised_rewards(rewards, active):
    active = torch.from_numpy(active)
    found = standardise_rewards(torch.from_numpy(rewards), active)
    assert found.isfinite().all()
    assert (found[~active] == 0).all()
    assert found.abs().max() <= active.sum().clamp(min=1)  # no entry is further than that


@given(active=FLAGS, junk=st.sampled_from([torch.inf, -torch.inf, torch.nan, 1e38]))
def test_masked_means_ignore_what_they_hide(active, junk):
    active = torch.from_numpy(active)
    values = torch.arange(12.0).view(3, 4)
    hidden = torch.where(active, values, junk).requires_grad_()
    mean = masked_mean(hidden, active)
    expected = values[active].mean() if active.any() else torch.zeros(())
    torch.testing.assert_close(mean.detach(), expected)
    mean.backward()
    assert (hidden.grad == active / active.sum().clamp(min=1)).all()
    standardised = standardise_rewards(hidden.detach(), active)
    torch.testing.assert_close(standardised, standardise_rewards(values, active))


def make_loss(mixer: str, standardise: bool = True) -> MktLoss:
    mixing = VdnMixer() if mixer == "vdn" else MultiTaskMixer({"one": STATE}, AGENTS, 6, 4, 7)
    agents = make_agents({"one": (AGENTS, SIZE, ACTIONS)})
    loss = MktLoss(StudentNetwork(agents, mixing), temperature=0.02, standardise=standardise)
    loss.alpha.fill_(0.5)
    return loss


def make_batch(**changes) -> TensorDict:
    segments = random_segments(AGENTS, SIZE, ACTIONS, STATE)
    for key, value in changes.items():
        segments[key] = value
    return TensorDict({"one": segments}, segments.batch_size)


def gradients(loss: MktLoss, batch: TensorDict) -> tuple[torch.Tensor, torch.Tensor]:
    loss.zero_grad()
    value = loss(batch)["loss"]
    value.backward()
    found = [p.grad.flatten() for p in loss.parameters() if p.grad is not None]
    return value.detach(), torch.cat(found)


@settings(max_examples=40)
@given(
    mixer=st.sampled_from(["qmix", "vdn"]),
    rewards=REWARDS,
    teacher=EXTREMES,
    flags=st.fixed_dictionaries({key: FLAGS for key in ("active", "terminated", "bootstrap")}),
    only_one=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_loss_and_its_gradients_are_finite(mixer, rewards, teacher, flags, only_one, seed):
    torch.manual_seed(seed)
    batch = make_batch(
        reward=torch.from_numpy(rewards),
        **{key: torch.from_numpy(value) for key, value in flags.items()},
    )
    segment = batch["one"]
    segment["teacher_values"] = segment["teacher_values"] * teacher
    if only_one:  # action left
        allowed = torch.randint(ACTIONS, (3, 5, AGENTS, 1))
        segment["action_mask"] = torch.zeros_like(segment["action_mask"]).scatter(-1, allowed, True)
        segment["action"] = allowed[:, :-1].squeeze(-1)
    loss = make_loss(mixer)
    value, gradient = gradients(loss, batch)
    assert value.isfinite()
    assert gradient.isfinite().all()
    if not flags["active"].any():
        assert value == 0
        assert not gradient.any()
    if only_one:  # nothing to imitate
        assert loss.last_terms["one"]["kl"].abs() < 1e-5


@settings(max_examples=20)
@given(
    seed=st.integers(0, 99),
    factor=st.sampled_from([0.01, 1.0, 300.0]),
    shift=st.sampled_from([-50.0, 0.0, 7.0]),
    constant=st.sampled_from([-30.0, 0.0, 5.0]),
)
def test_what_must_not_change_the_loss(seed, factor, shift, constant):
    """The unit and zero of rewards, a constant added to a teacher's values, the segments' order."""
    torch.manual_seed(seed)
    batch = make_batch(active=torch.rand(3, 4) < 0.8)
    loss = make_loss("qmix")
    expected = gradients(loss, batch)
    changed = batch.clone()
    changed["one", "reward"] = batch["one", "reward"] * factor + shift
    changed["one", "teacher_values"] = batch["one", "teacher_values"] + constant
    found = gradients(loss, changed[torch.randperm(3)])
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("mixer", ["qmix", "vdn"])
def test_a_batch_of_zeros(mixer):
    batch = make_batch()
    zeros = batch.apply(torch.zeros_like)
    zeros["one", "action_mask"] = batch["one", "action_mask"]
    zeros["one", "active"] = zeros["one", "bootstrap"] = torch.ones(3, 4, dtype=torch.bool)
    value, gradient = gradients(make_loss(mixer), zeros)
    assert value.isfinite()
    assert gradient.isfinite().all()
