import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from benchmarl.algorithms import MappoConfig, QmixConfig
from benchmarl.environments import task_config_registry
from benchmarl.models import MlpConfig
from tensordict import TensorDict
from torchrl.envs.utils import check_env_specs

from benchmarl_mkt.environments import SmaxEnv, SmaxTask
from benchmarl_mkt.environments.battles.smax_scenarios import SCENARIOS, UNITS, scenario_of
from tests.helpers import REPOSITORY, command, make_experiment, task_set

needs_jaxmarl = pytest.mark.skipif(
    find_spec("jaxmarl") is None, reason="needs JaxMARL: pip install 'benchmarl-mkt[smax]'"
)
COPIES = 3  # of the battle: every other number would be compiled anew
STOP, EAST, FIRST_ATTACK = 4, 1, 5


@pytest.fixture(autouse=True, scope="module")
def own_battlefields():
    """Battles are compiled for these copies, not for those of a file that ran before."""
    if find_spec("jaxmarl") is not None:
        from benchmarl_mkt.environments.battles.smax_battle import battlefield

        battlefield.cache_clear()


def make_env(seed: int | None = 0, **changes) -> SmaxEnv:
    return SmaxEnv("3m", COPIES, seed=seed, **changes)


def act(env: SmaxEnv, actions) -> TensorDict:
    """One step by ``actions`` [B, N], or one action for all."""
    actions = torch.as_tensor(actions).expand(COPIES, 3).clone()
    group = TensorDict({"action": actions}, [COPIES, 3])
    return env.step(TensorDict({"agents": group}, [COPIES]))["next"]


def focused(mask: torch.Tensor) -> torch.Tensor:
    """Attack the first enemy in range, else go east; stop when dead: [B, N, A] to [B, N]."""
    preference = [*range(FIRST_ATTACK, mask.shape[-1]), EAST, STOP]
    return torch.tensor(preference)[mask[..., preference].int().argmax(-1)]


def hand_made(env: SmaxEnv, **leaves) -> None:
    """Write ``leaves`` (of SMAX's state, [B, units, ...]) into running battles."""
    import jax
    import jax.numpy as jnp

    (battles,) = env._chunks
    running = battles.running
    inner = running.state.state
    inner = inner.replace(**{k: jnp.asarray(v, getattr(inner, k).dtype) for k, v in leaves.items()})
    state = running.state.replace(state=inner)
    seen = jax.vmap(env.field.env.get_all_unit_obs)(state)
    enemies = jnp.stack([seen[enemy] for enemy in env.field.env.enemy_agents], 1)
    running = running._replace(state=state, enemies=enemies)
    env._chunks = [battles._replace(running=running)]


def equal(left: TensorDict, right: TensorDict, slots=slice(None)) -> bool:
    """Whether all entries of the slots are the same, bit by bit."""
    left, right = (dict(data[slots].flatten_keys(".").items()) for data in (left, right))
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


# ---- what is there without JaxMARL ----


def test_every_scenario_is_a_task_with_a_complete_file(registered):
    files = {path.stem for path in (REPOSITORY / "conf" / "task" / "smax").glob("*.yaml")}
    assert files == {*SCENARIOS, "custom"} == {task.name for task in SmaxTask}
    for name, scenario in SCENARIOS.items():
        task = task_config_registry[f"smax/{name}"].get_from_yaml()
        assert task.config == {"max_steps": scenario.max_steps}
        assert task.name == name
        assert not task.supports_continuous_actions()
        assert set(scenario.allies + scenario.enemies) <= set(UNITS)


@pytest.mark.parametrize(
    ("name", "allies", "enemies"),
    [("3s5z_vs_3s6z", [2] * 3 + [3] * 5, [2] * 3 + [3] * 6), ("corridor", [3] * 6, [4] * 24)],
)
def test_armies(name, allies, enemies):
    assert SCENARIOS[name].unit_types == allies + enemies


def test_armies_of_ones_own():
    assert scenario_of("custom", allies="2s1z", enemies="1m10g") == ("ssz", "m" + "g" * 10, 150)
    assert scenario_of("custom", 20, allies="3m") == ("mmm", "mmm", 20)
    assert scenario_of("3m", 20) == ("mmm", "mmm", 20)
    assert scenario_of("3m") == SCENARIOS["3m"]
    config = {"allies": "2s", "enemies": "3z", "max_steps": 9}
    with pytest.raises(ValueError, match=r"no configuration \['allies'"):
        task_set({"task": "smax/3m", "config": config}).team_configs[0].task_class()


@pytest.mark.parametrize("army", ["", "m", "3", "3x", "3m ", "0m", "101m", "60m60z", 5, "-1m"])
@pytest.mark.parametrize("key", ["allies", "enemies"])
def test_an_army_that_is_none_is_named(key, army):
    with pytest.raises(ValueError, match=rf"^task.{key}: {army!r} must be numbers and unit"):
        scenario_of("custom", **{"allies": "3m", key: army})


@pytest.mark.parametrize("steps", [0, 1.5, None, True])
def test_a_wrong_limit_is_named(steps):
    with pytest.raises(ValueError, match=r"task.max_steps: .* \(smax/3m\)"):
        SmaxTask["3m"].get_task({"max_steps": steps}).get_env_fun(1, False, 0, "cpu")


class Uninstalled:
    """An import finder that knows no JaxMARL."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "jaxmarl":
            raise ModuleNotFoundError("No module named 'jaxmarl'", name="jaxmarl")


def test_missing_jaxmarl_names_the_extra(monkeypatch):
    module = "benchmarl_mkt.environments.battles.smax_battle"
    for name in [n for n in sys.modules if n.split(".")[0] == "jaxmarl" or n == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Uninstalled, *sys.meta_path])
    with pytest.raises(ImportError, match=r"smax/.*pip install 'benchmarl-mkt\[smax\]'"):
        make_env()


@needs_jaxmarl
def test_jax_is_imported_when_needed_on_the_cpu_and_in_silence(tmp_path):
    code = (
        "import sys, benchmarl_mkt; benchmarl_mkt.register()\n"
        "assert 'jax' not in sys.modules and 'jaxmarl' not in sys.modules\n"
        "out, error = sys.stdout, sys.stderr\n"
        "import benchmarl_mkt.environments.battles.smax_battle as battle\n"
        "assert (sys.stdout, sys.stderr) == (out, error)\n"
        "assert sys.__stdout__ is out\n"
        "assert [d.platform for d in battle.jax.devices()] == ['cpu']\n"
    )
    done = command("-c", code, cwd=tmp_path, store=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_jaxmarl
@pytest.mark.parametrize("first", ["", "import jaxmarl\n"])
def test_no_other_game_of_jaxmarls_is_imported_and_jaxmarl_still_can_be(tmp_path, first):
    code = (
        f"{first}import sys\nimport benchmarl_mkt.environments.battles.smax_battle\n"
        f"assert ('jaxmarl.environments.overcooked' in sys.modules) is {bool(first)}\n"
        "import jaxmarl\n"
        "assert jaxmarl.make('HeuristicEnemySMAX').agents\n"
        "assert jaxmarl.environments.smax.SMAX and jaxmarl.environments.overcooked\n"
    )
    done = command("-c", code, cwd=tmp_path, store=tmp_path)
    assert done.returncode == 0, done.stderr


@needs_jaxmarl
def test_what_was_compiled_beforehand_is_what_battles_call():
    import jax

    from benchmarl_mkt.environments.battles.smax_battle import Battlefield

    field, compilations = Battlefield(scenario_of("3m", 7)), []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **what: (
            compilations.append(what.get("fun_name", ""))
            if event == "/jax/core/compile/backend_compile_duration"
            else None
        )
    )
    field.compile(COPIES)
    field._compiling[COPIES].join()
    assert len(compilations) >= 5  # it would be heard
    compilations.clear()
    battles = field.slots(np.arange(COPIES, dtype=np.uint32))
    for rows in (np.ones(COPIES, bool), np.arange(COPIES) == 0):
        battles, _ = field.restart(battles, rows)
        battles = field.step(battles, np.zeros((COPIES, 3), np.int32))
    field.view(battles)
    assert compilations == []


# ---- the environment ----


@needs_jaxmarl
def test_specs():
    env = make_env()
    check_env_specs(env, seed=1)
    assert env.full_observation_spec["agents", "observation"].shape == (COPIES, 3, 75)
    assert env.full_observation_spec["state"].shape == (COPIES, 72)
    assert env.full_action_spec["agents", "action"].space.n == 8


@needs_jaxmarl
def test_task_class_specs():
    task = SmaxTask["3m"].get_from_yaml()
    env = task.get_env_fun(COPIES, False, 0, "cpu")()
    env.reset()  # the action mask of now must not stand in the way
    assert set(task.observation_spec(env).keys(True, True)) == {("agents", "observation")}
    assert set(task.action_mask_spec(env).keys(True, True)) == {("agents", "action_mask")}
    assert set(task.info_spec(env).keys(True, True)) == {("info", "battle_won")}
    assert task.state_spec(env)["state"].shape == (72,)
    assert task.action_spec(env)["agents", "action"].shape == (3,)
    assert task.group_map(env) == {"agents": ["ally_0", "ally_1", "ally_2"]}
    assert task.max_steps(env) == env.max_steps == 60


@needs_jaxmarl
def test_equals_jaxmarls_own_environment():
    """Same keys, same actions: what JaxMARL's ``step_env`` returns, bit by bit."""
    import jax

    env = make_env(seed=3)
    field, data = env.field, env.reset()
    step, masks = (jax.jit(jax.vmap(f)) for f in (field.env.step_env, field.env.get_avail_actions))
    for _ in range(12):
        chosen = focused(data["agents", "action_mask"])
        keys, state = env._chunks[0].running.key, env._chunks[0].running.state
        own = jax.vmap(jax.random.split)(keys)[:, 1]
        named = {a: chosen[:, i].int().numpy() for i, a in enumerate(field.env.agents)}
        seen, state, rewards, _, _ = step(own, state, named)
        data = act(env, chosen)
        for i, agent in enumerate(field.env.agents):
            np.testing.assert_array_equal(data["agents", "observation"][:, i], seen[agent])
            np.testing.assert_array_equal(
                data["agents", "action_mask"][:, i], masks(state)[agent].astype(bool)
            )
            np.testing.assert_array_equal(
                data["agents", "reward"][:, i, 0], 10 * np.asarray(rewards[agent])
            )
        world = np.asarray(seen["world_state"])[:, :60].reshape(COPIES, 6, 10)
        shown = data["state"][:, :60].view(COPIES, 6, 10).numpy()
        for column, factor in ((0, 1), (1, 1 / 32), (2, 1 / 32), (4, 1)):
            np.testing.assert_array_equal(shown[..., column], world[..., column] * factor)
        cooldowns = np.clip(world[..., 3] / np.float32(0.61), -1, 1)
        np.testing.assert_allclose(shown[..., 3], cooldowns, rtol=1e-6)


@needs_jaxmarl
def test_the_seed_determines_everything():
    envs = [make_env(seed) for seed in (5, 5, 6)]
    runs = []
    for env in envs:
        data, seen = env.reset(), []
        for _ in range(8):
            data = act(env, focused(data["agents", "action_mask"]))
            seen.append(data)
        runs.append([*seen, env.reset()])
    assert all(equal(a, b) for a, b in zip(runs[0], runs[1]))
    assert not equal(runs[0][0], runs[2][0])
    starts = runs[0][-1]["agents", "observation"]
    assert len({tuple(row.flatten().tolist()) for row in starts}) == COPIES  # independent draws
    env = envs[0]
    env.set_seed(5)
    again = env.reset()
    env.set_seed(5)
    assert equal(again, env.reset())


@needs_jaxmarl
def test_seedless_environments_differ():
    assert not equal(make_env(None).reset(), make_env(None).reset())


@needs_jaxmarl
def test_a_partial_reset_leaves_the_other_battles_bit_by_bit():
    env, twin = make_env(), make_env()
    for one in (env, twin):
        one.reset()
        before = act(one, EAST)
    mask = torch.tensor([False, True, False]).unsqueeze(-1)
    after = env.reset(before.clone().set("_reset", mask))
    kept = [0, 2]
    rewards = ("agents", "reward")
    assert equal(after.exclude(rewards), before.exclude(rewards), kept)
    assert not torch.equal(after["state"][1], before["state"][1])
    assert not after["done"].any()
    for _ in range(10):
        assert equal(act(env, EAST), act(twin, EAST), kept)
    assert env._chunks[0].running.state.state.step.tolist() == [11, 10, 11]


@needs_jaxmarl
def test_a_battle_starts_the_same_whoever_starts_with_it():
    """Few are started in a smaller batch than many; nobody's start is another's."""
    masks = torch.tensor([[0, 1, 0, 0, 0, 0], [0, 1, 1, 0, 1, 1], [1] * 6]).bool()
    starts = []
    for mask in masks:
        env = SmaxEnv("3m", 6, seed=0)
        starts.append(env.reset(TensorDict({"_reset": mask.unsqueeze(-1)}, [6])))
    for few in (0, 1):
        rows = masks[few].nonzero().flatten().tolist()
        assert equal(starts[few], starts[2], rows)
        others = (~masks[few]).nonzero().flatten().tolist()
        assert (starts[few]["state"][others] == 0).all()  # they have not been started
    env = SmaxEnv("3m", 6, seed=0)
    before = env.reset()
    nobody = torch.zeros(6, 1, dtype=torch.bool)
    assert equal(env.reset(before.clone().set("_reset", nobody)), before)


@needs_jaxmarl
def test_a_battle_is_the_same_whatever_the_number_of_others():
    """Sums are not rounded in another way where there are 2048 entries (17 units squared x 8)."""
    few, many = (SmaxEnv("8m_vs_9m", copies, seed=0) for copies in (2, 8))
    shown, others = few.reset_leaves(None), many.reset_leaves(None)
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        assert all(torch.equal(entry, others[key][:2]) for key, entry in shown.items())
        mask = others["agents", "action_mask"]
        chosen = (mask * torch.rand(mask.shape, generator=draw)).argmax(-1)
        shown = few.step_leaves({("agents", "action"): chosen[:2]})
        others = many.step_leaves({("agents", "action"): chosen})


@needs_jaxmarl
def test_one_size_is_compiled_for_more_and_fewer_battles():
    """In chunks: what does not fill the last one is fought for nothing, and shows nowhere."""
    few = make_env()
    few.prepare()
    many = SmaxEnv("3m", 7, seed=0)
    compiled = set(few.field._compiling)
    before, shown = few.reset(), many.reset()
    for _ in range(3):
        assert shown["agents", "observation"].shape == (7, 3, few.field.observation_size)
        assert equal(before, shown[:COPIES])
        actions = focused(shown["agents", "action_mask"])
        shown["agents", "action"] = actions
        before["agents", "action"] = actions[:COPIES]
        before, shown = (env.step(data)["next"] for env, data in ((few, before), (many, shown)))
    mask = torch.zeros(7, 1, dtype=torch.bool)
    mask[6] = True
    reset = many.reset(shown.clone().set("_reset", mask))
    same = (reset["agents", "observation"] == shown["agents", "observation"]).flatten(1).all(-1)
    assert same.tolist() == [True] * 6 + [False]
    fewer = SmaxEnv("3m", 2, seed=0)  # one chunk, which is larger than they are
    assert equal(fewer.reset(), make_env().reset()[:2])
    assert set(few.field._compiling) == compiled


@needs_jaxmarl
def test_tensors_are_copies_in_both_directions():
    env, twin = make_env(), make_env()
    shown, kept, data = [env.reset()], [], twin.reset()
    actions = torch.full((COPIES, 3), EAST, dtype=torch.int32)  # SMAX's own type: nothing to cast
    for _ in range(5):
        kept.append(shown[-1].clone())
        for value in shown[-1].values(True, True):
            value.fill_(1)
        group = TensorDict({"action": actions.clone()}, [COPIES, 3])
        request = TensorDict({"agents": group}, [COPIES])
        shown.append(env.step(request)["next"])
        request["agents", "action"].zero_()
        data = act(twin, EAST)
    assert equal(shown[-1], data)
    assert all((value == 1).all() for value in shown[0].values(True, True))  # and not written to


@needs_jaxmarl
def test_won_lost_and_drawn():
    """Hand-made battles one blow from their end; the enemy's script attacks who is in range."""
    env = make_env()
    env.reset()
    positions = np.zeros((COPIES, 6, 2))
    positions[:, :3] = [[10, 10], [10, 12], [10, 14]]
    positions[:, 3:] = [[13, 10], [13, 12], [13, 14]]
    health = np.array([[45] * 3 + [1, 0, 0], [1, 0, 0] + [45] * 3, [1, 0, 0, 1, 0, 0]])
    hand_made(env, unit_positions=positions, unit_health=health, unit_alive=health > 0)
    data = act(env, [[FIRST_ATTACK, STOP, STOP], [STOP] * 3, [FIRST_ATTACK, STOP, STOP]])
    assert data["info", "battle_won"].tolist() == [True, False, False]
    assert data["terminated"].flatten().tolist() == [True] * 3
    assert data["done"].flatten().tolist() == [True] * 3
    assert not data["truncated"].any()
    damage = 10 * (1 / 45) / 3
    rewards = data["agents", "reward"]
    assert rewards[:, 0, 0].tolist() == pytest.approx([10 + damage, 0, damage], rel=1e-5)
    assert torch.equal(rewards, rewards[:, :1].expand(-1, 3, 1))
    # The last observation is the battle's, not that of a fresh one: the dead have left it.
    units = data["state"][:, :60].view(COPIES, 6, 10)[..., 0]
    assert (units > 0).tolist() == [[True] * 3 + [False] * 3, [False] * 3 + [True] * 3, [False] * 6]


@needs_jaxmarl
def test_masks_are_ranges_of_weapons():
    """A marine reaches 5 far; the dead can only stop."""
    env = make_env()
    env.reset()
    positions = np.zeros((COPIES, 6, 2))
    positions[:, :3] = [[10, 10], [10, 15], [10, 20]]
    positions[:, 3:] = [[20, 10], [20, 15], [20, 20]]
    positions[0, 3] = [13, 10]  # in reach of the first ally, and too far for the others
    alive = np.ones((COPIES, 6), bool)
    alive[1, 0] = False
    health = np.where(alive, 45.0, 0.0)
    hand_made(env, unit_positions=positions, unit_alive=alive, unit_health=health)
    mask = act(env, STOP)["agents", "action_mask"]
    free, dead = [True] * 5 + [False] * 3, [False] * 4 + [True] + [False] * 3
    assert mask[0].tolist() == [[*free[:5], True, False, False], free, free]
    assert mask[1].tolist() == [dead, free, free]


@needs_jaxmarl
def test_random_actions_keep_to_the_masks():
    rollout = make_env().rollout(40, break_when_any_done=False)
    mask, action = rollout["agents", "action_mask"], rollout["agents", "action"]
    assert mask.gather(-1, action.unsqueeze(-1)).all()
    assert not mask.all()


@needs_jaxmarl
def test_the_limit_truncates():
    env = make_env(max_steps=4)
    env.reset()
    ends = [act(env, STOP) for _ in range(4)]
    for data in ends[:3]:
        assert not data["done"].any()
    last = ends[3]
    assert last["truncated"].all() and last["done"].all()
    assert not last["terminated"].any() and not last["info", "battle_won"].any()


@needs_jaxmarl
def test_a_won_battle_is_worth_twenty():
    env = make_env(seed=2)
    data, returns = env.reset(), torch.zeros(COPIES)
    running = torch.ones(COPIES, dtype=torch.bool)
    won = torch.zeros(COPIES, dtype=torch.bool)
    for _ in range(60):
        data = act(env, focused(data["agents", "action_mask"]))
        returns += data["agents", "reward"][:, 0, 0] * running
        won |= data["info", "battle_won"] & running
        running &= ~data["done"].squeeze(-1)
    assert not running.any()
    assert won.any()
    torch.testing.assert_close(returns[won], torch.full_like(returns[won], 20.0))
    assert (returns[~won] < 10.001).all()


# ---- in BenchMARL ----


@needs_jaxmarl
@pytest.mark.parametrize("algorithm", [MappoConfig, QmixConfig])
def test_built_in_algorithms_train(tmp_path, algorithm):
    experiment = make_experiment(
        tmp_path,
        SmaxTask["3m"].get_from_yaml(),
        algorithm.get_from_yaml(),
        MlpConfig.get_from_yaml(),
        **dict.fromkeys(("on_policy_n_envs_per_worker", "off_policy_n_envs_per_worker"), COPIES),
        evaluation_episodes=COPIES,
        on_policy_collected_frames_per_batch=60,
        off_policy_collected_frames_per_batch=60,
        evaluation_interval=60,
        max_n_frames=120,
    )
    before = [p.clone() for p in experiment.policy.parameters()]
    experiment.run()
    assert experiment.total_frames == 120
    assert any(not torch.equal(a, b) for a, b in zip(before, experiment.policy.parameters()))


@needs_jaxmarl
def test_a_round_of_three_battles():
    names = ["3m", "b", "c"]
    tasks = [{"task": "smax/3m", "name": name, "config": {"max_steps": 45}} for name in names]
    env = task_set(*tasks, reward="mean").get_env_fun(COPIES, False, 0, "cpu")()
    check_env_specs(env, seed=1)
    assert {name: env.teams[name].state_size for name in names} == dict.fromkeys(names, 72)
    data = env.reset()
    assert not any(data["won", name].any() for name in names)
    starts = [data[name, "observation"] for name in names]
    assert not torch.equal(starts[0], starts[1])  # every task has a seed of its own
    won = {name: torch.zeros(COPIES, 1, dtype=torch.bool) for name in names}
    returns = {name: torch.zeros(COPIES) for name in names}
    playing = torch.ones(COPIES, dtype=torch.bool)
    for _ in range(45):
        for name in names:
            data[name, "action"] = focused(data[name, "action_mask"])
        data = env.step(data)["next"]
        for name in names:
            assert (data["won", name] | ~won[name]).all()  # what is won remains so in the round
            won[name] = data["won", name]
            returns[name] += data[name, "reward"][:, 0, 0]
        playing &= ~data["done"].squeeze(-1)
        if not playing.any():
            break
    assert not playing.any()
    assert sum(int(flags.sum()) for flags in won.values()) > 0
    for name in names:
        flags = won[name].squeeze(-1)
        torch.testing.assert_close(returns[name][flags], torch.full((int(flags.sum()),), 20.0))
    fresh = env.reset(data.clone().set("_reset", torch.tensor([[True], [False], [True]])))
    for name in names:
        assert not fresh["won", name][[0, 2]].any()
        assert torch.equal(fresh["won", name][1], won[name][1])


# ---- pictures ----


@needs_jaxmarl
def test_a_picture_shows_who_lives_and_how_well():
    """Of blue and red there is as much as there is health; the field is 33 units wide."""
    env = make_env()
    env.reset()
    positions = np.zeros((COPIES, 6, 2))
    positions[:, :3] = [[8, 4], [8, 16], [8, 28]]
    positions[:, 3:] = [[24, 4], [24, 16], [24, 28]]
    health = np.full((COPIES, 6), 45.0)
    health[0] = [45, 45 / 2, 0, 45, 0, 0]
    hand_made(env, unit_positions=positions, unit_health=health, unit_alive=health > 0)
    image = env.render(mode="rgb_array")
    assert (image.dtype, image.shape) == (np.uint8, (300, 300, 3))
    large = env.render(pixels=660)  # 20 pixels to the unit: a marine's disc is 7.5 in radius
    blue = (large.astype(int) - [33, 102, 217]).__abs__().sum(-1) < 60
    red = (large.astype(int) - [217, 51, 38]).__abs__().sum(-1) < 60
    area = np.pi * 7.5**2
    assert blue.sum() == pytest.approx(1.5 * area, rel=0.15)
    assert red.sum() == pytest.approx(area, rel=0.15)
    rows, columns = np.nonzero(red)  # y points up: the enemy at (24, 4) is below
    assert (columns.mean(), rows.mean()) == pytest.approx((490, 570), abs=1)
    assert (rows.max(), columns.max()) == pytest.approx((577, 497), abs=2)


# ---- task sets ----

SETS = {
    "smax_5": {5},
    "smax_6": {6},
    "smax_8": {8},
    "smax_8_marines": {8},
    "smax_8_mmm2": {8},
    "smax_9_10": {9, 10},
    "smax_27": {27},
    "smax_22": {5, 6, 8, 9, 10, 27},
    "smax_stalkers_zealots": {8},
    "smax_sizes": {3, 5, 8},
}


def test_the_sets_teams_have_the_sizes_that_they_are_named_for(registered):
    found = {}
    for key, entry in task_config_registry.items():
        if key.startswith("multitask/smax"):
            task = entry.get_from_yaml()
            assert task.config["reward"] == "mean"
            names = [team.name for team in task.team_configs]
            found[task.name.lower()] = {len(SCENARIOS[name].allies) for name in names}
    assert found == SETS


def test_the_documented_table_has_every_scenario_as_it_is():
    """`benchmarks/smax.md`: task, armies and limit of every scenario."""
    text = (REPOSITORY / "benchmarks" / "smax.md").read_text()
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 7 and cells[5].isdecimal() and cells[1].startswith("`"):
            rows[cells[1].strip("`")] = cells[2:6]
    grouped = {"1s7z", "2s6z", "4s4z", "5s3z", "6s2z", "7s1z"}
    assert rows.keys() == SCENARIOS.keys() - grouped
    assert all(name in text for name in grouped)
    for name, (allies, enemies, agents, steps) in rows.items():
        scenario = SCENARIOS[name]
        for shown, army in ((allies, scenario.allies), (enemies, scenario.enemies)):
            counts = "".join(part[-1] * int(part[:-1]) for part in shown.split())
            assert counts == army, name
        assert int(agents.split(",")[0]) == len(scenario.allies)
        assert int(steps) == scenario.max_steps


@needs_jaxmarl
def test_armies_of_ones_own_fight_as_the_scenario_of_the_same():
    known, own = SmaxEnv("3m", 2, seed=0), SmaxEnv("custom", 2, 60, 0, allies="3m")
    assert own.field is known.field
    task = SmaxTask["custom"].get_task({"allies": "1s", "enemies": "2z1m", "max_steps": 9})
    env = task.get_env_fun(2, False, 0, "cpu")()
    assert env.field.scenario == ("s", "zzm", 9)
    layout = task.observation_spec(env)["agents"].layout
    assert [part.count for part in layout.lists] == [0, 3]
    assert env.rollout(12, break_when_any_done=False)["next", "done"].sum() >= 2


@needs_jaxmarl
def test_a_set_plays_its_tasks():
    env = task_config_registry["multitask/smax_sizes"].get_from_yaml()
    env = env.get_env_fun(COPIES, False, 0, "cpu")()
    sizes = {name: (team.n_agents, team.n_actions) for name, team in env.teams.items()}
    assert sizes == {"3m": (3, 8), "2s3z": (5, 10), "8m": (8, 13)}
    assert {name: team.max_steps for name, team in env.teams.items()} == {
        "3m": 60,
        "2s3z": 120,
        "8m": 120,
    }
    assert env.max_steps == 120
