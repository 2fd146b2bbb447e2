"""The network over entities: exact symmetries, shared weights, and trainings."""

import itertools
from dataclasses import asdict, replace

import pytest
import torch
import yaml
from benchmarl.algorithms import IppoConfig, IqlConfig, MappoConfig, QmixConfig, VdnConfig
from tensordict import TensorDict
from torchrl.data import Composite, Unbounded
from torchrl.objectives import SoftUpdate

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.files import conf_path
from benchmarl_mkt.models import (
    EntityLayout,
    EntityList,
    EntityModelConfig,
    MultiTaskModelConfig,
    Pointer,
    StudentNetwork,
    VdnMixer,
)
from benchmarl_mkt.models.entity import HEADS, Output, entity_rows
from benchmarl_mkt.models.layout import described
from benchmarl_mkt.models.pooling import CACHED
from benchmarl_mkt.objectives import MktLoss
from tests.helpers import action_specs, make_experiment, random_segments, task_set
from tests.toys import ToyClass, toy

SMALL = {"embedding_size": 8, "feature_size": 7, "token_size": 9, "score_size": 5}
ATTENTION = {**SMALL, "token_size": 8, "pooling": "attention"}
GRU = {"name": "gru", "hidden_size": 8, "n_layers": 1, "mlp_num_cells": []}
MOVES, UNIT, OWN = 3, 4, 2  # the last of a unit's numbers is the action that it took, over A - 1
TEACHERLESS = {"start": 1.0, "end": 1.0, "fraction": 1.0}


def battle(allies: int, enemies: int, agent_id: int = 0) -> EntityLayout:
    """What one of ``allies`` sees: the others, then itself, then the enemies."""
    own = UNIT * (allies - 1)
    aims = Pointer(UNIT - 1, 1, MOVES + enemies - 1, MOVES)
    lists = (
        EntityList("ally", allies - 1, ((0, UNIT),), present=0, pointer=aims),
        EntityList(
            "enemy", enemies, ((own + OWN, UNIT),), present=0, actions=MOVES, dropped=(UNIT - 1,)
        ),
    )
    return EntityLayout("unit", ((own, own + OWN),), lists, agent_id=agent_id)


def sizes(allies: int, enemies: int) -> tuple[int, int]:
    """Length of an observation and number of actions."""
    return UNIT * (allies + enemies - 1) + OWN, MOVES + enemies


def units(agents: int, allies: int, enemies: int) -> tuple[torch.Tensor, ...]:
    """Numbers of allies [agents, N-1, 4], own ones, and of enemies; a third is not there.

    Allies act at random: half of them attack an enemy.
    """
    seen, foes = torch.randn(agents, allies - 1, UNIT), torch.randn(agents, enemies, UNIT)
    for part in (seen, foes):
        part[..., 0] = torch.rand(part.shape[:-1]) + 0.1
    target = torch.randint(enemies, seen.shape[:-1]) + MOVES
    acted = torch.where(torch.rand(seen.shape[:-1]) < 0.5, target, 0)
    seen[..., -1] = acted / (MOVES + enemies - 1)
    for part in (seen, foes):
        part *= torch.rand((*part.shape[:-1], 1)) > 1 / 3
    return seen, torch.randn(agents, OWN), foes


def row(seen: torch.Tensor, own: torch.Tensor, foes: torch.Tensor) -> torch.Tensor:
    return torch.cat([seen.flatten(-2), own, foes.flatten(-2)], -1)


def models(layouts: dict, config=None, out: str = "action_value", **changes) -> dict:
    """Networks of several tasks; layouts: task -> (layout, agents, observation, actions)."""
    config = EntityModelConfig(**SMALL) if config is None else config
    made = {}
    specs = action_specs({task: rest for task, (_, *rest) in layouts.items()})
    for task, (layout, n, size, actions) in layouts.items():
        group = Composite(observation=Unbounded((n, size)), shape=(n,))
        group = group if layout is None else described(group, layout)
        made[task] = config.get_model(
            **{
                "input_spec": Composite({task: group.clone().to("cpu")}),
                "output_spec": Composite(
                    {task: Composite({out: Unbounded((n, actions))}, shape=(n,))}
                ),
                "agent_group": task,
                "input_has_agent_dim": True,
                "n_agents": n,
                "centralised": False,
                "share_params": True,
                "device": "cpu",
                "action_spec": specs,
                **changes,
            }
        )
    for part in dict.fromkeys(p for network in made.values() for p in network.modules()):
        if isinstance(part, Output):  # as large as in training, so that differences show
            torch.nn.init.normal_(part.weight)
    return made


def model(allies: int, enemies: int, config=None):
    entry = (battle(allies, enemies), allies, *sizes(allies, enemies))
    return models({"task": entry}, config)["task"]


def values(network, observation: torch.Tensor) -> torch.Tensor:
    """Action values [*B, N, A]."""
    group = TensorDict({"observation": observation}, observation.shape[:-1])
    data = TensorDict({network.agent_group: group}, observation.shape[:-2])
    return network(data)[network.agent_group, "action_value"]


def by_hand(network, seen, own, foes, n_actions: int) -> torch.Tensor:
    """The equations of one agent, entity by entity."""
    part, relu = network.parts, torch.relu
    embedded = part["unit:pool"](relu(part["unit:token"](own)))
    allies = [e for e in seen if e[0] > 0]
    aims = [round(float(e[-1]) * (n_actions - 1)) - MOVES for e in allies]
    tokens = {"ally": [], "enemy": []}
    for e in allies:
        tokens["ally"].append(relu(part["ally:token"](e[:-1])))
    scored = {}
    for index, e in enumerate(foes):
        if e[0] > 0:
            numbers = torch.cat([e[:-1], torch.tensor([float(aims.count(index))])])
            scored[index] = relu(part["enemy:token"](numbers))
            tokens["enemy"].append(scored[index])
    mine = relu(part["unit:token"](own))
    if "attention" in part:
        embedded = embedded + attended(
            part["attention"], mine, [mine, *itertools.chain(*tokens.values())]
        )
    else:
        for kind, found in tokens.items():
            stack = torch.stack(found or [torch.zeros(len(mine))])
            embedded = embedded + part[f"{kind}:pool"](torch.cat([stack.mean(0), stack.amax(0)]))
    (trunk,) = [m for m in network.trunk.modules() if isinstance(m, torch.nn.Linear)]
    features = relu(trunk(relu(embedded)))
    score, outputs = part["enemy:score"], [part["unit:basic"](features)]
    for index in range(len(foes)):
        token = scored.get(index, torch.zeros(score.key.in_features))
        outputs.append(score.out(relu(score.query(features) + score.key(token))))
    return torch.cat(outputs)


def attended(layer, mine, tokens):
    """Attention of one agent, head by head: softmax of products over the root of their length."""
    size = len(mine) // HEADS
    keys, values = zip(*(layer.key_value(token).split(len(mine)) for token in tokens))
    read = []
    for part in layer.query(mine).split(size):
        head = slice(len(read) * size, (len(read) + 1) * size)
        weights = torch.stack([part @ key[head] / size**0.5 for key in keys]).softmax(0)
        read.append(sum(w * value[head] for w, value in zip(weights, values)))
    return layer.out(torch.cat(read))


@pytest.fixture(params=[SMALL, ATTENTION], ids=["sets", "attention"])
def config(request):
    return EntityModelConfig(**request.param)


def test_the_equations_by_hand(config):
    network = model(4, 3, config)
    parts = units(4, 4, 3)
    found = values(network, row(*parts))
    for agent in range(4):
        expected = by_hand(network, *(part[agent] for part in parts), MOVES + 3)
        torch.testing.assert_close(found[agent], expected)


@pytest.mark.parametrize("batch", [(), (7,), (2, 3)])
def test_any_batch(batch, config):
    network, seen = model(4, 3, config), torch.rand(*batch, 4, sizes(4, 3)[0])
    found = values(network, seen)
    assert found.shape == (*batch, 4, 6)
    flat = values(network, seen.reshape(-1, *seen.shape[-2:]))
    torch.testing.assert_close(flat.view(found.shape), found)


def test_permuted_allies_change_nothing(config):
    network, (seen, own, foes) = model(5, 4, config), units(5, 5, 4)
    expected = values(network, row(seen, own, foes))
    found = values(network, row(seen[:, torch.randperm(4)], own, foes))
    torch.testing.assert_close(found, expected)


def test_permuted_enemies_permute_their_scores(config):
    """With whom allies attack, which is said by number."""
    network, (seen, own, foes) = model(5, 4, config), units(5, 5, 4)
    expected = values(network, row(seen, own, foes))
    order = torch.tensor([2, 0, 3, 1])
    acted = (seen[..., -1] * (MOVES + 3)).round().long()
    moved = torch.where(acted >= MOVES, order.argsort()[(acted - MOVES).clamp(0)] + MOVES, acted)
    seen[..., -1] = moved / (MOVES + 3)
    found = values(network, row(seen, own, foes[:, order]))
    torch.testing.assert_close(found[:, MOVES:], expected[:, MOVES:][:, order])
    torch.testing.assert_close(found[:, :MOVES], expected[:, :MOVES])
    assert (found - expected).abs().max() > 1e-2  # it does read them


def test_whoever_is_not_there_changes_nothing(config):
    network, (seen, own, foes) = model(5, 4, config), units(5, 5, 4)
    seen[:, 1, 0], foes[:, 2, 0] = 0.0, -1.0
    expected = values(network, row(seen, own, foes))
    seen[:, 1, 1:], foes[:, 2, 1:] = 100.0, torch.nan_to_num(torch.randn(5, 3) * 50)
    assert torch.equal(values(network, row(seen, own, foes)), expected)


def test_alone_and_blind(config):
    """No other ally; and nobody in sight."""
    network, (seen, own, foes) = model(1, 2, config), units(1, 1, 2)
    found = values(network, row(seen, own, foes))
    torch.testing.assert_close(found[0], by_hand(network, seen[0], own[0], foes[0], MOVES + 2))
    blind = values(network, row(seen, own, foes * 0))
    torch.testing.assert_close(blind[0], by_hand(network, seen[0], own[0], foes[0] * 0, MOVES + 2))
    assert torch.equal(blind[0, MOVES], blind[0, MOVES + 1])


def test_a_battle_in_a_larger_one(config):
    """The same weights play it alike where there is room for more units, who are not there."""
    layouts = {
        name: (battle(*armies), armies[0], *sizes(*armies))
        for name, armies in {"small": (3, 2), "large": (7, 6)}.items()
    }
    made = models(layouts, config)
    assert made["small"].parts.keys() == made["large"].parts.keys()
    seen, own, foes = units(3, 3, 2)
    expected = values(made["small"], row(seen, own, foes))
    wide, more = torch.zeros(7, 6, UNIT), torch.zeros(7, 6, UNIT)
    wide[:3, 2:4], more[:3, :2] = seen, foes  # allies in other places, too
    wide[..., -1] *= (MOVES + 1) / (MOVES + 5)  # actions are counted otherwise
    padded = row(wide, torch.cat([own, own.new_zeros(4, OWN)]), more)
    found = values(made["large"], padded)[:3]
    torch.testing.assert_close(found[:, : MOVES + 2], expected)


def test_many_rows_are_taken_apart_as_few_are():
    parts = units(11000, 4, 3)
    rows = row(*parts)
    assert len(rows) * rows.shape[1] > 2 * CACHED  # in several chunks
    for many, few in zip(entity_rows(battle(4, 3), rows), entity_rows(battle(4, 3), rows[-7:])):
        assert torch.equal(many[:, -7:], few)


def test_types_share_their_weights_and_others_have_their_own():
    layouts = {
        "one": (battle(3, 2), 3, *sizes(3, 2)),
        "two": (battle(5, 4), 5, *sizes(5, 4)),
        "plain": (None, 2, 6, 4),
        "spread": (EntityLayout("self", ((0, 2),), (EntityList("mark", 2, ((2, 2),)),)), 2, 6, 4),
    }
    made = models(layouts)
    for name, part in made["one"].parts.items():
        assert made["two"].parts[name] is part
    assert len({id(network.trunk) for network in made.values()}) == 1
    assert not set(made["one"].parts) & set(made["spread"].parts)
    assert not made["plain"].parts
    again = models(layouts)  # another experiment
    assert again["one"].parts["unit:basic"] is not made["one"].parts["unit:basic"]


def test_a_task_without_layout_is_todays_network():
    entry = {"plain": (None, 2, 6, 4)}
    seen = torch.randn(3, 2, 6)
    torch.manual_seed(3)
    ours = models(entry)["plain"]
    torch.manual_seed(3)
    theirs = models(entry, MultiTaskModelConfig(embedding_size=8, feature_size=7))["plain"]
    assert torch.equal(values(ours, seen), values(theirs, seen))


def test_types_of_one_name_and_two_sizes_are_refused():
    other = EntityLayout("self", ((0, 2),), (EntityList("enemy", 2, ((2, 2),)),))
    layouts = {"one": (battle(3, 2), 3, *sizes(3, 2)), "two": (other, 2, 6, 4)}
    with pytest.raises(ValueError, match=r"enemy:token has sizes \(4, 9\) in one task and \(2, 9"):
        models(layouts)
    with pytest.raises(ValueError, match="no slice of the 7 numbers"):
        models({"two": (battle(3, 2), 2, 7, 4)})


def test_agent_ids_count_only_if_asked_for():
    layout, (size, actions) = battle(3, 2, agent_id=3), sizes(3, 2)
    entry = {"task": (layout, 3, size + 3, actions)}
    seen = torch.cat([torch.rand(1, size).expand(3, -1), torch.eye(3)], -1)
    without = values(models(entry)["task"], seen)
    torch.testing.assert_close(without[0], without[1])
    told = EntityModelConfig(**SMALL, agent_id=True)
    found = values(models(entry, told)["task"], seen)
    assert (found[0] - found[1]).abs().max() > 1e-2
    assert "unit:id_3" in models(entry, told)["task"].parts


def test_outputs_in_the_order_of_the_actions():
    """Attacks may come before the basic actions, or between them."""
    layout, (size, actions) = battle(3, 2), sizes(3, 2)
    enemy = replace(layout.lists[1], actions=1)
    mixed = replace(layout, lists=(layout.lists[0], enemy))
    made = models({"one": (layout, 3, size, actions), "two": (mixed, 3, size, actions)})
    seen = row(*units(3, 3, 2))
    seen[:, : 2 * UNIT] = 0  # whom allies attack is counted otherwise
    one, two = (values(network, seen) for network in made.values())
    assert torch.equal(two, one[:, [0, 3, 4, 1, 2]])


@pytest.mark.parametrize("centralised", [False, True])
def test_critics(centralised, config):
    """A value per agent, or one from all agents, in any order."""
    entry = {"task": (battle(4, 3), 4, *sizes(4, 3))}
    shape = (1,) if centralised else (4, 1)
    value = Composite(state_value=Unbounded(shape), shape=shape[:-1])
    out = value if centralised else Composite(task=value)
    network = models(entry, config, output_spec=out, centralised=centralised)["task"]
    seen = row(*units(4, 4, 3)).expand(5, -1, -1)
    data = TensorDict({"task": TensorDict({"observation": seen}, (5, 4))}, (5,))
    found = network(data)[network.out_key]
    assert found.shape == (5, *shape)
    order = torch.randperm(4)
    data["task", "observation"] = seen[:, order]
    again = network(data)[network.out_key]
    torch.testing.assert_close(again, found if centralised else found[:, order])


def test_a_recurrent_trunk_step_by_step_and_at_once():
    network = model(4, 3, EntityModelConfig(**SMALL, trunk=GRU))
    steps = [row(*units(4, 4, 3)) for _ in range(5)]
    group = TensorDict({"observation": torch.stack(steps)[None]}, (1, 5, 4))
    is_init = torch.tensor([[[True], [False], [False], [True], [False]]])
    data = TensorDict({"task": group, "is_init": is_init}, (1, 5))
    at_once = network(data)["task", "action_value"][0]
    state = torch.zeros(1, 4, 1, 8)
    for time, seen in enumerate(steps):
        (key,) = network._hidden
        group = TensorDict({"observation": seen[None], key: state}, (1, 4))
        data = TensorDict({"task": group, "is_init": is_init[:, time]}, (1,))
        out = network(data)
        state = out["next", "task", key]
        torch.testing.assert_close(out["task", "action_value"][0], at_once[time])


def student(config=None, **tasks: tuple[int, int]) -> StudentNetwork:
    layouts = {
        name: (battle(*armies), armies[0], *sizes(*armies)) for name, armies in tasks.items()
    }
    layouts["plain"] = (None, 2, 6, 4)
    return StudentNetwork(models(layouts, config), VdnMixer())


def test_a_student_has_every_weight_once_and_averages_it_once():
    loss = MktLoss(student(one=(3, 2), two=(5, 4)), standardise=False)
    updater = SoftUpdate(loss, tau=0.1)
    tensors = [leaf.data_ptr() for leaf in loss.target_network_params.values(True, True)]
    assert len(tensors) == len(set(tensors))
    name = ("parts", "enemy:token", "weight")
    before = loss.target_network_params[name].clone()
    with torch.no_grad():
        loss.network_params[name].data += 1.0
    updater.step()
    torch.testing.assert_close(loss.target_network_params[name], before + 0.1)


def test_a_students_values_and_gradients(config):
    network = student(config, one=(3, 2), two=(5, 4))
    loss = MktLoss(network, standardise=False)
    batch = TensorDict({}, [3])
    for name, (agents, size, actions) in {
        "one": (3, *sizes(3, 2)),
        "two": (5, *sizes(5, 4)),
        "plain": (2, 6, 4),
    }.items():
        batch[name] = random_segments(agents, size, actions, 1)
    loss(batch)["loss"].backward()
    alone = {name: batch[name, "observation"] for name in ("one", "two", "plain")}
    for name, found in network(alone).items():
        torch.testing.assert_close(network({name: alone[name]})[name], found)
    gradients = {name: p.grad for name, p in network.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    assert gradients["parts.enemy:token.weight"].any()


STOCK = [QmixConfig, VdnConfig, IqlConfig, MappoConfig, IppoConfig]


class EntityToy(ToyClass):
    """The toy game, whose agents see their time, the episode's length and who they are."""

    def entity_layout(self, env):
        seen = (EntityList("toy/clock", 2, ((0, 1),), actions=1),)
        return {"agents": EntityLayout("toy/agent", ((2, 3),), seen)}


@pytest.fixture
def with_layout(monkeypatch):
    """Toys that describe what they show."""
    monkeypatch.setattr(ToyClass, "entity_layout", EntityToy.entity_layout, raising=False)


def mixed_set():
    """A task with layout and a plain one, of two groups."""
    groups = {"agents": [2, 3, 0], "others": [1, 4, 2]}
    return task_set(toy("one"), toy("two", groups=groups, length=5))


@pytest.mark.parametrize("algorithm", STOCK)
def test_stock_algorithms_train_on_a_mixed_set(algorithm, tmp_path, with_layout):
    experiment = make_experiment(
        tmp_path, mixed_set(), algorithm.get_from_yaml(), EntityModelConfig(**SMALL)
    )
    networks = {
        group: next(
            m for m in experiment.algorithm.get_policy_for_loss(group).modules()
            if hasattr(m, "parts")
        )
        for group in ("one", "two")
    }  # fmt: skip
    assert set(networks["one"].parts) == {
        *(f"toy/agent:{what}" for what in ("token", "pool", "basic")),
        *(f"toy/clock:{what}" for what in ("token", "pool", "score")),
    }
    assert networks["one"].layout.agent_id == 2  # the set appends it
    assert not networks["two"].parts  # two groups of agents: no layout
    weights = [p.clone() for p in networks["one"].parameters()]
    experiment.run()
    moved = [not torch.equal(a, b) for a, b in zip(weights, networks["one"].parameters())]
    assert all(moved)


def test_attention_as_policy_and_critic(tmp_path, with_layout):
    model, algorithm = EntityModelConfig(**ATTENTION), MappoConfig.get_from_yaml()
    experiment = make_experiment(tmp_path, mixed_set(), algorithm, model, critic=model)
    before = {name: p.clone() for name, p in experiment.losses["one"].named_parameters()}
    experiment.run()
    read = [name for name in before if "attention" in name]
    assert len(read) == 2 * 6  # query, key and value, out: weights and biases
    after = dict(experiment.losses["one"].named_parameters())
    assert not any(torch.equal(before[name], after[name]) for name in read)


@pytest.mark.parametrize("mixer", ["vdn", "vdn_s", "attention", "none"])
def test_mkt_trains_on_a_mixed_set(mixer, tmp_path, with_layout):
    config = MktConfig(annealing=TEACHERLESS, mixer=mixer)
    experiment = make_experiment(tmp_path, mixed_set(), config, EntityModelConfig(**SMALL))
    network = experiment.losses["student"].network_params
    before = network.data.clone()
    experiment.run()
    assert (network.data["parts"] != before["parts"]).any()
    assert experiment.n_iters_performed == 2


def test_the_file_says_what_the_class_says():
    config = EntityModelConfig.get_from_yaml()
    assert config == EntityModelConfig()
    content = yaml.safe_load((conf_path() / "model" / "multitask_entity.yaml").read_text())
    assert content.pop("name") == "multitask_entity"
    assert content == asdict(EntityModelConfig())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token_size": 0}, "model.token_size: 0 must be"),
        ({"score_size": 1.5}, "model.score_size: 1.5 must be"),
        ({"agent_id": 1}, "model.agent_id: 1 must be true or false"),
        ({"feature_size": -1}, "model.feature_size"),
        ({"pooling": "mean"}, r"model.pooling: 'mean' must be one of \('sets', 'attention'\)"),
        ({**ATTENTION, "token_size": 9}, "model.token_size: 9 must be a multiple of 4"),
    ],
)
def test_wrong_settings(change, message):
    with pytest.raises(ValueError, match=message):
        EntityModelConfig(**change)
