import pytest
import torch
from benchmarl.environments import task_config_registry
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from torchrl.envs.utils import ExplorationType, check_env_specs, set_exploration_type

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.environments import MpeEnv, MultiTaskConfig, MultiTaskTask
from benchmarl_mkt.models import EpsilonGreedyPolicy
from tests.helpers import (
    PUSH,
    SPEAKER,
    accounts_of,
    make_agents,
    make_experiment,
    random_masked,
    task_set,
    team_state,
)
from tests.toys import DEFAULTS, ToyEnv, blocked, toy, toy_observation, toy_reward

ALONE = MktConfig(annealing={"start": 1.0, "end": 1.0, "fraction": 1.0})
CHASED = {"task": "mpe/simple_adversary", "opponents": {"adversary": "simple_adversary_chaser"}}
UNEQUAL = (
    toy("short", length=2, spread=2, masked=True),
    toy("long", length=4, spread=3, groups={"agents": [3, 4, 1]}, terminal=False),
)


def make_env(*tasks, copies: int = 3, seed: int | None = 0, **config):
    return task_set(*tasks, **config).get_env_fun(copies, False, seed, "cpu")()


# ---- specs ----


@pytest.mark.parametrize(
    "tasks",
    [
        (SPEAKER, PUSH, CHASED),
        ("vmas/balance", "vmas/navigation"),
        ("vmas/balance", PUSH),
        UNEQUAL,
        (toy("alone", kind="serial", length=3),),
        (toy("one", kind="serial", length=2, spread=3, masked=True), *UNEQUAL),
    ],
    ids=["mpe", "vmas", "vmas+mpe", "toys", "serial", "serial+vector"],
)
def test_specs(tasks):
    env = make_env(*tasks)
    check_env_specs(env, seed=1)
    env.close()


def test_task_class_specs():
    task = task_set(SPEAKER, PUSH)
    env = task.get_env_fun(2, False, 0, "cpu")()
    assert set(task.group_map(env)) == {"simple_speaker_listener", "simple_push"}
    observation, mask = task.observation_spec(env), task.action_mask_spec(env)
    assert set(observation.keys(True, True)) == {(g, "observation") for g in env.group_map}
    assert set(mask.keys(True, True)) == {(g, "action_mask") for g in env.group_map}
    assert observation["simple_push", "observation"].shape == (2, 19 + 2)
    assert task.state_spec(env) is None
    states = {group: spec.shape[-1] for group, spec in task.group_state_spec(env).items()}
    assert states == {"simple_speaker_listener": 2 * 11, "simple_push": 2 * 19}
    assert task.action_spec(env)["simple_speaker_listener", "action"].space.n == 5
    assert task.max_steps(env) == 25
    assert not task.supports_continuous_actions()
    assert task.supports_discrete_actions()


def test_the_papers_set_has_three_teams_of_two():
    task = MultiTaskTask.MPE.get_from_yaml()
    env = task.get_env_fun(2, False, 0, "cpu")()
    assert {name: len(agents) for name, agents in task.group_map(env).items()} == {
        "simple_speaker_listener": 2,
        "simple_push": 2,
        "simple_adversary": 2,
    }
    assert env.teams["simple_adversary"].agents == ["agent_0", "agent_1"]
    mask = env.reset()["simple_speaker_listener", "action_mask"]
    assert mask[0].tolist() == [[True] * 3 + [False] * 2, [True] * 5]  # the speaker has 3


# ---- one task equals the bare environment ----


@pytest.mark.parametrize("reward", ["sum", "mean"])
@pytest.mark.parametrize("agent_id", [True, False])
def test_one_task_equals_the_bare_environment(agent_id, reward):
    env = make_env("mpe/simple_spread", agent_id=agent_id, reward=reward)
    bare = MpeEnv("simple_spread", 3, seed=None)
    env.set_seed(5)
    bare.set_seed(5)
    data, expected = env.reset(), bare.reset()
    generator = torch.Generator().manual_seed(0)
    for t in range(25):
        observation = data["simple_spread", "observation"]
        assert torch.equal(observation[..., :18], expected["agent", "observation"])
        assert observation.shape[-1] == (18 + 3 if agent_id else 18)
        if agent_id:
            assert torch.equal(observation[..., 18:], torch.eye(3).expand(3, 3, 3))
        own_state = expected["agent", "observation"].flatten(1)
        assert torch.equal(team_state(env, data, "simple_spread"), own_state)
        action = torch.randint(5, (3, 3), generator=generator)
        request = TensorDict({"agent": TensorDict({"action": action}, [3, 3])}, [3])
        expected = bare.step(request)["next"]
        data = env.step(data.set(("simple_spread", "action"), action))["next"]
        rewards = expected["agent", "reward"].squeeze(-1)
        team = rewards.sum(1) if reward == "sum" else rewards.mean(1)
        assert torch.equal(data["simple_spread", "reward"], team.view(3, 1, 1).expand(3, 3, 1))
        assert data["done"].flatten().tolist() == [t == 24] * 3
        assert torch.equal(data["terminated"], expected["terminated"])
        assert torch.equal(data["truncated"], expected["truncated"])


def test_one_vmas_task_equals_the_bare_environment():
    bare_task = task_config_registry["vmas/balance"].get_from_yaml()
    bare = bare_task.get_env_fun(3, False, 0, "cpu")()
    env = make_env("vmas/balance")
    bare.set_seed(7)  # VMAS has one random state for all environments: one after the other
    expected = bare.reset()
    env.set_seed(7)
    data = env.reset()
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        size = expected["agents", "observation"].shape[-1]
        observation = data["balance", "observation"][..., :size]
        torch.testing.assert_close(observation, expected["agents", "observation"])
        action = torch.randint(9, (3, 4), generator=generator)
        request = TensorDict({"agents": TensorDict({"action": action}, [3, 4])}, [3])
        expected = bare.step(request)["next"]
        data = env.step(data.set(("balance", "action"), action))["next"]
        torch.testing.assert_close(
            data["balance", "reward"][:, 0, 0], expected["agents", "reward"].sum((1, 2))
        )


# ---- rounds ----


class Model:
    """A plain Python model of one team of one copy, from the length that it sees at the start."""

    def __init__(self, team, length, reward, agent_id):
        self.groups, self.masked = team["groups"], team["masked"]
        self.own_length, self.length = length, min(length, team["limit"])
        self.terminal = team["terminal"] and length <= team["limit"]  # else the limit truncates it
        self.mean, self.agent_id = reward == "mean", agent_id
        self.t = 0
        self.idle = False  # whether a whole step has passed since the end
        self.won = False if team["wins"] else None
        self.own_state = team["state"]

    @property
    def finished(self):
        return self.t >= self.length

    def state(self):
        """The state of the task's own, else all observations in a row."""
        if self.own_state:
            return [self.t / 5, self.own_length / 5]
        return [number for row in self.rows() for number in row]

    def rows(self):
        longest = max(extra for _, _, extra in self.groups.values())
        return [
            toy_observation(self.t, self.own_length, i, extra) + [0.0] * (longest - extra)
            for count, _, extra in self.groups.values()
            for i in range(count)
        ]

    def observations(self):
        rows = self.rows()
        ids = [[float(i == j) for j in range(len(rows))] for i in range(len(rows))]
        return [row + id_ * self.agent_id for row, id_ in zip(rows, ids)]

    def mask(self):
        most = max(n_actions for _, n_actions, _ in self.groups.values())
        rows = [
            [
                a < n_actions and not (self.masked and a == blocked(self.t, i, n_actions))
                for a in range(most)
            ]
            for count, n_actions, _ in self.groups.values()
            for i in range(count)
        ]
        opened = [[self.idle or (self.finished and not any(row))] * most for row in rows]
        return [[a or b for a, b in zip(*pair)] for pair in zip(rows, opened)]

    def step(self, actions):
        if self.finished:
            self.idle = True
            return 0.0
        indices = [i for count, _, _ in self.groups.values() for i in range(count)]
        earned = sum(toy_reward(self.t, a, i) for a, i in zip(actions, indices))
        self.t += 1
        if self.won is not None:
            self.won = self.t >= self.own_length and actions[0] == 1
        return earned / len(indices) if self.mean else earned


def check_round(env, data, models, copy):
    """Compare what the environment shows of one copy with the models."""
    for name, model in models.items():
        group = data[name]
        torch.testing.assert_close(group["observation"][copy], torch.tensor(model.observations()))
        assert group["action_mask"][copy].tolist() == model.mask()
        state = team_state(env, data, name)[copy]
        torch.testing.assert_close(state, torch.tensor(model.state()))
        assert data["active", name][copy].item() is not model.finished
        won = data.get(("won", name), None)
        assert (None if won is None else won[copy].item()) is model.won
        for flag, expected in (
            ("done", model.finished),
            ("terminated", model.finished and model.terminal),
            ("truncated", model.finished and not model.terminal),
        ):
            assert group[flag][copy].flatten().tolist() == [expected] * len(model.mask())
    over = all(model.finished for model in models.values())
    all_terminal = all(model.terminal for model in models.values())
    assert data["done"][copy].item() is over
    assert data["terminated"][copy].item() is (over and all_terminal)
    assert data["truncated"][copy].item() is (over and not all_terminal)


GROUPS = st.dictionaries(
    st.sampled_from(["red", "blue", "green"]),
    st.tuples(st.integers(1, 3), st.integers(2, 4), st.integers(0, 2)),
    min_size=1,
)
TEAM = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["vector", "serial"]),
        "groups": GROUPS.map(lambda groups: {k: list(v) for k, v in groups.items()}),
        "length": st.integers(1, 4),
        "spread": st.integers(1, 3),
        "terminal": st.booleans(),
        "masked": st.booleans(),
        "limit": st.integers(1, 8),
        "wins": st.booleans(),
        "state": st.booleans(),
    }
)


@settings(max_examples=40)
@given(
    teams=st.lists(TEAM, min_size=1, max_size=4),
    copies=st.integers(1, 4),
    seed=st.integers(0, 99),
    reward=st.sampled_from(["sum", "mean"]),
    agent_id=st.booleans(),
    careless=st.booleans(),
    interrupted=st.booleans(),
)
def test_rounds_equal_a_plain_model(teams, copies, seed, reward, agent_id, careless, interrupted):
    """Random groups, agents, lengths, limits, masks; every copy begins its rounds for itself.

    ``careless`` actions may be unavailable: what is played instead is available and is recorded,
    but for idle steps, which keep what was chosen.
    ``interrupted`` rounds are begun anew before they are over.
    """
    tasks = [toy(f"team_{k}", **team) for k, team in enumerate(teams)]
    env = make_env(*tasks, copies=copies, seed=seed, agent_id=agent_id, reward=reward)
    generator = torch.Generator().manual_seed(seed)
    data = env.reset()
    rounds = [0] * copies

    def new_models(copy):
        return {
            f"team_{k}": Model(
                team,
                round(data[f"team_{k}", "observation"][copy, 0, 1].item() * 10),
                reward,
                agent_id,
            )
            for k, team in enumerate(teams)
        }

    models = [new_models(copy) for copy in range(copies)]
    for copy in range(copies):
        for k, team in enumerate(teams):
            length = models[copy][f"team_{k}"].own_length
            assert team["length"] <= length < team["length"] + team["spread"]
    for step in range(60):
        for copy in range(copies):
            check_round(env, data, models[copy], copy)
        drawn = {}
        for name in env.teams:
            mask = data[name, "action_mask"]
            drawn[name] = random_masked(mask | careless, generator)
            data.set((name, "action"), drawn[name].clone())
        masks = {name: data[name, "action_mask"].clone() for name in env.teams}
        active = {name: data["active", name].clone() for name in env.teams}
        data = env.step(data)
        played = {name: data[name, "action"] for name in env.teams}
        for name, action in played.items():
            assert (chosen(masks[name], action) | ~active[name]).all()
            kept = chosen(masks[name], drawn[name]) | ~active[name]
            assert torch.equal(action[kept], drawn[name][kept])
        data = data["next"]
        for copy in range(copies):
            for name, model in models[copy].items():
                earned = model.step(played[name][copy].tolist())
                shown = data[name, "reward"][copy].flatten().tolist()
                assert shown == pytest.approx([earned] * len(model.mask()))
            check_round(env, data, models[copy], copy)
        begin = data["done"].flatten().clone()
        for copy in begin.nonzero().flatten().tolist():
            rounds[copy] += 1
        if interrupted and step < 6:
            begin |= torch.rand(copies, generator=generator) < 0.2
        if begin.any():
            data = env.reset(data.set("_reset", begin.unsqueeze(-1)))
            for copy in begin.nonzero().flatten().tolist():
                models[copy] = new_models(copy)
        if min(rounds) >= 2:
            break
    assert min(rounds) >= 2


def chosen(mask: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    return mask.gather(-1, action.unsqueeze(-1)).squeeze(-1)


def test_a_finished_serial_task_is_not_stepped():
    """It would raise; a vectorised one is stepped on, and shows nothing of it."""
    env = make_env(
        toy("serial", kind="serial", length=2), toy("vector", length=2), toy("long", length=5)
    )
    env.rollout(5)
    assert env.teams["vector"].env.played == 0  # nobody plays, so nobody is stepped
    env = make_env(toy("uneven", length=1, spread=4), toy("long", length=5), copies=4)
    env.rollout(5)
    assert env.teams["uneven"].env.played > 0


@pytest.mark.parametrize("kind", ["vector", "serial"])
def test_idle_steps(kind):
    """Lengths 2 and 4: two idle steps, zero reward, own done true, then every action available.

    The observation that ends the episode keeps its true mask: a value may bootstrap from it.
    """
    env = make_env(
        toy("short", kind=kind, length=2, masked=True, limit=50), toy("long", length=4), copies=2
    )
    rollout = env.rollout(10, break_when_any_done=True)
    assert rollout.batch_size == (2, 4)
    short, after = rollout["short"], rollout["next", "short"]
    assert rollout["active", "short"][0].flatten().tolist() == [True, True, False, False]
    assert rollout["active", "long"][0].flatten().tolist() == [True] * 4
    assert (after["reward"][:, 2:] == 0).all()
    assert (after["reward"][:, :2] > 0).all()
    assert after["done"][0, :, 0, 0].tolist() == [False, True, True, True]
    assert after["terminated"][0, :, 0, 0].tolist() == [False, True, True, True]
    assert short["action_mask"][:, 3:].all()
    assert not short["action_mask"][:, :3].flatten(2).all(-1).any()
    frozen = after["observation"][:, 1:2].expand(-1, 3, -1, -1)
    assert torch.equal(after["observation"][:, 1:], frozen)
    assert rollout["next", "done"][0].flatten().tolist() == [False] * 3 + [True]


def test_each_team_has_a_seed_of_its_own():
    env = make_env({"task": PUSH, "name": "one"}, {"task": PUSH, "name": "two"})
    data = env.reset()
    assert not torch.equal(data["one", "observation"], data["two", "observation"])


@pytest.mark.parametrize("tasks", [(SPEAKER, PUSH), UNEQUAL], ids=["mpe", "toys"])
def test_the_seed_determines_a_rollout(tasks):
    runs = []
    for seed in (4, 4, 5):
        env = make_env(*tasks, seed=seed)
        torch.manual_seed(0)
        runs.append(env.rollout(12, break_when_any_done=False))
    name = next(iter(env.teams))
    assert (runs[0] == runs[1]).all()
    assert not torch.equal(runs[0][name, "observation"], runs[2][name, "observation"])


# ---- masks ----


def assert_masks_kept(rollout, names):
    for name in names:
        action, mask = rollout[name, "action"], rollout[name, "action_mask"]
        kept = mask.gather(-1, action.unsqueeze(-1))
        assert kept[rollout["active", name].squeeze(-1)].all()


MASKED = (
    toy("short", length=2, spread=3, masked=True, groups={"red": [1, 2, 0], "blue": [2, 4, 1]}),
    toy("serial", kind="serial", length=3, spread=2, masked=True, groups={"agents": [2, 3, 0]}),
)


@pytest.mark.parametrize("tasks", [MASKED, (SPEAKER, PUSH)], ids=["toys", "mpe"])
def test_random_actions_of_the_environment_respect_the_masks(tasks):
    env = make_env(*tasks, copies=8)
    assert_masks_kept(env.rollout(40, break_when_any_done=False), env.teams)


@pytest.mark.parametrize("kind", [ExplorationType.RANDOM, ExplorationType.DETERMINISTIC])
def test_epsilon_greedy_actions_respect_the_masks(kind):
    env = make_env(*MASKED, copies=8)
    sizes = {n: (t.n_agents, t.observation_size, t.n_actions) for n, t in env.teams.items()}
    policy = EpsilonGreedyPolicy(make_agents(sizes), 0.5, 0.5, 1)
    with set_exploration_type(kind):
        rollout = env.rollout(40, policy, break_when_any_done=False)
    assert_masks_kept(rollout, env.teams)


def test_the_toys_refuse_illegal_actions():
    """The tests above rely on it: an illegal action in a running episode raises."""
    env = ToyEnv({**DEFAULTS, "masked": True}, 2, 0, "cpu")
    data = env.reset()
    illegal = (~data["agents", "action_mask"]).int().argmax(-1)
    with pytest.raises(ValueError, match="illegal action"):
        env.step(data.set(("agents", "action"), illegal))


# ---- configuration ----


def test_shipped_sets_have_the_schemas_defaults():
    config = MultiTaskTask.CUSTOM
    with pytest.raises(ValueError, match="the task set is empty"):
        config.get_from_yaml()
    mpe = MultiTaskTask.MPE.get_from_yaml()
    defaults = MultiTaskConfig()
    assert (mpe.config["agent_id"], mpe.config["reward"]) == (defaults.agent_id, defaults.reward)


def test_an_entry_patches_its_tasks_configuration():
    env = make_env({"task": PUSH, "config": {"max_cycles": 4}, "name": "quick"})
    assert env.rollout(30).batch_size == (3, 4)
    assert list(env.teams) == ["quick"]


def test_single_keeps_everything_but_the_other_tasks():
    task = task_set({"task": PUSH, "config": {"max_cycles": 4}}, SPEAKER, reward="mean")
    single = task.single("simple_push")
    assert [team.name for team in single.team_configs] == ["simple_push"]
    assert single.config["reward"] == "mean"
    assert single.team_configs[0] == task.team_configs[0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"tasks": []}, r"^tasks: the task set is empty"),
        ({"tasks": ["mpe/simple_pusch"]}, r"^tasks: unknown task 'mpe/simple_pusch'.*simple_push"),
        ({"tasks": ["multitask/mpe"]}, r"^tasks: unknown task 'multitask/mpe'"),
        ({"tasks": [PUSH, PUSH]}, r"^tasks: 'simple_push' is in the set twice"),
        ({"tasks": ["toy/continuous"]}, r"^tasks: 'toy/continuous' has continuous actions only"),
        ({"tasks": [{"task": PUSH, "name": "state"}]}, r"^tasks: 'state' cannot name a team"),
        ({"tasks": [{"task": PUSH, "name": "a.b"}]}, r"^tasks: 'a.b' cannot name a team"),
        ({"tasks": [{"task": PUSH, "name": "items"}]}, r"^tasks: 'items' cannot name a team"),
        ({"tasks": [{"name": "push"}]}, r"^tasks: the entry .* must be a task's name"),
        ({"tasks": [{"task": PUSH, "length": 3}]}, r"^tasks: .*unknown: \['length'\]"),
        (
            {"tasks": [{"task": PUSH, "config": {"length": 3}}]},
            r"^tasks: mpe/simple_push has no configuration \['length'\].*max_cycles",
        ),
        ({"tasks": [PUSH], "reward": "max"}, r"^reward: 'max' must be one of"),
        ({"tasks": [PUSH], "rewards": "sum"}, r"^task: unknown keys \['rewards'\]"),
    ],
)
def test_wrong_sets_are_refused_in_one_line(config, message):
    with pytest.raises(ValueError, match=message) as error:
        MultiTaskTask.CUSTOM.get_task(config).get_env_fun(1, False, 0, "cpu")()
    assert "\n" not in str(error.value)


def test_one_task_of_a_set_alone():
    whole = MultiTaskTask.MPE.get_from_yaml()
    only = MultiTaskTask.MPE.get_task({**whole.config, "only": "simple_adversary"})
    assert only.team_configs == [whole.team_configs[2]]
    assert only.single("simple_adversary").config == whole.single("simple_adversary").config
    env = only.get_env_fun(2, continuous_actions=False, seed=0, device="cpu")()
    assert list(env.group_map) == ["simple_adversary"]
    with pytest.raises(ValueError, match=r"only: 'push' is not in the task set; it has .*push"):
        MultiTaskTask.MPE.get_task({**whole.config, "only": "push"})


def test_continuous_actions_are_refused():
    with pytest.raises(ValueError, match="prefer_continuous_actions"):
        task_set(PUSH).get_env_fun(1, True, 0, "cpu")


def test_the_vmas_set_trains(tmp_path):
    """Four agents in all three scenarios, so that QMIX mixing takes them."""
    task = MultiTaskTask.VMAS.get_from_yaml()
    experiment = make_experiment(tmp_path, task, ALONE, evaluation=False)
    sizes = {name: len(agents) for name, agents in experiment.algorithm.group_map.items()}
    assert sizes == {"balance": 4, "transport": 4, "wheel": 4}
    trunk = [p.clone() for p in experiment.policy.parameters()]
    experiment.run()
    assert experiment.total_frames == 100
    assert any(not torch.equal(a, b) for a, b in zip(trunk, experiment.policy.parameters()))
    frames = {name: account["frames"] for name, account in accounts_of(experiment).items()}
    assert frames["transport"] == frames["wheel"] == 100
    assert 0 < frames["balance"] <= 100  # its episodes end when the package falls


def test_vmas_rewards_of_the_set_are_the_teams():
    """Each of its scenarios gives every agent the same reward: their mean is that one."""
    for team in MultiTaskTask.VMAS.get_from_yaml().team_configs:
        env = team.task_class().get_env_fun(3, False, 0, "cpu")()
        reward = env.rollout(5)["next", "agents", "reward"]
        assert torch.equal(reward, reward[..., :1, :].expand_as(reward))


def test_closing_leaves_the_number_of_threads_alone():
    env, threads = make_env(toy("a", "serial")), torch.get_num_threads()
    env.reset()
    env.close()
    assert torch.get_num_threads() == threads
