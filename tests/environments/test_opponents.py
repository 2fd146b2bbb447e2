import itertools
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmarl_mkt.environments import FrozenPolicy
from benchmarl_mkt.environments.opponents import FORMAT
from tests.helpers import task_set
from tests.toys import toy


def write_policy(path, sizes=(2, 3, 2), metadata=None, **replaced):
    torch.manual_seed(5)
    tensors = {}
    for i, (size_in, size_out) in enumerate(itertools.pairwise(sizes)):
        tensors[f"layers.{i}.weight"] = torch.randn(size_out, size_in)
        tensors[f"layers.{i}.bias"] = torch.randn(size_out)
    tensors.update(replaced)
    save_file(tensors, path, metadata={"format": FORMAT} if metadata is None else metadata)
    return tensors


def test_equals_a_numpy_network(tmp_path):
    tensors = write_policy(tmp_path / "p.safetensors")
    policy = FrozenPolicy.load(tmp_path / "p.safetensors")
    observation = torch.randn(5, 4, 2)
    x = observation.numpy()
    for i in range(2):
        x = x @ tensors[f"layers.{i}.weight"].numpy().T + tensors[f"layers.{i}.bias"].numpy()
        x = np.maximum(x, 0) if i == 0 else x
    action = policy(observation)
    assert action.shape == (5, 4)
    np.testing.assert_array_equal(action, x.argmax(-1))
    assert policy.sizes == [2, 3, 2]
    assert not any(p.requires_grad for p in policy.parameters())


def test_the_shipped_chaser_says_where_it_comes_from():
    chaser = FrozenPolicy.load("simple_adversary_chaser")
    assert (chaser.sizes[0], chaser.sizes[-1]) == (8, 5)
    assert chaser.metadata["environment"] == "mpe2 simple_adversary_v3"
    anchors = chaser.provenance["anchors"]
    assert {"random", "goal", "split"} <= set(anchors)
    assert json.loads(chaser.metadata["provenance"]) == chaser.provenance


def test_it_chases():
    """It moves towards the two good agents when both stand in one direction."""
    chaser = FrozenPolicy.load("simple_adversary_chaser")
    toward = {1: (-1, 0), 2: (1, 0), 3: (0, -1), 4: (0, 1)}  # mpe2's left, right, down, up
    for action, direction in toward.items():
        place = torch.tensor(direction, dtype=torch.float32).repeat(4)
        assert chaser(place.view(1, 8)).item() == action


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"metadata": {"format": "other/1"}}, "other/1"),
        ({"metadata": {}}, "None"),
        ({"layers.0.bias": torch.zeros(7)}, "not an opponent policy"),
        ({"sizes": (2, 3, 2), "odd": torch.zeros(1), "more": torch.zeros(1)}, "layers.2.weight"),
    ],
)
def test_other_files_are_refused(tmp_path, change, reason):
    write_policy(tmp_path / "p.safetensors", **change)
    with pytest.raises(ValueError, match="not an opponent policy") as error:
        FrozenPolicy.load(tmp_path / "p.safetensors")
    assert reason in str(error.value)
    assert str(tmp_path / "p.safetensors") in str(error.value)


def test_rubbish_and_unknown_names_are_refused(tmp_path):
    (tmp_path / "p.safetensors").write_bytes(b"rubbish")
    with pytest.raises(ValueError, match="not an opponent policy"):
        FrozenPolicy.load(tmp_path / "p.safetensors")
    with pytest.raises(ValueError, match=r"no policy 'nobody'.*simple_adversary_chaser"):
        FrozenPolicy.load("nobody")


def two_sides(**opponents):
    entry = toy("duel", groups={"red": [1, 2, 1], "blue": [2, 3, 0]})
    return task_set({**entry, "opponents": opponents})


def test_an_opponent_acts_for_its_group(tmp_path):
    """Red sees 4 numbers and has 2 actions; blue, the team, has its own rewards alone."""
    write_policy(tmp_path / "red.safetensors", (4, 3, 2))
    policy = FrozenPolicy.load(tmp_path / "red.safetensors")
    env = two_sides(red=str(tmp_path / "red.safetensors")).get_env_fun(3, False, 0, "cpu")()
    team = env.teams["duel"]
    inner, seen = team.env, []
    original = inner._step
    inner._step = lambda data: (seen.append(data["red", "action"].clone()), original(data))[1]
    assert (team.n_agents, team.n_actions, team.agents) == (2, 3, ["blue_0", "blue_1"])
    data = env.reset()
    expected = policy(inner.reset()["red", "observation"])
    data = env.step(env.rand_action(data))
    assert torch.equal(seen[0], expected)
    action = data["duel", "action"]
    reward = (action[:, 0] + 1) + (action[:, 1] + 1) * 2  # blue's two agents at time 0
    assert data["next", "duel", "reward"][:, 0, 0].tolist() == reward.tolist()


@pytest.mark.parametrize(
    ("opponents", "message"),
    [
        ({"green": "simple_adversary_chaser"}, "green"),
        ({"red": "simple_adversary_chaser", "blue": "simple_adversary_chaser"}, "not all"),
        ({"red": "simple_adversary_chaser"}, r"maps 8 observations to 5 actions.*has 4 and 2"),
        ({"red": "nobody"}, "no policy 'nobody'"),
    ],
)
def test_unfit_opponents_are_refused(opponents, message):
    with pytest.raises(ValueError, match=f"opponents: .*{message}"):
        two_sides(**opponents).get_env_fun(1, False, 0, "cpu")()
