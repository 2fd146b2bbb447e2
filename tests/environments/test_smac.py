"""StarCraft II's tasks at the module boundary: smacv2 itself is stood in for, see stand_ins."""

import os
import sys
from importlib.util import find_spec

import pytest
import torch
from benchmarl.environments import task_config_registry
from torchrl.envs.utils import check_env_specs

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.environments import SmacTask, StarcraftClass
from benchmarl_mkt.environments.battles.smac import MAPS
from benchmarl_mkt.models.entity import entity_rows
from benchmarl_mkt.teams.evaluation import play, random_policy
from tests.helpers import REPOSITORY, make_experiment, task_set
from tests.toys import toy

needs_jaxmarl = pytest.mark.skipif(
    find_spec("jaxmarl") is None, reason="the stand-in needs JaxMARL: 'benchmarl-mkt[smax]'"
)
needs_starcraft = pytest.mark.skipif(
    "SC2PATH" not in os.environ or find_spec("smacv2") is None,
    reason="needs StarCraft II and smacv2 (SC2PATH is not set)",
)
ALONE = MktConfig(annealing={"start": 1.0, "end": 1.0, "fraction": 1.0})
THREE = {"n_units": 3, "n_enemies": 3, "start_positions": {"dist_type": "surrounded"}}
SMAC = {"task": "smac/3m", "config": {"continuing_episode": True}}
SMACV2 = {"task": "smacv2/protoss_5_vs_5", "name": "v2", "config": {"capability_config": THREE}}


@pytest.fixture
def stand_in(monkeypatch):
    """smacv2's stand-in, importable; its environment's class."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "tests" / "stand_ins"))
    monkeypatch.setattr("torchrl.envs.libs.smacv2._has_smacv2", True)
    from smacv2.env import StarCraft2Env

    monkeypatch.setattr(StarCraft2Env, "made", [])
    yield StarCraft2Env
    for name in [n for n in sys.modules if n.split(".")[0] == "smacv2"]:
        monkeypatch.delitem(sys.modules, name)


def make_env(*tasks, copies=2):
    return task_set(*tasks, reward="mean").get_env_fun(copies, False, 5, "cpu")()


def test_maps_and_sets_are_shipped(registered):
    files = {path.stem for path in (REPOSITORY / "conf" / "task" / "smac").glob("*.yaml")}
    assert files == {name.lower() for name in MAPS} == {task.name.lower() for task in SmacTask}
    for name in MAPS:
        config = task_config_registry[f"smac/{name.lower()}"].get_from_yaml().config
        assert config == {"map_name": name, "difficulty": "7", "continuing_episode": False}
    for name, tasks in (
        ("smacv2_5", ["smacv2/protoss_5_vs_5", "smacv2/terran_5_vs_5", "smacv2/zerg_5_vs_5"]),
        ("smac_8", ["smac/8m", "smac/8m_vs_9m", "smac/3s5z"]),
    ):
        found = task_config_registry[f"multitask/{name}"].get_from_yaml()
        assert [team.task for team in found.team_configs] == tasks
        assert found.config["reward"] == "mean"
        assert all(isinstance(team.task_class(), StarcraftClass) for team in found.team_configs)


@pytest.mark.skipif(find_spec("smacv2") is not None, reason="smacv2 is installed")
@pytest.mark.parametrize("name", ["smac_5", "smacv2_5"])
def test_without_the_game_one_line_says_what_to_install(name, registered):
    task = task_config_registry[f"multitask/{name}"].get_from_yaml()
    with pytest.raises(ImportError, match=r"needs StarCraft II: pip install git.*SC2PATH") as found:
        task.get_env_fun(1, False, 0, "cpu")()
    assert "\n" not in str(found.value)


@needs_jaxmarl
def test_specs(stand_in):
    env = make_env(SMAC, SMACV2)
    check_env_specs(env)
    assert {name: (team.n_agents, team.n_actions) for name, team in env.teams.items()} == {
        "3m": (3, 9),
        "v2": (3, 9),
    }
    assert (env.teams["3m"].max_steps, env.teams["v2"].max_steps) == (60, 200)
    assert (env.teams["3m"].state_size, env.teams["3m"].observation_size) == (48, 87 + 3)
    env.close()


@needs_jaxmarl
def test_what_an_ally_sees_is_described(stand_in, monkeypatch):
    """Moves, enemies (shootable, distance, ...), allies (visible, ...), itself: smacv2's order."""
    env = make_env(SMAC, SMACV2)
    team = env.teams["3m"]
    data = env.reset()
    for _ in range(6):  # until all are in sight
        data["3m", "action"] = torch.where(data["3m", "action_mask"][..., 4], 4, 0)  # go east
        data["v2", "action"] = data["v2", "action_mask"].int().argmax(-1)
        data = env.step(data)["next"]
    seen = data["3m", "observation"]
    assert team.layout.own == ((0, 4), (77, 87))
    assert team.layout.agent_id == 3
    assert team.layout.basic_actions(9) == [0, 1, 2, 3, 4, 5]
    rows = seen.reshape(-1, seen.shape[-1])
    enemies, allies = entity_rows(team.layout, rows)  # [n, M, features, one that is 1 if there]
    assert enemies.shape == (3, 6, 16)
    assert allies.shape == (2, 6, 15)
    for index in range(3):
        part = rows[:, 4 + 15 * index :][:, :15]
        torch.testing.assert_close(enemies[index, :, :15], part * (part[:, 1:2] > 0))
    for index in range(2):
        part = rows[:, 49 + 14 * index :][:, :14]
        torch.testing.assert_close(allies[index, :, :14], part * (part[:, :1] > 0))
    assert enemies[..., -1].any()
    assert allies[..., -1].any()
    types = [team.layout.type, *(part.type for part in team.layout.lists)]
    assert types == ["smac/T/unit_14", "smac/T/enemy_15", "smac/T/ally_14"]
    assert env.teams["v2"].layout.type == "smac/P/protoss_gen/unit_14"
    assert env.teams["v2"].layout.lists[0].type == "smac/P/protoss_gen/enemy_15"
    env.close()
    monkeypatch.setattr(stand_in, "get_obs_own_feats_size", lambda self: 90)  # obs_starcraft: false
    plain = make_env(SMAC)
    assert plain.teams["3m"].layout is None
    plain.close()


@needs_jaxmarl
def test_what_the_state_shows_is_described(stand_in):
    """Allies (health, cooldown, x, y) with their last basic action, then enemies (health, x, y)."""
    env = make_env(SMAC, SMACV2)
    team, data = env.teams["3m"], env.reset()
    for name in ("3m", "v2"):
        data[name, "action"] = torch.full((2, 3), 4)  # all go east
    state = env.step(data)["next", "state", "3m"]
    assert state.shape == (2, 3 * 4 + 3 * 3 + 3 * 9)
    allies, enemies = entity_rows(team.state_layout, state)
    assert (allies.shape, enemies.shape) == ((3, 2, 4 + 6 + 1), (3, 2, 3 + 1))
    torch.testing.assert_close(allies[1, :, :4], state[:, 4:8])
    assert allies[..., 4:10].argmax(-1).eq(4).all()
    torch.testing.assert_close(enemies[2, :, :3], state[:, 18:21])
    types = [part.type for part in team.state_layout.lists]
    assert types == ["smac/T/state/ally_4_6", "smac/T/state/enemy_3"]
    v2 = [part.type for part in env.teams["v2"].state_layout.lists]
    assert v2 == ["smac/P/protoss_gen/state/ally_7_6", "smac/P/protoss_gen/state/enemy_6"]
    env.close()


@needs_jaxmarl
@pytest.mark.parametrize(
    ("option", "size"),
    [("state_timestep_number", 49), ("state_last_action", 21), ("obs_instead_of_state", None)],
)
def test_the_states_options_are_described(stand_in, option, size):
    config = {"map_name": "3m", option: option != "state_last_action"}
    task = StarcraftClass("3M", config)
    env = task.get_env_fun(1, False, 0, "cpu")()
    layout = task.state_layout(env)
    env.close()
    if size is None:
        assert layout is None
        return
    layout.check(size)
    assert layout.own == (((48, 49),) if size == 49 else ())
    assert layout.lists[0].parts == (((0, 4),) if size == 21 else ((0, 4), (21, 9)))


class Larger:
    """What smacv2 says of five allies with a medivac against four: an action for every ally."""

    n_agents, n_enemies, n_actions_no_attack, n_actions, unit_type_bits = 5, 4, 6, 11, 3
    obs_instead_of_state, state_last_action, state_timestep_number = False, True, True

    def get_ally_num_attributes(self):
        return 4 + 3

    def get_enemy_num_attributes(self):
        return 3 + 3


@needs_jaxmarl
def test_a_state_with_more_allies_than_enemies_is_described(stand_in):
    layout = StarcraftClass("3M", {"map_name": "3m"}).state_layout(Larger())
    layout.check(5 * 7 + 4 * 6 + 5 * 11 + 1)  # smacv2's get_state_size
    assert layout.own == ((114, 115),)
    assert layout.lists[0].parts == ((0, 7), (59, 11))
    assert layout.lists[0].kept == list(range(7 + 6))


@needs_jaxmarl
def test_every_copy_is_a_game_of_its_own(stand_in):
    env = make_env(SMAC)
    observation = env.reset()["3m", "observation"]
    assert not torch.equal(observation[0], observation[1])
    made = stand_in.made[-2:]
    assert len({one["seed"] for one in made}) == 2
    assert {one["map_name"] for one in made} == {"3m"}
    assert {one["difficulty"] for one in made} == {"7"}
    with pytest.raises(NotImplementedError, match="3m: the game takes no seeds"):
        env.set_seed(3)
    env.close()


@needs_jaxmarl
def test_the_games_seedlessness_is_told_and_the_others_are_seeded(stand_in, tmp_path, caplog):
    """A resumed run is not exact then, nor is a static evaluation."""
    task = task_set(SMAC, toy("one", spread=9, length=2), reward="mean")
    env = task.get_env_fun(2, False, 5, "cpu")()
    lengths = []
    for _ in range(2):
        with pytest.raises(NotImplementedError, match=r"^3m: the game takes no seeds$"):
            env.set_seed(3)
        lengths.append(env.reset()["one", "observation"][:, 0, 1].tolist())
    assert lengths[0] == lengths[1]
    env.close()
    algorithm = MktConfig(annealing=ALONE.annealing, mixer="vdn")
    experiment = make_experiment(tmp_path, task, algorithm, evaluation_static=True)
    with pytest.warns(UserWarning, match="Static evaluation is not guaranteed"):
        experiment.run()
    assert "3m: the game takes no seeds: a resumed run will not be exact" in caplog.text


@needs_jaxmarl
def test_rewards_masks_and_victories_are_the_games(stand_in):
    """The first enemy in range is attacked, else the team goes east; smacv2 asserts the masks."""
    env = make_env(SMAC, copies=4)
    data, returns = env.reset(), torch.zeros(4)
    preference = torch.tensor([6, 7, 8, 4, 1, 0])
    while not data["done"].all():
        mask = data["3m", "action_mask"]
        data["3m", "action"] = preference[mask[..., preference].int().argmax(-1)]
        data = env.step(data)["next"]
        returns += data["3m", "reward"][:, 0, 0]
    won = data["won", "3m"].squeeze(-1)
    assert won.any()
    torch.testing.assert_close(returns[won], torch.full_like(returns[won], 20.0))
    assert (returns[~won] < 10.001).all()
    assert data["3m", "terminated"].all()
    env.close()


@needs_jaxmarl
@pytest.mark.parametrize("continuing", [True, False])
def test_the_limit_is_a_truncation_if_the_game_says_so(stand_in, continuing):
    env = make_env({"task": "smac/3m", "config": {"continuing_episode": continuing}}, copies=1)
    data = env.reset()
    west = torch.tensor([5, 1, 0])  # away from the enemy's script; it comes nearer all the same
    team, seen = env.teams["3m"], []
    (game,) = team.env._envs
    game._env.episode_limit = 3
    for _ in range(3):
        mask = data["3m", "action_mask"]
        data["3m", "action"] = west[mask[..., west].int().argmax(-1)]
        data = env.step(data)["next"]
        seen.append(data["done"].item())
    assert seen == [False, False, True]
    assert data["3m", "truncated"].all() == continuing
    assert data["3m", "terminated"].all() != continuing
    env.close()


@needs_jaxmarl
def test_a_set_trains_and_is_scored(stand_in, tmp_path):
    task = task_set(SMAC, SMACV2, reward="mean")
    experiment = make_experiment(tmp_path, task, ALONE, evaluation=False)
    experiment.run()
    assert experiment.total_frames == 100
    played = play(task, random_policy(["3m", "v2"]), 2, seed=0)
    assert set(played.won) == {"3m", "v2"}
    assert all((values > 0).any() for values in played.returns.values())


@needs_starcraft
@pytest.mark.parametrize("entry", ["smac/3m", "smacv2/protoss_5_vs_5"])
def test_the_real_game(entry):
    env = make_env(entry, copies=1)
    check_env_specs(env)
    data = env.rollout(300)
    assert data["next", "done"][0, -1].item()
    env.close()
