import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict
from torchrl.envs.utils import ExplorationType, set_exploration_type

from benchmarl_mkt.models import EpsilonGreedyPolicy
from benchmarl_mkt.models.actions import random_actions
from tests.helpers import make_agents

SIZES = {"one": (2, 4, 3), "two": (3, 5, 6)}


def make_policy(eps_init=1.0, eps_end=0.1, frames=100) -> EpsilonGreedyPolicy:
    return EpsilonGreedyPolicy(make_agents(SIZES), eps_init, eps_end, frames)


def make_data(batch: int) -> TensorDict:
    data = TensorDict({}, batch_size=[batch])
    for task, (agents, size, actions) in SIZES.items():
        mask = torch.rand(batch, agents, actions) < 0.5
        mask[..., -1] |= ~mask.any(-1)
        data[task] = TensorDict(
            {"observation": torch.randn(batch, agents, size), "action_mask": mask},
            batch_size=[batch, agents],
        )
    return data


def assert_legal(data: TensorDict) -> None:
    for task in SIZES:
        action, mask = data[task, "action"], data[task, "action_mask"]
        assert mask.gather(-1, action.unsqueeze(-1)).all()


@pytest.mark.parametrize("eps", [0.0, 0.5, 1.0])
def test_actions_are_available_ones(eps):
    policy = make_policy(eps_init=eps, eps_end=0.0)
    with set_exploration_type(ExplorationType.RANDOM):
        assert_legal(policy(make_data(200)))


def test_deterministic_actions_are_greedy_whatever_epsilon():
    policy, data = make_policy(eps_init=1.0), make_data(50)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        policy(data)
    for task, agent in policy.agents.items():
        values = agent.evaluate(data).masked_fill(~data[task, "action_mask"], -torch.inf)
        assert torch.equal(data[task, "action"], values.argmax(-1))


@pytest.mark.parametrize("eps", [0.2, 0.8])
def test_epsilon_is_the_share_of_random_actions(eps):
    policy = make_policy(eps_init=eps, eps_end=0.0)
    data = make_data(1).expand(4000).clone()
    for task in SIZES:
        data[task, "action_mask"][:] = True
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        greedy = policy(data.clone())
    with set_exploration_type(ExplorationType.RANDOM):
        explored = policy(data.clone())
    for task, (agents, _, actions) in SIZES.items():
        share = (greedy[task, "action"] != explored[task, "action"]).double().mean().item()
        expected = eps * (1 - 1 / actions)
        assert share == pytest.approx(expected, abs=4 * (0.25 / (4000 * agents)) ** 0.5)


def test_epsilon_falls_linearly_to_its_end():
    policy = make_policy(eps_init=1.0, eps_end=0.1, frames=90)
    seen = []
    for _ in range(4):
        policy.step(30)
        seen.append(policy.eps.item())
    assert seen == pytest.approx([0.7, 0.4, 0.1, 0.1], abs=1e-6)


def test_epsilon_is_part_of_the_state():
    policy = make_policy()
    policy.step(50)
    restored = make_policy()
    restored.load_state_dict(policy.state_dict())
    assert restored.eps.item() == pytest.approx(0.55)


def test_both_tasks_act_through_the_declared_keys():
    policy = make_policy()
    assert set(policy.in_keys) == {
        (task, key) for task in SIZES for key in ("observation", "action_mask")
    }
    assert set(policy.out_keys) == {(task, "action") for task in SIZES}


@given(mask=st.lists(st.booleans(), min_size=1, max_size=6).filter(any))
def test_random_actions_draw_every_available_action_and_no_other(mask):
    drawn = random_actions(torch.tensor(mask).expand(400, -1))
    assert set(drawn.tolist()) == {i for i, available in enumerate(mask) if available}


def test_random_actions_are_uniform():
    drawn = random_actions(torch.tensor([True, False, True, True]).expand(30_000, 4))
    shares = torch.bincount(drawn, minlength=4) / 30_000
    assert shares.tolist() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3], abs=0.015)
