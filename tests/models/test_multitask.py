import gc
from dataclasses import asdict

import pytest
import torch
import yaml
from benchmarl.algorithms import IppoConfig, IqlConfig, MappoConfig, QmixConfig, VdnConfig
from benchmarl.models import Gru, GruConfig, MlpConfig
from tensordict import TensorDict

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.algorithms.mkt import as_multitask
from benchmarl_mkt.files import conf_path
from benchmarl_mkt.models import MultiTaskModel, MultiTaskModelConfig, StudentNetwork, VdnMixer
from benchmarl_mkt.models.multitask import network_outputs, trunk_config
from benchmarl_mkt.models.student import whole_sequences
from tests.helpers import action_specs, make_agents, make_experiment, small_model, task_set
from tests.toys import toy

SIZES = {"one": (2, 4, 3), "two": (3, 5, 6)}
GRU = {"name": "gru", "hidden_size": 8, "n_layers": 1, "mlp_num_cells": []}
TEACHERLESS = {"start": 1.0, "end": 1.0, "fraction": 1.0}
SET = (
    toy("one", groups={"agents": [2, 3, 0]}),
    toy("two", groups={"agents": [2, 4, 3]}, length=5),
)


def agents_data(task: str, *batch: int) -> TensorDict:
    agents, size, _ = SIZES[task]
    return TensorDict(
        {task: TensorDict({"observation": torch.randn(*batch, agents, size)}, (*batch, agents))},
        batch,
    )


@pytest.mark.parametrize("batch", [(), (7,), (4, 5)])
def test_equations_1_and_2_by_hand(batch):
    agents = make_agents(SIZES)
    for task, model in agents.items():
        data = agents_data(task, *batch)
        observation = data[task, "observation"]
        hidden = torch.relu(model.embedding(observation))
        layers = [m for m in model.trunk.modules() if isinstance(m, torch.nn.Linear)]
        assert len(layers) == 1  # the default trunk F is one layer
        expected = model.head(torch.relu(layers[0](hidden)))
        torch.testing.assert_close(model(data)[task, "action_value"], expected)


def test_layer_norm_before_both_activations():
    agents = make_agents(SIZES, small_model(layer_norm=True))
    for task, model in agents.items():
        data = agents_data(task, 7)
        (trunk,) = [m for m in model.trunk.modules() if isinstance(m, torch.nn.Linear)]

        def normalised(rows):
            centred = rows - rows.mean(-1, keepdim=True)
            return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()

        hidden = torch.relu(normalised(model.embedding(data[task, "observation"])))
        expected = model.head(torch.relu(normalised(trunk(hidden))))
        torch.testing.assert_close(model(data)[task, "action_value"], expected)
    student = StudentNetwork(agents, VdnMixer())
    observation = data[task, "observation"]
    torch.testing.assert_close(student({task: observation})[task], expected)


def test_one_trunk_for_all_tasks_of_an_experiment_and_none_for_two():
    first, second = make_agents(SIZES), make_agents(SIZES)
    assert first["one"].trunk is first["two"].trunk
    assert first["one"].trunk is not second["one"].trunk
    assert first["one"].embedding is not first["two"].embedding
    assert first["one"].head is not first["two"].head
    parameters = set(map(id, first["one"].trunk.parameters()))
    assert parameters.isdisjoint(map(id, second["one"].trunk.parameters()))


def test_experiments_that_follow_each_other_do_not_share_a_trunk():
    """The action specification of a finished experiment may be freed and its address reused."""
    seen = []
    for _ in range(4):
        specs = action_specs(SIZES)
        trunk = make_agents(SIZES, action_spec=specs)["one"].trunk
        assert all(trunk is not other for other in seen)
        seen.append(trunk)
        del specs
        gc.collect()


def test_other_sizes_make_another_trunk():
    specs = action_specs(SIZES)
    small = make_agents(SIZES, small_model(), specs)["one"]
    large = make_agents(SIZES, small_model(feature_size=9), specs)["one"]
    assert small.trunk is not large.trunk


def test_rows_do_not_influence_each_other():
    """Agents share parameters and see their own observation alone."""
    model = make_agents(SIZES)["two"]
    data = agents_data("two", 4)
    before = model(data.clone())["two", "action_value"]
    data["two", "observation"][1, 2] += 1.0
    after = model(data)["two", "action_value"]
    changed = (before != after).any(-1)
    assert changed.nonzero().tolist() == [[1, 2]]


def trunks_of(experiment, kind: str = "policy") -> list:
    found = []
    for group in experiment.algorithm.group_map:
        if kind == "policy":
            module = experiment.algorithm.get_policy_for_loss(group)
        else:
            module = experiment.algorithm.get_critic(group)
        found += [m.trunk for m in module.modules() if isinstance(m, MultiTaskModel)]
    return found


def test_trunks_of_other_layers_are_others_in_one_experiment():
    """A second model of an experiment is not given the first one's trunk."""
    sizes = {"a": (2, 5, 3)}
    spec = action_specs(sizes)
    relu = {"activation_class": "torch.nn.ReLU"}
    trunks = [
        make_agents(sizes, small_model(trunk=trunk), spec)["a"].trunk
        for trunk in (
            {"name": "mlp", "num_cells": [], **relu},
            {"name": "mlp", "num_cells": [7], **relu},
            {"name": "mlp", "num_cells": [7], "activation_class": "torch.nn.Tanh"},
            {"name": "gru"},
        )
    ]
    assert len(set(map(id, trunks))) == 4
    assert [type(trunk).__name__ for trunk in trunks] == ["Mlp", "Mlp", "Mlp", "Gru"]
    again = make_agents(sizes, small_model(trunk={"name": "gru"}), spec)["a"]
    assert again.trunk is trunks[3]


@pytest.mark.parametrize("config", [QmixConfig, VdnConfig, IqlConfig, MappoConfig, IppoConfig])
def test_stock_algorithms_share_one_trunk_over_their_groups(config, tmp_path):
    experiments = [
        make_experiment(tmp_path, task_set(*SET), config.get_from_yaml()) for _ in range(2)
    ]
    first, second = (trunks_of(e) for e in experiments)
    assert len(first) == 2
    assert first[0] is first[1]
    assert first[0] is not second[0]
    if config in (MappoConfig, IppoConfig):
        critics = trunks_of(experiments[0], "critic")
        assert len(critics) == 2
        assert critics[0] is critics[1]
        assert critics[0] is not first[0]
    # The very same parameters are in the losses of both groups, so both train them.
    shared = set(map(id, first[0].parameters()))
    for loss in experiments[0].losses.values():
        assert shared <= set(map(id, loss.parameters()))
    for experiment in experiments:
        experiment.close()


@pytest.mark.parametrize("config", [QmixConfig, MappoConfig])
def test_stock_algorithms_train_the_shared_trunk(config, tmp_path):
    experiment = make_experiment(tmp_path, task_set(*SET), config.get_from_yaml())
    before = [p.detach().clone() for p in trunks_of(experiment)[0].parameters()]
    experiment.run()
    after = list(trunks_of(experiment)[0].parameters())
    assert all((old != new).any() for old, new in zip(before, after))
    assert trunks_of(experiment)[0] is trunks_of(experiment)[1]


def test_a_tasks_gradient_leaves_the_other_tasks_layers_alone():
    agents = make_agents(SIZES)
    agents["one"](agents_data("one", 6))["one", "action_value"].sum().backward()
    for part in (agents["two"].embedding, agents["two"].head):
        assert all(p.grad is None for p in part.parameters())
    for part in (agents["one"].embedding, agents["one"].head, agents["one"].trunk):
        assert all(p.grad is not None for p in part.parameters())


@pytest.mark.parametrize("border", [True, False])
@pytest.mark.parametrize("trunk", [GRU, {"name": "lstm", "hidden_size": 8, "n_layers": 1}])
def test_recurrent_sequences_equal_single_steps(trunk, border):
    """Hidden states carried by hand through an episode border give the outputs of one sequence."""
    model = make_agents(SIZES, small_model(trunk=trunk))["two"]
    batch, steps, agents = 3, 6, 3
    observation = torch.randn(batch, steps, agents, 5)
    is_init = torch.zeros(batch, steps, 1, dtype=torch.bool)
    is_init[:, 0] = True
    is_init[1, 4] = border  # another episode begins inside the sequence
    sequence = model.compute(observation, is_init)  # [B, T, N, A]

    shapes = {
        key: spec.shape for key, spec in small_model(trunk=trunk).get_model_state_spec().items()
    }
    state = {key: torch.zeros(batch, agents, *shape) for key, shape in shapes.items()}
    for t in range(steps):
        content = {"observation": observation[:, t], **state}
        data = TensorDict(
            {"two": TensorDict(content, [batch, agents]), "is_init": is_init[:, t]}, [batch]
        )
        out = model(data)
        torch.testing.assert_close(out["two", "action_value"], sequence[:, t])
        state = {key: out["next", "two", key] for key in shapes}


@pytest.mark.parametrize("bias", [True, False])
def test_a_gru_at_once_learns_as_benchmarls_own_step_by_step(bias):
    agents = make_agents(SIZES, small_model(trunk={**GRU, "n_layers": 2, "bias": bias}))
    student = StudentNetwork(agents, VdnMixer())
    is_init = torch.zeros(4, 6, 1, dtype=torch.bool)
    is_init[:, 0] = True
    observation, parts = torch.randn(4, 6, 3, 5), agents["two"]
    assert whole_sequences(parts.trunk, is_init) is not parts.trunk

    def learn(values):
        return values, torch.autograd.grad(values.square().sum(), list(parts.parameters()))

    at_once = learn(student({"two": observation}, is_init)["two"])
    torch.testing.assert_close(at_once, learn(parts.compute(observation, is_init)))


def test_sequences_with_a_border_are_taken_step_by_step():
    trunk, is_init = make_agents(SIZES, small_model(trunk=GRU))["one"].trunk, torch.zeros(2, 5, 1)
    is_init[1, 3] = 1.0
    assert whole_sequences(trunk, is_init.bool()) is trunk


def test_the_recurrent_trunk_remembers():
    model = make_agents(SIZES, small_model(trunk=GRU))["one"]
    observation = torch.randn(1, 3, 2, 4)
    is_init = torch.tensor([[[True], [False], [False]]])
    before = model.compute(observation, is_init)
    observation[:, 0] += 1.0
    assert (model.compute(observation, is_init)[:, 2] != before[:, 2]).any()
    cut = torch.tensor([[[True], [False], [True]]])
    observation_2 = observation.clone()
    observation_2[:, :2] -= 3.0
    torch.testing.assert_close(
        model.compute(observation, cut)[:, 2], model.compute(observation_2, cut)[:, 2]
    )


@pytest.mark.parametrize(
    "model",
    [
        small_model(trunk=GRU),
        GruConfig(
            hidden_size=8,
            n_layers=1,
            bias=True,
            dropout=0,
            compile=False,
            mlp_num_cells=[],
            mlp_activation_class=torch.nn.ReLU,
            mlp_layer_class=torch.nn.Linear,
        ),
    ],
    ids=["trunk", "plain"],
)
def test_a_recurrent_student_trains(model, tmp_path):
    experiment = make_experiment(tmp_path, task_set(*SET), MktConfig(annealing=TEACHERLESS), model)
    experiment.run()
    (trunk,) = {id(t): t for t in trunks_of(experiment)}.values()
    assert isinstance(trunk, Gru)
    assert experiment.n_iters_performed == 2


def test_a_stock_recurrent_run_takes_the_trunk(tmp_path):
    experiment = make_experiment(
        tmp_path, task_set(*SET), MappoConfig.get_from_yaml(), small_model(trunk=GRU)
    )
    experiment.run()
    assert experiment.n_iters_performed == 2


def test_a_plain_benchmarl_model_becomes_the_trunk():
    config = as_multitask(MlpConfig.get_from_yaml())
    assert isinstance(config, MultiTaskModelConfig)
    assert trunk_config(config.trunk) == MlpConfig.get_from_yaml()
    own = small_model()
    assert as_multitask(own) is own


def test_parameters_of_a_team_must_be_shared(tmp_path):
    for algorithm in (QmixConfig.get_from_yaml(), MktConfig(annealing=TEACHERLESS)):
        with pytest.raises(ValueError, match=r"share_policy_params"):
            make_experiment(tmp_path, task_set(*SET), algorithm, share_policy_params=False)


@pytest.mark.parametrize(
    ("trunk", "message"),
    [
        ({"name": "cnn"}, r"model\.trunk\.name: 'cnn'"),
        ({}, r"model\.trunk\.name: None"),
        ({"name": "mlp", "width": 3}, r"model\.trunk: unknown \['width'\]"),
    ],
)
def test_unknown_trunks_are_refused(trunk, message):
    with pytest.raises(ValueError, match=message):
        MultiTaskModelConfig(trunk=trunk)


def test_configuration_equals_its_yaml_and_its_defaults():
    config = MultiTaskModelConfig.get_from_yaml()
    assert config == MultiTaskModelConfig()
    content = yaml.safe_load((conf_path() / "model" / "multitask.yaml").read_text())
    assert content.pop("name") == "multitask"
    assert content == asdict(MultiTaskModelConfig())


def test_a_student_needs_one_trunk():
    mixed = {"one": make_agents(SIZES)["one"], "two": make_agents(SIZES)["two"]}
    with pytest.raises(ValueError, match="one trunk"):
        StudentNetwork(mixed, VdnMixer())


def test_a_student_gives_the_networks_values():
    agents = make_agents(SIZES)
    student = StudentNetwork(agents, VdnMixer())
    data = agents_data("two", 4, 2)
    torch.testing.assert_close(
        student({"two": data["two", "observation"]})["two"],
        agents["two"](data)["two", "action_value"],
    )
    trunk_parameters = sum(p.numel() for p in agents["one"].trunk.parameters())
    total = sum(p.numel() for p in student.parameters())
    own = sum(
        p.numel()
        for m in agents.values()
        for part in (m.embedding, m.head)
        for p in part.parameters()
    )
    assert total == own + trunk_parameters  # the trunk counts once


def outputs(agents, data, is_init=None):
    trunk = agents["one"].trunk
    embeddings = {task: agent.embedding for task, agent in agents.items()}
    heads = {task: agent.head for task, agent in agents.items()}
    return network_outputs(embeddings, trunk, heads, data, is_init)


def test_network_outputs_keep_the_leading_shape():
    agents, data = make_agents(SIZES), torch.randn(2, 3, 2, 4)
    flat = outputs(agents, {"one": data.reshape(6, 2, 4)})["one"]
    torch.testing.assert_close(outputs(agents, {"one": data})["one"], flat.view(2, 3, 2, 3))


@pytest.mark.parametrize("trunk", ["mlp", "gru", "lstm"])
def test_tasks_together_give_what_each_gives_alone(trunk):
    """Teams of other sizes do not mix, be the trunk's pass common or not."""
    config = small_model(trunk={"name": trunk}) if trunk != "mlp" else small_model()
    agents = make_agents({"one": (2, 4, 3), "two": (3, 5, 6)}, config)
    data = {"one": torch.randn(4, 7, 2, 4), "two": torch.randn(4, 7, 3, 5)}
    is_init = None if trunk == "mlp" else torch.rand(4, 7, 1) < 0.3
    together = outputs(agents, data, is_init)
    for task, agent in agents.items():
        torch.testing.assert_close(together[task], agent.compute(data[task], is_init))
    assert together["two"].shape == (4, 7, 3, 6)
