"""What tasks say of their observations is what they show."""

import json
import sys
from dataclasses import asdict
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch
from benchmarl.algorithms import MappoConfig, QmixConfig
from benchmarl.environments import VmasTask
from benchmarl.experiment import Experiment
from benchmarl.models import MlpConfig
from tensordict import TensorDict

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.environments import MpeTask, SmaxTask
from benchmarl_mkt.models import EntityLayout, EntityList, EntityModelConfig
from benchmarl_mkt.models.entity import POOLINGS, entity_rows
from benchmarl_mkt.models.layout import layout_of
from benchmarl_mkt.teachers import train_teacher
from benchmarl_mkt.teams import load_teacher, load_team
from benchmarl_mkt.teams.export import export_team
from benchmarl_mkt.teams.folder import TeamSpecs
from benchmarl_mkt.teams.frozen import FrozenTeam, build_model
from benchmarl_mkt.teams.onnx import export_entities, export_policy
from tests.conftest import write_tiny_experiment
from tests.docs.blocks import blocks
from tests.helpers import REPOSITORY, make_experiment, random_masked, task_set, tiny_config
from tests.teams.test_frozen import run_onnx
from tests.teams.test_load import edit
from tests.toys import ToyClass, toy

SIZES = {"3m": (3, 75, 8), "5m_vs_6m": (5, 140, 11), "3s5z": (8, 205, 13)}
needs_jaxmarl = pytest.mark.skipif(
    find_spec("jaxmarl") is None, reason="needs JaxMARL: pip install 'benchmarl-mkt[smax]'"
)
needs_mpe = pytest.mark.skipif(find_spec("mpe2") is None, reason="needs mpe2")
COPIES, MOVES = 3, 5
UNEQUAL, ALLIES, ENEMIES = "8m_vs_9m", 8, 9  # unequal, and not MOVES either


def numbers(layout, observation: torch.Tensor) -> list[torch.Tensor]:
    """The entities of every list [*B, n, f] of observations [*B, D]."""
    rows = entity_rows(layout, observation.reshape(-1, observation.shape[-1]))
    return [x.transpose(0, 1).reshape(*observation.shape[:-1], len(x), -1) for x in rows]


def in_game(env, name: str) -> torch.Tensor:
    """An entry [B, units] of SMAX's own state, in however many chunks battles are stepped."""
    states = [battles.running.state.state for battles in env._chunks]
    return torch.cat([torch.tensor(getattr(state, name).tolist()) for state in states])[:COPIES]


@needs_jaxmarl
@pytest.mark.parametrize(
    ("scenario", "seen", "actions", "state"),
    [
        # 2 other allies and 3 enemies of 13 numbers, 10 own; 5 moves and 3 attacks; 6 units of 12
        ("3m", 75, 8, 72),
        # 26 other allies and 30 enemies; 5 moves and 30 attacks; 57 units
        ("27m_vs_30m", 738, 35, 684),
    ],
)
def test_a_battles_layout_has_its_sizes(scenario, seen, actions, state):
    task = SmaxTask[scenario].get_from_yaml()
    (layout,) = task.entity_layout(None).values()
    layout.check(seen, actions)
    assert layout.basic_actions(actions) == [0, 1, 2, 3, 4]
    task.state_layout(None).check(state)


@needs_jaxmarl
def test_a_battle_shows_what_its_layout_says():
    """Who is seen with which health, and at whom allies have shot, step by step, in the game."""
    task = SmaxTask[UNEQUAL].get_from_yaml()
    env = task.get_env_fun(COPIES, False, 0, "cpu")()
    spec = task.observation_spec(env)
    layout = layout_of(spec, "agents")
    assert layout == task.entity_layout(env)["agents"]
    data, shots = env.reset(), 0
    for _ in range(25):
        mask = data["agents", "action_mask"]
        action = random_masked(mask)
        attacks = mask[..., MOVES:].any(-1)
        action[attacks] = random_masked(mask[..., MOVES:])[attacks] + MOVES
        data["agents", "action"] = action
        after = env.step(data)["next"]
        health, alive = in_game(env, "unit_health") / 45, in_game(env, "unit_alive")
        seen, foes = numbers(layout, after["agents", "observation"])
        for battle in range(COPIES):
            if after["done"][battle]:
                continue
            for agent in range(ALLIES):
                others = [i for i in range(ALLIES) if i != agent]
                units = [*others, *range(ALLIES, ALLIES + ENEMIES)]
                entities = [*seen[battle, agent], *foes[battle, agent]]
                for unit, entity in zip(units, entities, strict=True):
                    if entity[-1]:  # it is there
                        assert float(entity[0]) == pytest.approx(float(health[battle, unit]))
                        assert alive[battle, unit]
                    else:
                        assert not entity.any()
                visible = [i for i, entity in zip(others, seen[battle, agent]) if entity[-1]]
                for enemy, entity in enumerate(foes[battle, agent]):
                    if entity[-1]:
                        chosen = [int(action[battle, other]) for other in visible]
                        assert float(entity[-2]) == chosen.count(MOVES + enemy)
                        shots += chosen.count(MOVES + enemy)
        ended = after["done"].any()
        data = env.reset() if ended else after
    assert shots > 20


@needs_jaxmarl
def test_an_attack_hits_the_entity_that_it_targets():
    task = SmaxTask[UNEQUAL].get_from_yaml()
    env = task.get_env_fun(COPIES, False, 0, "cpu")()
    layout = task.entity_layout(env)["agents"]
    data, hits = env.reset(), 0
    for _ in range(25):
        mask = data["agents", "action_mask"]
        foes = numbers(layout, data["agents", "observation"])[1]
        attackable = mask[..., MOVES:]
        assert foes[..., -1].bool()[attackable].all()  # who can be attacked is seen
        target = attackable.any(1).int().argmax(-1)  # one of each battle, for all who can
        action = torch.where(mask[..., 1], 1, 4)  # east, or nothing
        for battle in range(COPIES):
            can = mask[battle, :, MOVES + target[battle]]
            action[battle, can] = MOVES + target[battle]
        before = in_game(env, "unit_health")[:, ALLIES:]
        data["agents", "action"] = action
        data = env.step(data)["next"]
        if data["done"].any():
            break
        lost = before - in_game(env, "unit_health")[:, ALLIES:]
        for battle in range(COPIES):
            hit = lost[battle] > 0
            hits += int(hit.sum())
            assert not hit.any() or hit.nonzero().view(-1).tolist() == [int(target[battle])]
    assert hits > 3


@needs_jaxmarl
def test_a_battles_state():
    task = SmaxTask[UNEQUAL].get_from_yaml()
    env = task.get_env_fun(COPIES, False, 0, "cpu")()
    assert layout_of(task.state_spec(env), "agents") == task.state_layout(env)
    allies, enemies = numbers(task.state_layout(env), env.reset()["state"])
    assert (allies.shape, enemies.shape) == ((COPIES, ALLIES, 11), (COPIES, ENEMIES, 11))
    for army in (allies, enemies):
        assert (army[..., [0, -1]] == 1).all()  # healthy, and there
    assert allies[..., 1].amax() < enemies[..., 1].amin()  # in the west, and in the east


@needs_mpe
@pytest.mark.parametrize("n_agents", [2, 3, 4])
def test_simple_spread_shows_what_its_layout_says(n_agents):
    config = MpeTask["SIMPLE_SPREAD"].get_from_yaml().config
    task = MpeTask["SIMPLE_SPREAD"].get_task({**config, "n_agents": n_agents})
    env = task.get_env_fun(COPIES, False, 0, "cpu")()
    ((group, layout),) = task.entity_layout(env).items()
    seen = env.reset()[group, "observation"]
    assert layout_of(task.observation_spec(env), group) == layout
    assert layout.check(seen.shape[-1], 5).basic_actions(5) == list(range(5))
    landmarks, others = numbers(layout, seen)
    for copy, world in enumerate(env.games.worlds):
        for i, agent in enumerate(world.agents):
            own = [*agent.state.p_vel, *agent.state.p_pos]
            torch.testing.assert_close(
                seen[copy, i, slice(*layout.own[0])], torch.tensor(own).float()
            )
            rest = [other for other in world.agents if other is not agent]
            for found, entities in ((landmarks, world.landmarks), (others, rest)):
                for entity, row in zip(entities, found[copy, i]):
                    relative = torch.tensor(entity.state.p_pos - agent.state.p_pos).float()
                    torch.testing.assert_close(row, torch.cat([relative, torch.ones(1)]))


@needs_mpe
def test_other_mpe_tasks_have_none():
    task = MpeTask["SIMPLE_PUSH"].get_from_yaml()
    assert task.entity_layout(task.get_env_fun(1, False, 0, "cpu")()) == {}


@needs_jaxmarl
@pytest.mark.parametrize("agent_id", [True, False])
def test_a_set_hands_layouts_on(agent_id):
    task = task_set("smax/3m", toy("plain"), agent_id=agent_id)
    env = task.get_env_fun(2, False, 0, "cpu")()
    spec = task.observation_spec(env)
    layout = layout_of(spec, "3m")
    assert layout.agent_id == (3 if agent_id else 0)
    assert layout.check(spec["3m", "observation"].shape[-1], 8).lists[1].type == "smax/enemy"
    assert layout_of(spec, "plain") is None
    assert env.teams["3m"].state_layout == SmaxTask["3m"].get_from_yaml().state_layout(env)
    assert env.teams["plain"].state_layout is None


def test_a_wrong_layout_is_told_before_training(monkeypatch):
    wrong = {"agents": EntityLayout("toy/agent", ((0, 2),))}
    monkeypatch.setattr(ToyClass, "entity_layout", lambda *_: wrong, raising=False)
    with pytest.raises(
        ValueError, match=r"^entity_layout: toy/agent: number 2 of 3 is described 0"
    ):
        task_set(toy("one")).get_env_fun(2, False, 0, "cpu")()


@needs_jaxmarl
@pytest.mark.parametrize("critic", [None, EntityModelConfig()], ids=["mlp", "entities"])
def test_stock_mappo_on_one_battle(critic, tmp_path):
    """The critic reads the state, whose entities are described as well."""
    experiment = Experiment(
        task=SmaxTask["3m"].get_from_yaml(),
        algorithm_config=MappoConfig.get_from_yaml(),
        model_config=EntityModelConfig(),
        critic_model_config=MlpConfig.get_from_yaml() if critic is None else critic,
        seed=0,
        config=tiny_config(tmp_path),
    )
    if critic is not None:
        modules = experiment.algorithm.get_critic("agents").modules()
        (network,) = [m for m in modules if hasattr(m, "parts") and hasattr(m, "layout")]
        assert network.layout.type == "smax/state"
    experiment.run()
    assert experiment.n_iters_performed == 2


@needs_jaxmarl
def test_stock_qmix_on_one_battle_of_the_same_weights_elsewhere(tmp_path):
    """What was trained on one battle has the weights of every other."""
    task = SmaxTask["3m"].get_from_yaml()
    experiment = make_experiment(tmp_path, task, QmixConfig.get_from_yaml(), EntityModelConfig())
    experiment.run()
    (model,) = [
        m
        for m in experiment.algorithm.get_policy_for_loss("agents").modules()
        if hasattr(m, "parts")
    ]
    layout = SmaxTask["3s5z"].get_from_yaml().entity_layout(None)["agents"]
    other = build_model(EntityModelConfig(), TeamSpecs(8, 205, 13), "values", layout=layout)
    weights = model.state_dict()
    assert {k: v.shape for k, v in other.state_dict().items() if hasattr(v, "shape")} == {
        k: v.shape for k, v in weights.items() if hasattr(v, "shape")
    }
    other.load_state_dict(weights)


@needs_jaxmarl
def test_a_student_of_a_battle_and_another_task_is_saved_and_plays(tmp_path):
    """A team's folder says what its network must know, and is loaded without any game."""
    task = task_set("smax/3m", toy("plain"), final_episodes=4)
    config = MktConfig(annealing={"start": 1.0, "end": 1.0, "fraction": 1.0}, mixer="vdn_s")
    experiment = make_experiment(tmp_path, task, config, EntityModelConfig())
    experiment.run()
    mixer = experiment.losses["student"].network.mixer
    assert set(mixer.parts) == {  # no weights for the battle's own state
        f"smax/state/{army}:{what}" for army in ("ally", "enemy") for what in ("token", "pool")
    }
    team = load_team(export_team(experiment, tmp_path / "team"))
    observation = {
        name: torch.rand(5, agents.specs.n_agents, agents.specs.observation_size)
        for name, agents in team.items()
    }
    expected = experiment.losses["student"]._bound_network(observation)
    for name, agents in team.items():
        assert torch.equal(agents(observation[name]), expected[name])
    assert team["3m"].model.layout == experiment.test_env.teams["3m"].layout
    assert "layout" not in team["plain"].metadata
    pytest.importorskip("onnxscript")
    path = export_policy(team["3m"], tmp_path / "3m.onnx")
    for batch in (1, 5):
        seen = observation["3m"][:batch]
        mask = torch.ones(batch, 3, 8, dtype=torch.bool)
        found = run_onnx(path, {"observation": seen, "action_mask": mask})["action_value"]
        torch.testing.assert_close(torch.from_numpy(found), expected["3m"][:batch])


@needs_jaxmarl
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_file_for_teams_of_any_size(pooling, tmp_path):
    """Written from 3m, it gives what the same weights give in battles of other sizes."""
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    layouts = {name: SmaxTask[name].get_from_yaml().entity_layout(None)["agents"] for name in SIZES}
    config = EntityModelConfig(pooling=pooling)
    models = {
        name: build_model(config, TeamSpecs(*sizes), "values", layout=layouts[name])
        for name, sizes in SIZES.items()
    }
    first = models["3m"].requires_grad_(False)
    metadata = {"kind": "values", "specs": dict(zip(vars(TeamSpecs(0, 0, 0)), SIZES["3m"]))}
    path = export_entities(FrozenTeam(first, config, metadata), tmp_path / "any.onnx")
    for name, (agents, size, _) in SIZES.items():
        models[name].load_state_dict(first.state_dict())
        seen = torch.rand(5, agents, size) - 0.3  # some are not there
        data = TensorDict({"team": {"observation": seen}}, (5,))
        expected = models[name](data)["team", "action_value"].detach()
        lists = dict(zip(("smax/ally", "smax/enemy"), numbers(layouts[name], seen)))
        start, stop = layouts[name].own[0]
        (found,) = run_onnx(path, {"own": seen[..., start:stop], **lists}).values()
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-6)
    stored = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert EntityLayout.from_dict(json.loads(stored["entity_layout"])) == layouts["3m"]


@needs_jaxmarl
def test_a_damaged_layout_is_refused(tmp_path):
    task = task_set("smax/3m", final_episodes=4)
    config = MktConfig(annealing={"start": 1.0, "end": 1.0, "fraction": 1.0}, mixer="vdn")
    experiment = make_experiment(tmp_path, task, config, EntityModelConfig())
    folder = export_team(experiment, tmp_path / "team") / "3m"
    layout = load_teacher(folder).metadata["layout"]
    for change in ({"type": 3}, {"own": "all"}, {"agent_id": 4}, {"lists": []}):
        edit(folder, layout={**layout, **change})
        with pytest.raises(ValueError, match="damaged or no teacher"):
            load_teacher(folder)
    edit(folder, layout=layout)
    load_teacher(folder)


def test_the_documentations_own_task_trains_at_any_size(tmp_path, monkeypatch):
    """Its class, as the page has it; BenchMARL pickles tasks, and so wants it in a module."""
    page = next(b for b in blocks(REPOSITORY / "docs" / "entities.md") if b.language == "python")
    module = ModuleType("page_of_entities")
    module.__dict__["__name__"] = module.__name__
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(page.text, module.__dict__)
    stock, shapes = VmasTask.SIMPLE_SPREAD.get_from_yaml(), []
    for n_agents in (2, 4):
        task = module.Spread(stock.name, {**stock.config, "n_agents": n_agents})
        experiment = make_experiment(
            tmp_path, task, MappoConfig.get_from_yaml(), EntityModelConfig()
        )
        experiment.run()
        policy = experiment.algorithm.get_policy_for_loss("agents")
        shapes.append({name: p.shape for name, p in policy.named_parameters()})
    assert shapes[0] == shapes[1]


def test_entity_teachers_teach_an_entity_student(tmp_path, monkeypatch):
    """Teachers are trained, stored and found; the student follows them from the first step."""
    layout = EntityLayout("toy/agent", ((1, 3),), (EntityList("toy/clock", 1, ((0, 1),)),))
    layouts = {"agents": layout}
    monkeypatch.setattr(ToyClass, "entity_layout", lambda *_: layouts, raising=False)
    task = task_set(toy("one"), toy("two", groups={"agents": [3, 3, 0]}), final_episodes=4)
    teacher = {"model": asdict(EntityModelConfig()) | {"name": "multitask_entity"}}
    teacher |= {"experiment": str(write_tiny_experiment(tmp_path)), "store": str(tmp_path / "s")}
    teacher |= {"algorithm": {"mixer": "vdn"}}
    config = MktConfig(mixer="vdn", teacher=teacher)
    for team in task.team_configs:
        path = train_teacher(config.teacher_settings, task, team.name)
        assert load_teacher(path).model.layout.agent_id == (2 if team.name == "one" else 3)
    experiment = make_experiment(tmp_path, task, config, EntityModelConfig())
    experiment.run()
    assert set(experiment.algorithm.teachers) == {"one", "two"}
    assert all(terms["kl"] >= 0 for terms in experiment.losses["student"].last_terms.values())
