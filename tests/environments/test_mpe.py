import importlib
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tensordict import TensorDict
from torchrl.envs.utils import check_env_specs

from benchmarl_mkt.environments import MpeEnv, MpeTask
from benchmarl_mkt.teams.evaluation import play, random_policy
from tests.helpers import PUSH, SPEAKER, task_set

SCENARIOS = [task.name.lower() for task in MpeTask]
CHASED = {"task": "mpe/simple_adversary", "opponents": {"adversary": "simple_adversary_chaser"}}
EPISODES = 500
STEPS = 25


def random_actions(env: MpeEnv, generator: torch.Generator) -> TensorDict:
    data = TensorDict({}, env.batch_size)
    for group, members in env.group_map.items():
        spec = env.full_action_spec[group, "action"]
        shape = (*env.batch_size, len(members))
        data[group] = TensorDict(
            {"action": torch.randint(int(spec.space.n), shape, generator=generator)}, shape
        )
    return data


def mpe2_environment(scenario: str, n_agents: int | None = None):
    """mpe2's own parallel environment."""
    module = importlib.import_module(f"mpe2.{scenario}.{scenario}")
    return module.parallel_env(max_cycles=STEPS, **({"N": n_agents} if n_agents else {}))


def eager_actions(env: MpeEnv, references: list, generator: torch.Generator) -> TensorDict:
    """Half the moves at random, half towards the first other agent, so that agents collide."""
    data = random_actions(env, generator)
    for copy, reference in enumerate(references):
        world = reference.unwrapped.world
        for group, members in env.group_map.items():
            for i, name in enumerate(members):
                me = next(agent for agent in world.agents if agent.name == name)
                other = next(agent for agent in world.agents if agent is not me)
                moves = int(env.full_action_spec[group, "action"].space.n) >= 5
                if moves and torch.rand((), generator=generator) < 0.5:
                    offset = other.state.p_pos - me.state.p_pos
                    axis = int(np.abs(offset).argmax())
                    data[group, "action"][copy, i] = 1 + 2 * axis + int(offset[axis] > 0)
    return data


@pytest.mark.parametrize(
    ("scenario", "n_agents"),
    [*((name, None) for name in SCENARIOS), ("simple_spread", 2), ("simple_spread", 5)],
)
def test_equals_mpe2s_own_parallel_environment(scenario, n_agents):
    """Same random generator, same actions: same observations, rewards and lengths, bit by bit."""
    copies, seed = 3, 11
    env = MpeEnv(scenario, copies, seed=seed, n_agents=n_agents)
    references = [mpe2_environment(scenario, n_agents) for _ in range(copies)]
    streams = np.random.SeedSequence(seed).spawn(copies)
    draws = [np.random.default_rng(stream) for stream in streams]
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):  # episodes
        data = env.reset()
        for reference, draw in zip(references, draws):
            reference.reset(seed=0)
            reference.unwrapped.scenario.reset_world(reference.unwrapped.world, draw)
        names = references[0].possible_agents
        assert [name for members in env.group_map.values() for name in members] == names
        places = [(g, i, n) for g, members in env.group_map.items() for i, n in enumerate(members)]
        for copy, reference in enumerate(references):
            for group, i, name in places:
                expected = reference.aec_env.observe(name)
                np.testing.assert_array_equal(data[group, "observation"][copy, i], expected)
        rewards_seen = 0
        for t in range(STEPS):
            request = eager_actions(env, references, generator)
            after = env.step(request)["next"]
            for copy, reference in enumerate(references):
                observations, rewards, terminations, truncations, _ = reference.step(
                    {name: int(request[group, "action"][copy, i]) for group, i, name in places}
                )
                for group, i, name in places:
                    shown = after[group, "observation"][copy, i]
                    np.testing.assert_array_equal(shown, observations[name])
                    assert after[group, "reward"][copy, i].item() == np.float32(rewards[name])
                    rewards_seen += 1
                ended = {terminations[n] or truncations[n] for n in names}
                assert ended == {t == STEPS - 1} == {after["done"][copy].item()}
        assert rewards_seen == STEPS * len(names) * copies  # mpe2's 25th reward is kept


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_scenario_ends_an_episode_by_itself(scenario):
    """MpeEnv leaves mpe2's ``is_terminal`` out; it must be false even where everybody meets."""
    game = mpe2_environment(scenario).unwrapped
    game.reset(seed=0)
    for entity in [*game.world.agents, *game.world.landmarks]:
        entity.state.p_pos = np.zeros(2)
    assert not game.scenario.is_terminal(game.world)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_specs(scenario):
    check_env_specs(MpeEnv(scenario, num_envs=3, max_cycles=4, seed=0))


@pytest.mark.parametrize("terminal", [True, False])
def test_the_limit_is_terminal_or_a_truncation(terminal):
    env = MpeEnv("simple_push", 2, max_cycles=3, terminate_at_limit=terminal, seed=0)
    rollout = env.rollout(10, break_when_any_done=True)
    assert rollout.batch_size == (2, 3)
    ends = rollout["next"]
    expected = torch.tensor([False, False, True]).view(1, 3, 1).expand(2, 3, 1)
    assert torch.equal(ends["done"], expected)
    assert torch.equal(ends["terminated"], expected & terminal)
    assert torch.equal(ends["truncated"], expected & (not terminal))


@settings(max_examples=5)
@given(seed=st.integers(0, 2**31), num_envs=st.integers(1, 4))
def test_the_seed_determines_everything(seed, num_envs):
    first, second, other = (
        MpeEnv("simple_adversary", num_envs, seed=s) for s in (seed, seed, seed + 1)
    )
    runs = []
    for env in (first, second, other):
        env.reset()
        generator = torch.Generator().manual_seed(1)
        seen = [env.step(random_actions(env, generator))["next"] for _ in range(3)]
        seen.append(env.reset())
        runs.append(torch.stack([data["agent", "observation"] for data in seen]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    env = first
    env.set_seed(seed)
    again = env.reset()
    env.set_seed(seed)
    assert torch.equal(again["agent", "observation"], env.reset()["agent", "observation"])


def test_copies_are_independent_draws():
    observation = MpeEnv("simple_push", 6, seed=0).reset()["agent", "observation"]
    assert len({tuple(row.flatten().tolist()) for row in observation}) == 6


def test_partial_reset_leaves_the_other_copies():
    env = MpeEnv("simple_spread", 3, seed=0)
    env.reset()
    generator = torch.Generator().manual_seed(0)
    before = env.step(random_actions(env, generator))["next"]
    mask = torch.tensor([False, True, False]).unsqueeze(-1)
    after = env.reset(before.clone().set("_reset", mask))
    same = (after["agent", "observation"] == before["agent", "observation"]).flatten(1).all(1)
    assert same.tolist() == [True, False, True]
    for t in range(2, STEPS + 2):  # copies 0 and 2 are one step ahead of copy 1
        ended = env.step(random_actions(env, generator))["next", "done"].flatten().tolist()
        assert ended == [t >= STEPS, t > STEPS, t >= STEPS]


class Uninstalled:
    """An import finder that knows no mpe2."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "mpe2":
            raise ModuleNotFoundError("No module named 'mpe2'", name="mpe2")


def test_missing_mpe2_names_the_extra(monkeypatch):
    for name in [n for n in sys.modules if n == "mpe2" or n.startswith("mpe2.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Uninstalled, *sys.meta_path])
    with pytest.raises(ImportError, match=r"mpe/simple_push.*benchmarl-mkt\[mpe\]"):
        MpeEnv("simple_push", 1)


def test_yaml_files_are_complete():
    for task in MpeTask:
        config = task.get_from_yaml().config
        sizes = {"n_agents": 3} if task.name == "SIMPLE_SPREAD" else {}
        assert config == {"max_cycles": 25, "terminate_at_limit": True, **sizes}


@pytest.mark.parametrize(
    ("scenario", "n_agents"), [("simple_spread", 0), ("simple_spread", 2.0), ("simple_push", 3)]
)
def test_a_number_of_agents_that_cannot_be(scenario, n_agents):
    with pytest.raises(ValueError, match=r"task.n_agents: .* of mpe/simple_spread alone"):
        MpeEnv(scenario, 1, n_agents=n_agents)


# ---- anchors: known scores in mpe2's scaling ----


def interval(returns: torch.Tensor) -> tuple[float, float]:
    """Mean, and half width of its 99.9 % interval."""
    values = returns.double().numpy()
    return values.mean(), 3.3 * stats.sem(values)


@pytest.fixture(scope="module")
def at_random(registered) -> dict[str, torch.Tensor]:
    task = task_set(SPEAKER, PUSH, CHASED)
    policy = random_policy([team.name for team in task.team_configs])
    return play(task, policy, EPISODES, seed=77).returns


@pytest.mark.parametrize(
    ("task", "low", "high"),
    [
        ("simple_speaker_listener", -80, -75),
        ("simple_push", -29, -27),
        ("simple_adversary", -4, -1.5),
    ],
)
def test_random_play(at_random, task, low, high):
    mean, half = interval(at_random[task])
    assert low - half <= mean <= high + half
    assert half < 12


def steer(offset: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """Actions [...] that bring an agent to rest at ``offset`` [..., 2]: it coasts 0.4 v further."""
    error = offset - 0.4 * velocity
    axis = np.abs(error).argmax(-1)
    along = np.take_along_axis(error, axis[..., None], -1)[..., 0]
    return np.where(np.abs(along) < 0.1, 0, 1 + 2 * axis + (along > 0))


def scripted_return(task, targets) -> torch.Tensor:
    """Returns of a team that goes where ``targets(games)`` [B, n, 2] says."""
    env = task.get_env_fun(EPISODES, False, seed=78, device="cpu")()
    ((name, team),) = env.teams.items()
    games = team.env.games
    members = [games.agents.index(agent) for agent in team.agents]
    data, returns = env.reset(), torch.zeros(EPISODES)
    for _ in range(STEPS):
        offset = targets(games) - games.position[:, members]
        action = torch.from_numpy(steer(offset, games.velocity[:, members]))
        data = env.step(data.set((name, "action"), action))["next"]
        returns += data[name, "reward"][:, 0, 0]
    assert data["done"].all()
    return returns


def goal_of(games) -> np.ndarray:
    """Positions of the goals [B, 2]."""
    return games.position[np.arange(len(games.goal)), games.goal]


def to_goal(games):
    return np.stack([goal_of(games)] * 2, 1)


def split(games):
    """Entities 3 and 4 are the landmarks."""
    other = games.position[np.arange(len(games.goal)), 7 - games.goal]
    return np.stack([goal_of(games), other], 1)


def adversary_to_goal(games):
    """The good agent gets out of the way to a far corner."""
    return np.stack([goal_of(games), -3.0 * np.sign(goal_of(games))], 1)


@pytest.mark.parametrize(("behaviour", "anchor"), [(to_goal, 19.5), (split, 22.1)])
def test_scripted_play_against_the_chaser(behaviour, anchor):
    mean, half = interval(scripted_return(task_set(CHASED), behaviour))
    assert abs(mean - anchor) < half + 0.5
    assert half < 2.5


def test_scripted_play_on_push():
    mean, half = interval(scripted_return(task_set(PUSH), adversary_to_goal))
    assert abs(mean - -8.1) < half + 0.5
    assert half < 1.5


def test_the_sum_on_push_is_the_adversarys_distance_to_the_goal():
    env = task_set(PUSH).get_env_fun(4, False, seed=0, device="cpu")()
    games = env.teams["simple_push"].env.games
    env.reset()
    for _ in range(5):
        reward = env.step(env.rand_action())["next", "simple_push", "reward"][:, 0, 0]
        distances = np.linalg.norm(games.position[:, 0] - goal_of(games), axis=-1)
        assert reward.tolist() == pytest.approx((-distances).tolist(), rel=1e-5)
