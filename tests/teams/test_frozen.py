import subprocess
import sys

import numpy as np
import pytest
import torch
from benchmarl.algorithms import MappoConfig
from benchmarl.models import GruConfig, MlpConfig
from tensordict import TensorDict
from torchrl.envs.utils import step_mdp

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.files import conf_path
from benchmarl_mkt.models import MultiTaskModelConfig
from benchmarl_mkt.teams import export_team, load_team, team_task
from benchmarl_mkt.teams.evaluation import greedy_policy
from benchmarl_mkt.teams.frozen import FrozenTeam
from benchmarl_mkt.teams.onnx import export_policy, plain_network
from tests.helpers import PUSH, SPEAKER, make_experiment, small_model, task_set

ALONE = {"start": 1.0, "end": 1.0, "fraction": 1.0}
GRU = MultiTaskModelConfig.get_from_yaml(str(conf_path() / "model" / "multitask_gru.yaml"))
# name -> algorithm, model, changes of the experiment
TEAMS = {
    "mkt": (MktConfig(annealing=ALONE), small_model(), {}),
    "mkt-norm": (MktConfig(annealing=ALONE), small_model(layer_norm=True), {}),
    "mkt-deep": (
        MktConfig(annealing=ALONE),
        MlpConfig(num_cells=[7, 9], layer_class=torch.nn.Linear, activation_class=torch.nn.Tanh),
        {},
    ),
    "mappo": (MappoConfig.get_from_yaml(), MlpConfig.get_from_yaml(), {}),
    "unshared": (
        MappoConfig.get_from_yaml(),
        MlpConfig.get_from_yaml(),
        {"share_policy_params": False},
    ),
    "mkt-gru": (MktConfig(annealing=ALONE), GRU, {}),
    "mappo-gru": (MappoConfig.get_from_yaml(), GruConfig.get_from_yaml(), {}),
}
FEED_FORWARD = ("mkt", "mkt-norm", "mkt-deep", "mappo", "unshared")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Trained teams, made when asked for."""
    made = {}

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            algorithm, model, changes = TEAMS[name]
            sets = task_set(PUSH, SPEAKER)
            experiment = make_experiment(folder, sets, algorithm, model, lr=0.1, **changes)
            experiment.run()
            made[name] = export_team(experiment, folder / "team")
        return made[name]

    return get


def inputs(policy, *batch):
    """Random observations, and masks with an available action everywhere."""
    specs = policy.specs
    mask = torch.rand(*batch, specs.n_agents, specs.n_actions) < 0.5
    mask[..., 2] = True
    observation = torch.randn(*batch, specs.n_agents, specs.observation_size)
    return TensorDict({"observation": observation, "action_mask": mask}, batch)


@pytest.mark.parametrize("name", TEAMS)
def test_a_loaded_team_acts_as_in_its_evaluation(name, folders):
    """Step by step through whole episodes, hidden states carried as TorchRL does."""
    agents, team = load_team(folders(name)), load_team(folders(name))
    env = team_task(agents).get_env_fun(3, continuous_actions=False, seed=5, device="cpu")()
    teachers = greedy_policy(agents)
    data = env.reset()
    carried = {task: TensorDict({}, [3]) for task in team}
    for step in range(25):
        data = teachers(data)
        for task, policy in team.items():
            entries = {key: data[task, key] for key in ("observation", "action_mask")}
            if policy.is_recurrent:
                entries["is_init"] = torch.full((3, 1), step == 0)
            acted = policy(carried[task].update(entries))
            assert torch.equal(acted["action"], data[task, "action"]), (task, step)
            carried[task] = acted["next"] if policy.is_recurrent else TensorDict({}, [3])
        data = step_mdp(env.step(data))
    env.close()


@pytest.mark.parametrize("name", ["mkt", "mkt-gru"])
def test_keys_shapes_and_masks(name, folders):
    policy = load_team(folders(name))["simple_speaker_listener"]
    states = list(policy.state_shapes)
    assert policy.in_keys[:2] == ["observation", "action_mask"]
    assert policy.in_keys[2:] == (["is_init", *states] if states else [])
    assert policy.out_keys == ["action_value", "action", *(("next", key) for key in states)]
    for batch in ((), (4,), (2, 3)):
        data = policy(inputs(policy, *batch))
        assert data["action"].shape == (*batch, 2)
        assert data["action_value"].shape == (*batch, 2, 5)
        assert data["action_mask"].gather(-1, data["action"].unsqueeze(-1)).all()
        best = data["action_value"].masked_fill(~data["action_mask"], -torch.inf).argmax(-1)
        assert torch.equal(data["action"], best)
        assert not data["action_value"].requires_grad


def test_is_init_forgets(folders):
    policy = load_team(folders("mkt-gru"))["simple_push"]
    data = inputs(policy, 6)
    fresh = policy(data.clone())["action_value"]
    (key, shape) = next(iter(policy.state_shapes.items()))
    data[key] = torch.randn(6, *shape)
    first = torch.tensor([[True]] * 3 + [[False]] * 3)
    found = policy(data.clone().set("is_init", first))["action_value"]
    torch.testing.assert_close(found[:3], fresh[:3])
    assert not torch.allclose(found[3:], fresh[3:])


def test_wrong_sizes_are_named(folders):
    policy = load_team(folders("mkt"))["simple_push"]
    data = inputs(policy, 4)
    with pytest.raises(ValueError, match=r"^action_mask: missing, .* mpe/simple_push .* 2, 5\]$"):
        policy(data.exclude("action_mask"))
    data["observation"] = data["observation"][..., :-1]
    with pytest.raises(ValueError, match=r"^observation: \[4, 2, 20\], but .* \[\*B, 2, 21\]$"):
        policy(data)


class Elsewhere(torch.nn.Module):
    """A network that says that it is on another device, and notes what it is shown."""

    agent_group, out_key = "team", ("team", "action_value")

    def __init__(self):
        super().__init__()
        self.weight, self.shown = torch.nn.Parameter(torch.empty(1, device="meta")), []

    def forward(self, data):
        self.shown.append(data["team", "observation"].device.type)
        values = torch.tensor([0.0, 2.0, 1.0]).expand(*data.batch_size, 2, 3)
        return TensorDict({"team": TensorDict({"action_value": values}, values.shape[:-1])})


def test_a_team_on_another_device_is_shown_what_is_there():
    specs = {"n_agents": 2, "observation_size": 4, "n_actions": 3}
    network = Elsewhere()
    team = FrozenTeam(network, small_model(), {"specs": specs, "kind": "values"})
    mask = torch.ones(5, 2, 3, dtype=torch.bool)
    actions = team.act(torch.zeros(5, 2, 4), mask, {})["action"]
    assert network.shown == ["meta"]
    assert (actions.device.type, actions.tolist()) == ("cpu", [[1, 1]] * 5)


@pytest.mark.parametrize("name", FEED_FORWARD)
def test_the_plain_network_is_the_network(name, folders):
    for policy in load_team(folders(name)).values():
        data = inputs(policy, 3, 4)
        found = plain_network(policy.model)(data["observation"])
        torch.testing.assert_close(found, policy(data)[policy.out_key], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["mkt-gru", "mappo-gru"])
def test_recurrent_networks_are_refused(name, folders, tmp_path):
    policy = load_team(folders(name))["simple_push"]
    with pytest.raises(ValueError, match=r"^export: a network of Gru cannot .*load_team"):
        export_policy(policy, tmp_path / "policy.onnx")
    assert not list(tmp_path.iterdir())


def run_onnx(path, data):
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    given = {entry.name: data[entry.name].numpy() for entry in session.get_inputs()}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, given), strict=True))


@pytest.mark.parametrize("name", ["mkt-norm", "mkt-deep", "unshared"])
def test_onnx_gives_what_the_module_gives(name, folders, tmp_path):
    pytest.importorskip("onnxscript")
    for task, policy in load_team(folders(name)).items():
        path = export_policy(policy, tmp_path / f"{task}.onnx")
        for batch in (1, 2, 7):
            data = policy(inputs(policy, batch))
            found = run_onnx(path, data)
            assert list(found) == policy.out_keys
            expected = data[policy.out_key].numpy()
            np.testing.assert_allclose(found[policy.out_key], expected, rtol=1e-4, atol=1e-4)
            assert (found["action"] == data["action"].numpy()).all()
    assert {path.suffix for path in tmp_path.iterdir()} == {".onnx"}


def test_the_command(folders, cli, tmp_path):
    pytest.importorskip("onnxscript")
    team = folders("mkt")
    given = (str(team), "simple_push")
    status, out, error = cli("export", *given, "--out=push.onnx")
    assert (status, error) == (0, "")
    assert out == "Policy: push.onnx\n"
    data = load_team(team)["simple_push"](inputs(load_team(team)["simple_push"], 5))
    assert (run_onnx(tmp_path / "push.onnx", data)["action"] == data["action"].numpy()).all()
    for options, message in (
        ((*given, "--out=push.pt"), "out: 'push.pt' must be a file that ends with .onnx"),
        ((given[0], "tag", "--out=p.onnx"), "task: 'tag' is not one of the team's: simple_push"),
        (given, "export: the following arguments are required: --out"),
    ):
        status, _, error = cli("export", *options)
        assert status == 2
        assert message in error
        assert error.count("\n") == 1


def test_without_onnx_there_is_one_line(folders, cli, monkeypatch):
    monkeypatch.setattr("benchmarl_mkt.teams.onnx.find_spec", lambda name: None)
    options = (str(folders("mkt")), "simple_push", "--out=p.onnx")
    status, _, error = cli("export", *options)
    assert status == 2
    assert error == (
        "error: export: onnx and onnxscript not installed; pip install 'benchmarl-mkt[onnx]'\n"
    )


SCRIPT = """
import sys, torch
from tensordict import TensorDict
from benchmarl_mkt.teams import load_team
policy = load_team(sys.argv[1])["simple_push"]
mask = torch.ones(1, 2, 5, dtype=torch.bool)
data = TensorDict({"observation": torch.zeros(1, 2, 21), "action_mask": mask}, [1])
print(policy(data)["action"].tolist())
"""


def test_one_call_is_enough_in_a_fresh_process(folders, tmp_path):
    """Nothing needs to be registered before."""
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folders("mkt"))],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-2000:]
    policy = load_team(folders("mkt"))["simple_push"]
    mask = torch.ones(1, 2, 5, dtype=torch.bool)
    data = TensorDict({"observation": torch.zeros(1, 2, 21), "action_mask": mask}, [1])
    assert found.stdout.strip() == str(policy(data)["action"].tolist())
