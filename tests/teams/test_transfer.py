import json
from dataclasses import replace

import pytest
import torch

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.models import EntityLayout, EntityList, EntityModelConfig
from benchmarl_mkt.models.entity import POOLINGS
from benchmarl_mkt.teams import export_team, load_team, team_task
from benchmarl_mkt.teams.evaluation import greedy_policy, play
from benchmarl_mkt.teams.load import load_trunk
from benchmarl_mkt.teams.onnx import export_entities
from benchmarl_mkt.teams.transfer import save_team, zero_shot
from tests.helpers import PUSH, SPEAKER, make_agents, make_experiment, small_model, task_set
from tests.toys import ToyClass, toy

ALONE = {"start": 1.0, "end": 1.0, "fraction": 1.0}
SIZES = {"one": (2, 4, 3)}


@pytest.fixture(scope="module")
def team_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("team")
    algorithm = MktConfig(annealing=ALONE)
    experiment = make_experiment(folder, task_set(PUSH, SPEAKER), algorithm, small_model(), lr=0.1)
    experiment.run()
    return export_team(experiment, folder / "team")


def test_a_known_task_scores_as_it_did(team_folder):
    team = load_team(team_folder)
    found = zero_shot(team, "mpe/simple_push", episodes=12, seed=3)
    returns = play(team_task(team), greedy_policy(team), 12, 3).returns["simple_push"]
    assert found.best == "simple_push"
    assert list(found.sources) == ["simple_push"]  # the other has other sizes
    assert found.score.returns.mean == pytest.approx(returns.mean().item())
    assert found.score.won is None
    assert found.sources["simple_push"].returns.mean != found.score.returns.mean  # other episodes
    assert found.random.returns.mean != found.score.returns.mean


def test_the_best_source_is_the_one_that_wins(tmp_path):
    """Two toys of the same sizes; the new one is won by action 1 of the first agent."""
    same = {"groups": {"agents": [2, 3, 0]}}
    known = [toy("one", **same), toy("two", **same)]
    experiment = make_experiment(tmp_path, task_set(*known), MktConfig(annealing=ALONE))
    for task, action in (("one", 2), ("two", 1)):
        head = experiment.algorithm.get_policy_for_loss(task).head
        head.weight.data.zero_()
        head.bias.data.copy_(torch.eye(3)[action])
    team = load_team(export_team(experiment, tmp_path / "team"))
    new = toy("three", **same, wins=True)
    found = zero_shot(team, new, episodes=5, seed=0)
    assert found.best == "two"
    assert [found.sources[name].won.mean for name in ("one", "two")] == [0.0, 1.0]
    assert found.score.won.mean == 1.0
    chosen = zero_shot(team, new, episodes=5, seed=0, source="one")
    assert (chosen.best, chosen.score.won.mean) == ("one", 0.0)

    save_team([found], tmp_path / "new")
    saved = load_team(tmp_path / "new")
    assert play(team_task(saved), greedy_policy(saved), 3, 1).won["three"].all()
    score = saved["three"].metadata["score"]
    assert score == {**found.score.returns._asdict(), "episodes": 5}
    teaches = MktConfig(teachers={"three": str(tmp_path / "new" / "three")})
    make_experiment(tmp_path, task_set(new), teaches).run()


@pytest.fixture
def things(monkeypatch):
    """Toys whose agents see themselves and a number of things of one type."""

    def entity_layout(self, env):
        ((kind, (_, _, count)),) = self.config["groups"].items()
        seen = (EntityList(f"toy/{kind}", count, ((3, 1),)),)
        return {kind: EntityLayout("toy/agent", own=((0, 3),), lists=seen)}

    monkeypatch.setattr(ToyClass, "entity_layout", entity_layout, raising=False)
    return lambda name, agents, count, kind="thing", **more: toy(
        name, groups={kind: [agents, 3, count]}, **more
    )


def entity_team(folder, *tasks, seed=0, **changes):
    """A team over entities, not trained."""
    folder.mkdir(exist_ok=True)
    model = EntityModelConfig(8, 8, small_model().trunk, token_size=4, **changes)
    algorithm = MktConfig(annealing=ALONE, mixer="vdn")
    experiment = make_experiment(folder, task_set(*tasks), algorithm, model, seed=seed)
    return load_team(export_team(experiment, folder / "team"))


def test_a_team_over_entities_plays_other_sizes(things, tmp_path):
    """Its parts know one type each; things that are alike are pooled to the same, however many."""
    known = things("one", 2, 2), things("two", 3, 1, kind="other")
    team = entity_team(tmp_path, *known)
    found = zero_shot(team, things("three", 4, 5, wins=True), episodes=3, seed=0)
    assert (found.best, found.sources) == ("all parts", {})
    seen = torch.tensor([0.1, 0.3, 1.0])
    few = torch.cat([seen, torch.full((2,), 0.5), torch.eye(2)[0]]).expand(2, -1)
    many = torch.cat([seen, torch.full((5,), 0.5), torch.eye(4)[0]]).expand(4, -1)
    torch.testing.assert_close(found.team.values(many)[:2], team["one"].values(few))
    other = zero_shot(team, things("four", 1, 2, kind="other"), episodes=2, seed=0)
    assert not torch.equal(
        other.team.values(many[:1, [0, 1, 2, 3, 4, 8]]), found.team.values(many)[:1]
    )

    save_team([found, other], tmp_path / "new")
    saved = load_team(tmp_path / "new")
    assert {name: part.specs.n_agents for name, part in saved.items()} == {"three": 4, "four": 1}
    torch.testing.assert_close(saved["three"].values(many), found.team.values(many))
    teaches = MktConfig(teachers={"three": str(tmp_path / "new" / "three")})
    make_experiment(tmp_path, task_set(things("three", 4, 5, wins=True)), teaches).run()


def test_parts_over_entities_that_were_trained_apart_are_tried_apart(things, tmp_path):
    for seed, name in enumerate(("one", "two")):
        entity_team(tmp_path / name, things(name, 2, 2), seed=seed)
        (tmp_path / name / "team" / name).rename(tmp_path / f"part_{name}")
    team = load_team(tmp_path)
    found = zero_shot(team, things("three", 3, 1), episodes=2, seed=0)
    assert sorted(found.sources) == ["part_one", "part_two"]
    assert found.best in found.sources
    assert zero_shot(team, things("three", 3, 1), 2, 0, source="part_two").best == "all parts"


@pytest.mark.parametrize("agent_id", [True, False])
def test_what_a_team_over_entities_does_not_know_is_named(things, tmp_path, agent_id):
    team = entity_team(tmp_path, things("one", 2, 2), agent_id=agent_id)
    with pytest.raises(ValueError, match=r"^tasks: toy/vector shows .*'toy/new'.* knows .*thing"):
        zero_shot(team, things("three", 2, 2, kind="new"), 2, 0)
    if agent_id:  # which belongs to teams of two
        with pytest.raises(ValueError, match=r"agent_id=true ties"):
            zero_shot(team, things("three", 3, 2), 2, 0)
    assert zero_shot(team, things("three", 2, 1), 2, 0).best == "all parts"


def test_a_new_student_begins_with_the_types_that_a_team_knows(things, tmp_path):
    team = entity_team(tmp_path / "old", things("one", 2, 2))
    model = EntityModelConfig(8, 8, small_model().trunk, token_size=4)
    algorithm = MktConfig(annealing=ALONE, mixer="vdn", trunk=str(tmp_path / "old"))
    new = things("two", 3, 1), things("three", 1, 1, kind="new")
    experiment = make_experiment(tmp_path, task_set(*new), algorithm, model, seed=1)
    parts = experiment.losses["student"]._bound_network.parts
    own = team["one"].model.parts
    assert set(parts) - set(own) == {"toy/new:token", "toy/new:pool"}
    for name, part in own.items():
        for key, value in part.state_dict().items():
            assert torch.equal(parts[name].state_dict()[key], value), name


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_team_that_pools_otherwise_is_refused(things, tmp_path, pooling):
    """And attention, which is of all types, is named as none."""
    team = entity_team(tmp_path, things("one", 2, 2), pooling=pooling)
    network = team["one"].model
    load_trunk(network, tmp_path)
    (other,) = set(POOLINGS) - {pooling}
    entity_team(tmp_path / "other", things("one", 2, 2), pooling=other)
    with pytest.raises(ValueError, match=f"^algorithm.trunk: .*set model.pooling={other}"):
        load_trunk(network, tmp_path / "other")
    with pytest.raises(ValueError, match=r"the team knows \['toy/agent', 'toy/thing'\]"):
        zero_shot(team, things("three", 2, 2, kind="new"), 2, 0)


def test_what_cannot_transfer_says_so(team_folder):
    team = load_team(team_folder)
    with pytest.raises(ValueError, match=r"^tasks: mpe/simple_spread has .*\(3, 21, 5\)"):
        zero_shot(team, "mpe/simple_spread", 2, 0)
    with pytest.raises(ValueError, match=r"^source: 'simple_tag' is not one of .*simple_push"):
        zero_shot(team, "mpe/simple_push", 2, 0, source="simple_tag")
    with pytest.raises(
        ValueError, match=r"^tasks: mpe/simple_push has .*'simple_speaker_listener'"
    ):
        zero_shot(team, "mpe/simple_push", 2, 0, source="simple_speaker_listener")


@pytest.mark.parametrize("frozen", [True, False])
def test_a_new_task_around_the_trained_trunk(frozen, team_folder, tmp_path):
    trained = load_team(team_folder)["simple_push"].model.trunk.state_dict()
    algorithm = MktConfig(annealing=ALONE, trunk=str(team_folder), freeze_trunk=frozen)
    task = task_set("mpe/simple_adversary", name="CUSTOM")
    experiment = make_experiment(tmp_path, task, algorithm, small_model(), lr=0.1)
    (agents,) = experiment.losses["student"]._bound_network.embeddings.values()
    embedding = agents.weight.detach().clone()

    def changed() -> bool:
        now = experiment.losses["student"]._bound_network.trunk.state_dict()
        tensors = {key: value for key, value in now.items() if isinstance(value, torch.Tensor)}
        return not all(torch.equal(value, trained[key]) for key, value in tensors.items())

    assert not changed()
    experiment.run()
    assert changed() is not frozen
    (agents,) = experiment.losses["student"]._bound_network.embeddings.values()
    assert not torch.equal(agents.weight, embedding)


def test_a_trunk_of_another_kind_is_refused(team_folder):
    others = (
        {"feature_size": 16},
        {"layer_norm": True},
        {"trunk": {"name": "mlp", "num_cells": [8]}},
    )
    for changes in others:
        other = make_agents(SIZES, small_model(**changes))["one"]
        with pytest.raises(ValueError, match=r"^algorithm\.trunk: .*not of this model's kind"):
            load_trunk(other, team_folder)
    load_trunk(make_agents(SIZES, small_model())["one"], team_folder)
    with pytest.raises(ValueError, match=r"^algorithm\.freeze_trunk: true needs"):
        MktConfig(freeze_trunk=True)


def test_the_command_shows_and_writes(team_folder, tmp_path, cli):
    out, new = tmp_path / "found.json", tmp_path / "new"
    status, shown, error = cli(
        "transfer", str(team_folder), "mpe/simple_push", "--episodes=4",
        f"--out={out}", f"--save={new}",
    )  # fmt: skip
    assert (status, error) == (0, "")
    assert "as simple_push" in shown
    content = json.loads(out.read_text())
    assert content["episodes"] == 4
    assert content["tasks"]["mpe/simple_push"]["best"] == "simple_push"
    found = zero_shot(load_team(team_folder), "mpe/simple_push", 4, 0)
    score = content["tasks"]["mpe/simple_push"]["score"]
    assert score["return"]["mean"] == found.score.returns.mean
    assert score["win_rate"] is None
    assert list(load_team(new)) == ["simple_push"]
    for wrong, message in (
        ([], "transfer: the following arguments are required: TASK"),
        (["mpe/simple_puhs"], "mpe/simple_puhs"),
        (["mpe/simple_push", f"--save={new}"], "save: "),
    ):
        status, _, error = cli("transfer", str(team_folder), *wrong)
        assert status == 2
        assert message in error
        assert error.count("\n") == 1


def test_tasks_of_one_name_cannot_be_saved_together(cli, team_folder, tmp_path):
    task = "{task: mpe/simple_push, config: {max_cycles: %d}}"
    given = str(team_folder), task % 5, task % 6, "--episodes=2", f"--save={tmp_path / 'new'}"
    status, _, error = cli("transfer", *given)
    assert status == 2
    assert "tasks: 'simple_push' is in the set twice" in error
    assert not (tmp_path / "new").exists()


def test_types_that_would_share_an_input_are_not_exported(things, tmp_path):
    team = entity_team(tmp_path, things("one", 2, 2, kind="x"))
    layout = replace(team["one"].model.layout, lists=team["one"].model.layout.lists * 2)
    team["one"].model.embedding.layout = layout
    with pytest.raises(ValueError, match=r"^export: .*'toy/x', 'toy/x'.* other types"):
        export_entities(team["one"], tmp_path / "any.onnx")
