import pytest
import torch
from torch.nn.functional import pad

from benchmarl_mkt.environments import Team
from tests.toys import DEFAULTS, ToyTask, blocked, toy_observation, toy_reward

TWO_SIDES = {"red": [1, 2, 2], "blue": [2, 4, 0]}  # 5 and 3 observations, 2 and 4 actions


def make_team(kind: str = "VECTOR", copies: int = 2, team: dict | None = None, **config) -> Team:
    task = ToyTask[kind].get_task({**DEFAULTS, **config})
    return Team(task, copies, "team", **{"seed": 0, **(team or {})})


def everything(team: Team) -> torch.Tensor:
    return torch.ones(team._elapsed.shape, dtype=torch.bool)


@pytest.mark.parametrize("kind", ["VECTOR", "SERIAL"])
@pytest.mark.parametrize("agent_id", [True, False])
def test_groups_are_merged_padded_and_numbered(kind, agent_id):
    team = make_team(kind, groups=TWO_SIDES, team={"agent_id": agent_id})
    step = team.reset()
    rows = [toy_observation(0, 3, 0, 2), *(toy_observation(0, 3, i, 0) for i in (0, 1))]
    rows = [pad(torch.tensor(row), (0, 5 - len(row))) for row in rows]
    padded = torch.stack(rows)
    expected = torch.cat([padded, torch.eye(3)], -1) if agent_id else padded
    assert torch.equal(step.observation, expected.expand(2, -1, -1))
    assert step.state is None  # it is in the observations, without the agent id
    assert team.state_length == 5
    assert step.action_mask.tolist() == [[[True, True, False, False]] + [[True] * 4] * 2] * 2
    assert (team.n_agents, team.n_actions) == (3, 4)
    assert team.observation_size == expected.shape[-1]
    assert team.state_size == 15
    assert team.agents == ["red_0", "blue_0", "blue_1"]


@pytest.mark.parametrize("reward", ["sum", "mean"])
def test_rewards_are_summed_or_averaged(reward):
    team = make_team(groups=TWO_SIDES, team={"reward": reward})
    team.reset()
    action = torch.tensor([[1, 3, 0], [0, 2, 2]])
    earned = team.step(action, everything(team)).reward
    total = [sum(toy_reward(0, a, i) for a, i in zip(row, (0, 0, 1))) for row in action.tolist()]
    expected = total if reward == "sum" else [value / 3 for value in total]
    assert earned.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["VECTOR", "SERIAL"])
def test_own_masks_are_kept_and_padded(kind):
    team = make_team(kind, groups={"red": [1, 2, 0], "blue": [2, 3, 0]}, masked=True, length=4)
    step = team.reset()
    for t in range(4):
        expected = torch.ones(3, 3, dtype=torch.bool)
        expected[0, 2] = False
        for row, (index, n_actions) in enumerate(((0, 2), (0, 3), (1, 3))):
            expected[row, blocked(t, index, n_actions)] = False
        assert torch.equal(step.action_mask, expected.expand(2, -1, -1))
        step = team.step(step.action_mask.int().argmax(-1), everything(team))


@pytest.mark.parametrize("kind", ["VECTOR", "SERIAL"])
def test_inactive_copies_stand_still(kind):
    team = make_team(kind, masked=True, state=True)
    team.reset()
    before = team.step(team._shown.action_mask.int().argmax(-1), everything(team))
    active = torch.tensor([True, False])
    # The action for the inactive copy is even an illegal one.
    action = before.action_mask.int().argmax(-1)
    action[1] = 2
    after = team.step(action, active)
    for old, new in zip(before[:3], after[:3]):
        assert torch.equal(old[1], new[1])
        assert not torch.equal(old[0], new[0])
    assert after.reward[1].item() == 0
    assert after.reward[0].item() > 0
    nobody = team.step(action, torch.tensor([False, False]))
    assert nobody.reward.tolist() == [0, 0]
    assert torch.equal(nobody.observation, after.observation)


@pytest.mark.parametrize("kind", ["VECTOR", "SERIAL"])
def test_unavailable_actions_are_replaced_in_place_by_available_ones(kind):
    """What is stored is what was played; in copies that rest what was chosen stays."""
    team = make_team(kind, masked=True, copies=40)
    mask = team.reset().action_mask
    legal, illegal = mask.int().argmax(-1), (~mask).int().argmax(-1)
    action = legal.clone()
    action[:, 0] = illegal[:, 0]
    step = team.step(action, everything(team))  # the toy raises at an illegal action
    assert mask.gather(-1, action.unsqueeze(-1)).all()
    assert torch.equal(action[:, 1], legal[:, 1])
    assert set(action[:, 0].tolist()) == {1, 2}  # uniform among the available, not the first
    expected = [sum(toy_reward(0, a, i) for i, a in enumerate(row)) for row in action.tolist()]
    assert step.reward.tolist() == pytest.approx(expected)
    chosen = (~step.action_mask).int().argmax(-1)
    stored = chosen.clone()
    team.step(stored, torch.arange(40) == 0)
    assert step.action_mask[0].gather(-1, stored[0].unsqueeze(-1)).all()
    assert torch.equal(stored[1:], chosen[1:])


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("kind", ["VECTOR", "SERIAL"])
def test_ends_are_terminated_or_truncated(kind, terminal):
    team = make_team(kind, length=2, terminal=terminal)
    team.reset()
    action = torch.zeros(2, 2, dtype=torch.long)
    step = team.step(action, everything(team))
    assert not (step.terminated | step.truncated).any()
    step = team.step(action, everything(team))
    assert step.terminated.tolist() == [terminal] * 2
    assert step.truncated.tolist() == [not terminal] * 2


@pytest.mark.parametrize("kind", ["VECTOR", "SERIAL"])
def test_max_steps_truncates(kind):
    team = make_team(kind, length=50, limit=3)
    team.reset()
    action = torch.zeros(2, 2, dtype=torch.long)
    for t in range(1, 4):
        step = team.step(action, everything(team))
        assert step.truncated.tolist() == [t == 3] * 2
        assert not step.terminated.any()
    team.reset(torch.tensor([True, False]))
    assert team._elapsed.tolist() == [0, 3]


@pytest.mark.parametrize("kind", ["VECTOR", "SERIAL"])
def test_partial_reset(kind):
    team = make_team(kind, length=4)
    team.reset()
    team.step(torch.zeros(2, 2, dtype=torch.long), everything(team))
    step = team.reset(torch.tensor([True, False]))
    assert step.observation[:, 0, 0].tolist() == pytest.approx([0.0, 0.1])  # time / 10
    step = team.step(torch.zeros(2, 2, dtype=torch.long), everything(team))
    assert step.observation[:, 0, 0].tolist() == pytest.approx([0.1, 0.2])
    assert step.reward.tolist() == [2 * 0 + 3, 2 * 1 + 3]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"reward: 'product' of task 'team'"):
        make_team(team={"reward": "product"})
    with pytest.raises(ValueError, match=r"tasks: 'team' has continuous actions only"):
        make_team("CONTINUOUS")
