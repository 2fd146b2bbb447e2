import pytest
import torch
from benchmarl.algorithms import MappoConfig, QmixConfig, VdnConfig
from tensordict import TensorDict

from benchmarl_mkt.environments.multitask import OwnEpisode
from tests.helpers import make_experiment, task_set
from tests.toys import toy


def steps(active: list[bool], done: list[bool]) -> TensorDict:
    """Steps of a team of two agents in a round that is not over; numbered."""
    n, own = len(active), torch.tensor(done).view(-1, 1, 1).expand(-1, 2, 1)
    never = torch.zeros(n, 1, dtype=torch.bool)
    return TensorDict(
        {
            "number": torch.arange(n),
            "active": {"a": torch.tensor(active).unsqueeze(-1)},
            "next": {
                "a": {"done": own, "terminated": own, "truncated": ~own & False},
                **{flag: never.clone() for flag in ("done", "terminated", "truncated")},
            },
        },
        [n],
    )


def test_ends_are_the_teams_own_and_idle_steps_give_way_to_its_own_in_turn():
    active, done = [True, False, True, False, False], [False, True, True, True, True]
    batch = OwnEpisode("a")(steps(active, done))
    assert batch["number"].tolist() == [0, 0, 2, 2, 0]
    assert batch["active", "a"].all()
    for flag in ("done", "terminated"):
        assert batch["next", flag].flatten().tolist() == [False, False, True, True, False]
    assert not batch["next", "truncated"].any()


def test_without_idle_steps_or_own_ones_every_step_stays():
    for active in ([True] * 3, [False] * 3):
        batch = OwnEpisode("a")(steps(active, [False, True, True]))
        assert batch["number"].tolist() == [0, 1, 2]
        assert batch["next", "done"].flatten().tolist() == [False, True, True]


def test_sequences_keep_their_steps():
    batch = steps([True, False], [True, True]).unsqueeze(0)
    assert OwnEpisode("a")(batch)["number"].tolist() == [[0, 1]]
    assert batch["next", "done"].all()


@pytest.mark.parametrize("config", [QmixConfig, VdnConfig, MappoConfig])
def test_what_benchmarl_samples_of_a_short_task_is_its_own(tmp_path, config):
    """Episodes of 2 and 5 steps: three of five stored steps of the short one are idle."""
    task = task_set(toy("short", length=2), toy("long", length=5), name="CUSTOM")
    experiment = make_experiment(tmp_path, task, config.get_from_yaml(), evaluation=False)
    experiment.run()
    buffer = experiment.replay_buffers["short"]
    assert not buffer.storage[:]["active", "short"].all()
    sample = buffer.sample()
    assert sample["active", "short"].all()
    own = sample["next", "short", "done"].any(-2)
    assert own.any() and torch.equal(sample["next", "done"], own)
