import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchrl.objectives.value.functional import td_lambda_return_estimate

from benchmarl_mkt.models.actions import (
    chosen_values,
    epsilon_greedy_actions,
    greedy_actions,
    random_actions,
)
from benchmarl_mkt.objectives.td import (
    hysteretic_square,
    lambda_targets,
    masked_mean,
    standardise_rewards,
    td_targets,
)

REWARDS = hnp.arrays(np.float64, (4, 3), elements=st.floats(-100, 100))
MASKS = hnp.arrays(np.bool_, (4, 3))


def test_standardised_by_hand():
    """Mean 4 and population variance 8/3 of (2, 4, 6)."""
    result = standardise_rewards(torch.tensor([2.0, 4.0, 6.0], dtype=torch.float64), eps=0.0)
    edge = 2 / math.sqrt(8 / 3)
    assert result.tolist() == pytest.approx([-edge, 0.0, edge])


def test_standardised_with_a_mask_by_hand():
    rewards = torch.tensor([[2.0, 99.0], [4.0, 6.0]], dtype=torch.float64)
    mask = torch.tensor([[True, False], [True, True]])
    result = standardise_rewards(rewards, mask, eps=0.0)
    edge = 2 / math.sqrt(8 / 3)
    assert result.flatten().tolist() == pytest.approx([-edge, 0.0, 0.0, edge])


@given(rewards=REWARDS, mask=MASKS)
def test_standardised_equals_numpy(rewards, mask):
    ours = standardise_rewards(torch.from_numpy(rewards), torch.from_numpy(mask)).numpy()
    expected = np.zeros_like(rewards)
    chosen = rewards[mask]
    if chosen.size:
        expected[mask] = (chosen - chosen.mean()) / (chosen.std() + 1e-5)
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)


def test_no_mask_equals_a_full_one_and_constants_become_zero():
    rewards = torch.randn(5, 2)
    full = torch.ones(5, 2, dtype=torch.bool)
    torch.testing.assert_close(standardise_rewards(rewards), standardise_rewards(rewards, full))
    assert (standardise_rewards(torch.full((3,), 7.0)) == 0).all()
    assert (standardise_rewards(rewards, ~full) == 0).all()


def test_greedy_takes_the_best_available_action():
    values = torch.tensor([[[1.0, 5.0, 3.0], [-9.0, -1.0, -2.0]]])
    mask = torch.tensor([[[True, False, True], [True, False, False]]])
    assert greedy_actions(values).tolist() == [[1, 1]]
    assert greedy_actions(values, mask).tolist() == [[2, 0]]


@pytest.mark.parametrize("eps", [0.0, 0.4, 1.0])
def test_epsilon_greedy_actions_are_greedy_or_random_ones(eps):
    """From the same random numbers: which agents explore first, then what they do."""
    values, mask = torch.randn(50, 3, 4), torch.rand(50, 3, 4) < 0.6
    mask[..., 0] |= ~mask.any(-1)
    torch.manual_seed(0)
    explores = torch.rand(50, 3) < eps
    expected = torch.where(explores, random_actions(mask), greedy_actions(values, mask))
    torch.manual_seed(0)
    assert torch.equal(epsilon_greedy_actions(values, mask, eps), expected)


@given(
    values=hnp.arrays(np.float64, (3, 2, 4), elements=st.floats(-1e6, 1e6)),
    mask=hnp.arrays(np.bool_, (3, 2, 4)),
)
def test_greedy_never_takes_a_masked_action(values, mask):
    mask[..., 1] |= ~mask.any(-1)
    action = greedy_actions(torch.from_numpy(values), torch.from_numpy(mask))
    for index in np.ndindex(3, 2):
        assert mask[index][action[index]]
        assert values[index][action[index]] == values[index][mask[index]].max()


def test_chosen_values_by_hand():
    values = torch.arange(12.0).view(2, 2, 3)
    assert chosen_values(values, torch.tensor([[0, 2], [1, 1]])).tolist() == [[0, 5], [7, 10]]


def test_target_by_hand():
    targets = td_targets(
        torch.tensor([1.0, 1.0]), torch.tensor([10.0, 10.0]), torch.tensor([False, True]), 0.9
    )
    assert targets.tolist() == pytest.approx([10.0, 1.0])


def test_hysteresis_by_hand():
    error = torch.tensor([2.0, -2.0, 0.0])
    assert hysteretic_square(error, 0.25).tolist() == [4.0, 1.0, 0.0]
    assert hysteretic_square(error, 1.0).tolist() == [4.0, 4.0, 0.0]


def test_masked_mean_counts_true_entries_only():
    values = torch.tensor([1.0, 2.0, 30.0])
    assert masked_mean(values, torch.tensor([True, True, False])).item() == 1.5
    assert masked_mean(values).item() == 11.0
    assert masked_mean(values, torch.zeros(3, dtype=torch.bool)).item() == 0.0


def segments(batch=6, steps=7, seed=0):
    """Rewards, next values, terminated, truncated and valid of episodes that end in segments."""
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, batch, steps, generator=generator, dtype=torch.float64)
    ends = torch.rand(batch, steps, generator=generator) < 0.25
    terminated = ends & (torch.rand(batch, steps, generator=generator) < 0.5)
    return rewards, values, terminated, ends & ~terminated


def test_lambda_targets_by_hand():
    """Three steps, gamma 1/2, lambda 1/2, the last one terminal."""
    rewards, following = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[10.0, 20.0, 30.0]])
    terminated = torch.tensor([[False, False, True]])
    valid = torch.ones(1, 3, dtype=torch.bool)
    third = 4.0
    second = 2 + 0.5 * (0.5 * 20 + 0.5 * third)
    first = 1 + 0.5 * (0.5 * 10 + 0.5 * second)
    found = lambda_targets(rewards, following, terminated, valid, 0.5, 0.5)
    assert found.tolist() == [[first, second, third]]
    valid[0, 1] = False  # the first step cannot look beyond its next state
    found = lambda_targets(rewards, following, terminated, valid, 0.5, 0.5)
    assert found[0, 0] == 1 + 0.5 * 10
    assert found[0, 2] == third


def test_lambda_zero_is_one_step_and_one_is_the_return():
    rewards, values, terminated, _ = segments()
    valid = torch.ones_like(terminated)
    one_step = lambda_targets(rewards, values, terminated, valid, 0.9, 0.0)
    assert torch.equal(one_step, td_targets(rewards, values, terminated, 0.9))
    agents = lambda_targets(
        *(x.unsqueeze(-1) for x in (rewards, values, terminated, valid)), 0.9, 1
    )
    torch.testing.assert_close(
        agents.squeeze(-1), lambda_targets(rewards, values, terminated, valid, 0.9, 1)
    )
    never = torch.zeros_like(terminated)
    powers = 0.9 ** torch.arange(8, dtype=torch.float64)
    expected = (rewards * powers[:7]).sum(1) + powers[7] * values[:, -1]
    found = lambda_targets(rewards, values, never, valid, 0.9, 1.0)[:, 0]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("lmbda", [0.3, 0.8, 1.0])
def test_lambda_targets_equal_torchrls(lmbda):
    """Ends in the middle: after a time limit the team idles, so the next observation is known."""
    rewards, values, terminated, truncated = segments(batch=50)
    valid = torch.ones_like(terminated)
    valid[:, 1:] = ~truncated[:, :-1]  # idle after a time limit
    ours = lambda_targets(rewards, values, terminated, valid, 0.97, lmbda)
    parts = (part.unsqueeze(-1) for part in (values, rewards, terminated | truncated, terminated))
    value, reward, done, terminated = parts
    theirs = td_lambda_return_estimate(0.97, lmbda, value, reward, done=done, terminated=terminated)
    torch.testing.assert_close(ours[valid], theirs.squeeze(-1)[valid])


def test_what_is_not_valid_does_not_reach_what_is():
    rewards, values, terminated, _ = segments()
    valid = torch.ones_like(terminated)
    valid[:, 3] = False
    clean = lambda_targets(rewards, values, terminated, valid, 0.9, 0.8)
    rewards[:, 3], values[:, 3] = torch.nan, torch.inf
    dirty = lambda_targets(rewards, values, terminated, valid, 0.9, 0.8)
    assert torch.equal(dirty[valid], clean[valid])
