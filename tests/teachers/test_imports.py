"""Experts of stock BenchMARL, imported as teachers."""

import contextlib
import io
import itertools
import json
import pickle
import shutil

import pytest
import torch
import yaml
from benchmarl.experiment import Experiment
from torch.nn.functional import pad
from torchrl.envs.utils import ExplorationType, set_exploration_type

from benchmarl_mkt.files import sha256
from benchmarl_mkt.teachers.imports import EPISODES, find_checkpoint, import_run
from benchmarl_mkt.teams import load_teacher, load_team
from benchmarl_mkt.teams.evaluation import greedy_policy, play_on, team_task
from benchmarl_mkt.teams.folder import METADATA
from benchmarl_mkt.teams.onnx import plain_network
from tests.helpers import small_model, task_set, tiny_config
from tests.stock import COPIES, NETWORKS, STEPS, stock_run
from tests.test_no_code_from_files import PAYLOADS, Payload
from tests.toys import DEFAULTS

TAG = "vmas/simple_tag"  # two groups: three adversaries see 16 numbers, one agent sees 14
ALGORITHMS = ("mappo", "ippo", "qmix", "vdn", "iql", "isac", "masac")
VALUES = ("qmix", "vdn", "iql")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Stock runs, made when asked for."""
    made = {}

    def get(algorithm="mappo", model="layers/mlp", shared=True, task=TAG, *more):
        key = (algorithm, model, shared, task, *more)
        if key not in made:
            folder = tmp_path_factory.mktemp(algorithm)
            shares = f"experiment.share_policy_params={str(shared).lower()}"
            steps = "task.max_cycles=6" if task.startswith("mpe") else "task.max_steps=6"
            given = (f"algorithm={algorithm}", f"task={task}", steps, shares, *more)
            made[key] = stock_run(folder, *given, model=model)
        return made[key]

    return get


@pytest.fixture
def copy_of_run(runs, tmp_path):
    """A run's folder to mangle."""
    return shutil.copytree(runs(), tmp_path / "run")


def reloaded(run) -> Experiment:
    """The run as BenchMARL itself reloads it."""
    with contextlib.redirect_stdout(io.StringIO()):
        return Experiment.reload_from_file(str(find_checkpoint(run)))


def played(experiment: Experiment, steps: int):
    """A greedy rollout [B, T] of BenchMARL's own policy in its own environment."""
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        return experiment.test_env.rollout(
            steps, experiment.policy, auto_cast_to_device=True, break_when_any_done=False
        )


def merged(data, groups) -> torch.Tensor:
    """The groups' observations as one team sees them, by hand: padding, then agent ids."""
    seen = [data[group, "observation"] for group in groups]
    longest = max(part.shape[-1] for part in seen)
    rows = torch.cat([pad(part, (0, longest - part.shape[-1])) for part in seen], -2)
    ids = torch.eye(rows.shape[-2]).expand(*rows.shape[:-1], -1)
    return torch.cat([rows, ids], -1)


def every_kind():
    """All algorithms, models and ways to share; half of them in the quick tests."""
    for index, case in enumerate(itertools.product(ALGORITHMS, NETWORKS, (True, False))):
        quick = (index + index // 2) % 2 == 0  # each algorithm's models, shared or not in turn
        yield pytest.param(*case, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("algorithm", "model", "shared"), every_kind())
def test_an_expert_acts_as_benchmarls_own_policy(runs, algorithm, model, shared, tmp_path):
    """On 1,020 observations of a task with two agent groups, in episodes as they come.

    Where the two best lie within rounding, BenchMARL's sampling itself may take the second.
    """
    run = runs(algorithm, model, shared)
    team = load_teacher(import_run(run, tmp_path / "expert"))
    assert team.kind == ("values" if algorithm in VALUES else "logits")
    assert team.is_recurrent == (model != "layers/mlp")
    check_acts_as(team, run)


@pytest.mark.parametrize("model", ["multitask", "multitask_entity"])
def test_an_expert_with_a_network_of_ours_acts_as_before(runs, model, tmp_path):
    """Alone on its task; what the observation is made of goes with it."""
    run = runs("iql", model, True, "mpe/simple_spread", "experiment.lr=0.3")
    team = load_teacher(import_run(run, tmp_path / "expert"))
    check_acts_as(team, run)


def check_acts_as(team, run):
    """Compare a team's actions and outputs with BenchMARL's own policy, reloaded."""
    experiment = reloaded(run)
    data = played(experiment, STEPS)
    assert data.shape == (COPIES, STEPS)
    groups = list(experiment.group_map)
    actions = torch.cat([data[group, "action"] for group in groups], -1)
    outputs = torch.cat([data[group, team.out_key] for group in groups], -2)
    first, second = outputs.topk(2, -1).values.unbind(-1)
    clear = first - second > 1e-6
    assert clear.float().mean() > 0.999
    observation, mask = merged(data, groups), torch.ones(COPIES, 1, 1, dtype=torch.bool)
    states: dict = {}
    for step in range(STEPS):
        if team.is_recurrent:
            states["is_init"] = data["is_init"][:, step]
        out = team.act(observation[:, step], mask, states)
        torch.testing.assert_close(out[team.out_key], outputs[:, step], rtol=1e-5, atol=1e-6)
        assert (out["action"] == actions[:, step])[clear[:, step]].all(), step
        states = {key: out["next", key] for key in team.state_shapes}
    assert len(actions.unique()) > 1


@pytest.mark.parametrize("model", ["layers/gru", "layers/lstm"])
def test_whole_sequences_give_what_single_steps_give(runs, model, tmp_path):
    """A student's batches are sequences, in which episodes begin anywhere."""
    team = load_teacher(import_run(runs("iql", model), tmp_path / "expert"))
    sizes = team.specs.n_agents, team.specs.observation_size
    observation, mask = torch.randn(5, 7, *sizes), torch.ones(5, 4, 9, dtype=torch.bool)
    begins = torch.rand(5, 7, 1) < 0.3
    begins[:, 0] = True
    values, states = team.values(observation, begins), {}
    for step in range(7):
        out = team.act(observation[:, step], mask, {**states, "is_init": begins[:, step]})
        torch.testing.assert_close(out["action_value"], values[:, step])
        states = {key: out["next", key] for key in team.state_shapes}


@pytest.mark.parametrize("algorithm", ["mappo", "iql", "masac"])
def test_masks_and_groups_with_other_actions(algorithm, tmp_path):
    """One group has three actions, the other two; in every step one of an agent's is missing."""
    groups = {"first": [2, 3, 1], "second": [1, 2, 0]}
    content = {**DEFAULTS, "groups": groups, "masked": True, "spread": 3}
    (tmp_path / "conf" / "task" / "toy").mkdir(parents=True)
    (tmp_path / "conf" / "task" / "toy" / "vector.yaml").write_text(yaml.safe_dump(content))
    found = f"hydra.searchpath=[file://{tmp_path / 'conf'}]"
    run = stock_run(tmp_path / "run", f"algorithm={algorithm}", "task=toy/vector", found)
    team = load_teacher(import_run(run, tmp_path / "expert"))
    assert vars(team.specs) == {"n_agents": 3, "observation_size": 7, "n_actions": 3}
    data = played(reloaded(run), STEPS)
    masks = [pad(data[g, "action_mask"], (0, 3 - n)) for g, (_, n, _) in groups.items()]
    actions = torch.cat([data[group, "action"] for group in groups], -1)
    out = team.act(merged(data, groups), torch.cat(masks, -2), {})
    assert torch.equal(out["action"], actions)
    assert len(actions.unique()) == 3


def test_whole_episodes_give_benchmarls_return(runs, tmp_path):
    """From the same initial states, in this package's environment."""
    team = load_team(import_run(runs(), tmp_path / "expert"))
    env = team_task(team).get_env_fun(COPIES, continuous_actions=False, seed=0, device="cpu")()
    returns = play_on(env, greedy_policy(team), COPIES, seed=3).returns["simple_tag"]
    experiment = reloaded(runs())
    experiment.test_env.set_seed(3)
    torch.manual_seed(3)
    data = played(experiment, env.teams["simple_tag"].max_steps)
    assert not data["next", "done"][:, :-1].any()
    own = sum(data["next", group, "reward"].sum((1, 2, 3)) for group in experiment.group_map)
    assert len(own.unique()) > 1
    torch.testing.assert_close(returns, own)


def test_what_is_stored(runs, own_store):
    run = runs("qmix", "layers/mlp", False, "vmas/navigation", "task.n_agents=2", "seed=5")
    path = import_run(run)
    assert path.parent == own_store
    assert path.name.startswith("vmas-navigation-qmix-")
    data, checkpoint = json.loads((path / METADATA).read_text()), find_checkpoint(run)
    assert data["expert"]["sha256"] == sha256(checkpoint)
    assert data["expert"]["source"] == str(checkpoint)
    assert data["expert"]["groups"] == [
        {"name": "agents", "n_agents": 2, "observation_size": 18, "n_actions": 9}
    ]
    assert (data["algorithm"], data["seed"], data["frames"]) == ("qmix", 5, 100)
    assert data["task"]["tasks"][0]["config"] == {"max_steps": 6, "n_agents": 2}
    assert data["specs"] == {"n_agents": 2, "observation_size": 20, "n_actions": 9}
    assert data["score"]["episodes"] == data["random"]["episodes"] == EPISODES
    assert data["temperature"] not in (0, 1)
    before = (path / METADATA).stat().st_mtime_ns
    assert import_run(shutil.copytree(run, run.with_name("copy"))) == path  # it is the same
    assert (path / METADATA).stat().st_mtime_ns == before


def test_the_last_checkpoint_is_taken_or_the_one_that_is_named(copy_of_run, tmp_path):
    last = find_checkpoint(copy_of_run)
    (earlier,) = (shutil.copy(last, last.with_name(f"checkpoint_{n}.pt")) for n in (99,))
    assert last.name == "checkpoint_100.pt"
    assert find_checkpoint(copy_of_run) == last
    assert find_checkpoint(last.parent) == last
    data = load_teacher(import_run(earlier, tmp_path / "expert")).metadata
    assert data["expert"]["source"] == str(earlier)
    shutil.copytree(last.parents[1], copy_of_run / "second")
    with pytest.raises(ValueError, match=r"^import: .* has 2 runs; name one"):
        find_checkpoint(copy_of_run)


def test_a_plain_network_of_groups(runs, tmp_path):
    for shared in (True, False):
        team = load_teacher(import_run(runs("vdn", "layers/mlp", shared), tmp_path / str(shared)))
        rows = torch.randn(3, 4, team.specs.n_agents, team.specs.observation_size)
        torch.testing.assert_close(plain_network(team.model)(rows), team.values(rows))


def test_an_expert_teaches(runs, tmp_path):
    from benchmarl_mkt.algorithms import MktConfig

    tag = import_run(runs("iql", "layers/gru"))
    walk = import_run(runs("ippo", "layers/mlp", False, "vmas/navigation"))
    folders = {"simple_tag": str(tag), "navigation": str(walk)}
    experiment = Experiment(
        task=task_set(TAG, "vmas/navigation"),
        algorithm_config=MktConfig(teachers=folders, mixer="vdn"),
        model_config=small_model(),
        seed=0,
        config=tiny_config(tmp_path, evaluation=False),
    )
    assert experiment.algorithm.teachers["simple_tag"].metadata["algorithm"] == "iql"
    experiment.run()


def test_an_expert_of_another_task_is_refused(runs):
    path = import_run(runs())
    with pytest.raises(ValueError, match="was trained on vmas/simple_tag, but the task is"):
        load_teacher(path, task="vmas/simple_push")


def test_the_commands(runs, cli, tmp_path):
    run = runs()
    status, out, error = cli("teachers", "import", str(run))
    assert (status, error) == (0, "")
    (path,) = (tmp_path / "store").iterdir()
    assert f"Expert: {path}\n" in out
    assert f"'algorithm.teachers={{simple_tag: {path}}}'" in out
    entry = "{task: vmas/simple_tag, config: {max_steps: 6}}"
    assert f"'task.tasks=[{entry}]'" in out
    status, out, _ = cli("teachers", "show", path.name)
    assert status == 0
    assert "100 episodes" in out
    assert "3 of adversary, 1 of agent" in out.replace("\n", " ")
    assert cli("teachers", "list")[1].count("mappo") == 2
    assert "1 intact, 0 damaged" in cli("teachers", "verify")[1]
    status, out, _ = cli("evaluate", str(path), "--episodes=3")
    assert status == 0
    assert "simple_tag" in out
    status, out, error = cli("teachers", "import", str(run), "--out=expert", "task=vmas/balance")
    assert (status, out) == (2, "")
    assert "was trained on vmas/simple_tag, not vmas/balance" in error


def test_a_run_without_hydras_record_is_described_by_overrides(copy_of_run, cli, tmp_path):
    shutil.rmtree(copy_of_run / ".hydra")
    what = ["algorithm=mappo", "task=vmas/simple_tag", "task.max_steps=6"]
    what.append("experiment.prefer_continuous_actions=false")
    status, _, error = cli("teachers", "import", str(copy_of_run))
    assert status == 2
    assert "say what was run: algorithm=" in error
    status, _, error = cli("teachers", "import", str(copy_of_run), *what)
    assert status == 2
    assert "[16, 16], but mlp for vmas/simple_tag has [256, 16]" in error
    assert not (tmp_path / "store").exists()
    given = (*what, "model.num_cells=[16]")
    status, _, error = cli("teachers", "import", str(copy_of_run), *given)
    assert (status, error) == (0, "")
    status, _, error = cli("teachers", "import", str(copy_of_run), *what, "model.cells=[16]")
    assert status == 2
    assert error.startswith("error: model.cells")


# ---- what is refused ----


def refusal(source, store) -> str:
    with pytest.raises(ValueError, match=r"^(import|task|tasks|model)[.\w]*: ") as error:
        import_run(source)
    assert "\n" not in str(error.value)
    assert not store.exists()
    return str(error.value)


def edit(path, **changes):
    """Change a YAML file: dotted keys, with __ for the dot, to values."""
    content = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        *parents, last = key.split("__")
        place = content
        for parent in parents:
            place = place[parent]
        place[last] = value
    path.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model__num_cells": [7]}, "[16, 16], but mlp for vmas/simple_tag has [7, 16]"),
        ({"experiment__share_policy_params": False}, "[16, 16], but mlp for"),
        ({"experiment__share_policy_params": "perhaps"}, "experiment.share_policy_params"),
        ({"experiment__prefer_continuous_actions": True}, "actions are continuous"),
        ({"model__name": "cnn"}, "model is cnn; one of mlp, gru, lstm"),
        ({"model": {"layers": {}}}, "model is a sequence"),
        ({"model__width": 3}, "width"),
        ({"model__num_cells": ["many"]}, "model"),
        ({"model__num_cells": [10**6, 10**6]}, "1000000 does not fit the weights"),
        ({"model__activation_class": "os.system"}, "'os.system' must be a class of torch.nn"),
        ({"task__num_good_agents": 2}, "but mlp for vmas/simple_tag has"),
        ({"task__unheard_of": 2}, "unheard_of"),
        ({"task": None}, "no section task"),
        ({"task__max_steps": "${oc.env:HOME}"}, "interpolations"),
    ],
)
def test_a_configuration_that_does_not_fit(copy_of_run, own_store, changes, reason):
    edit(copy_of_run / ".hydra" / "config.yaml", **changes)
    assert reason in refusal(copy_of_run, own_store)


@pytest.mark.parametrize(
    ("choice", "value", "reason"),
    [
        ("task", "vmas/balance", "['adversary', 'agent'], the task has ['agents']"),
        ("task", "own/game", "'own/game' is not registered"),
        ("task", "multitask/mpe", "of a task set"),
        ("algorithm", "maddpg", "actions are continuous"),
        ("algorithm", "sarsa", "'sarsa' is not one of"),
    ],
)
def test_choices_that_do_not_fit(copy_of_run, own_store, choice, value, reason):
    edit(copy_of_run / ".hydra" / "hydra.yaml", **{f"hydra__runtime__choices__{choice}": value})
    if value == "vmas/balance":
        edit(copy_of_run / ".hydra" / "config.yaml", task={})
    assert reason in refusal(copy_of_run, own_store)


def test_a_folder_without_weights_or_configuration(copy_of_run, own_store, tmp_path):
    assert "no weights in" in refusal(tmp_path / "nowhere", own_store)
    (copy_of_run / ".hydra" / "hydra.yaml").unlink()
    assert "hydra.yaml" in refusal(copy_of_run, own_store)
    find_checkpoint(copy_of_run).unlink()
    assert "experiment.checkpoint_at_end=true" in refusal(copy_of_run, own_store)


def test_weights_that_are_no_policy(copy_of_run, own_store):
    path = find_checkpoint(copy_of_run)
    content = torch.load(path, weights_only=True)
    name = "actor_network_params.module.0.mlp.params.0.weight"
    content["loss_agent"][name][0, 0] = torch.nan
    torch.save(content, path)
    assert "not finite" in refusal(copy_of_run, own_store)
    del content["loss_agent"][name]
    torch.save(content, path)
    assert "missing, but mlp for" in refusal(copy_of_run, own_store)
    content["loss_agent"] = {}
    torch.save(content, path)
    assert "import: weights models.1." in refusal(copy_of_run, own_store)
    torch.save([1, 2], path)
    assert "is no checkpoint of BenchMARL's" in refusal(copy_of_run, own_store)


@pytest.fixture
def mark(tmp_path):
    """Where planted files would leave a mark."""
    path = tmp_path / "mark"
    yield path
    assert not path.exists(), "code from a file was run"


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("file", ["checkpoint", "config.yaml", "hydra.yaml"])
def test_nothing_in_a_run_is_executed(copy_of_run, own_store, mark, payload, file):
    hydra = copy_of_run / ".hydra" / file
    path = find_checkpoint(copy_of_run) if file == "checkpoint" else hydra
    path.write_bytes(payload(mark))
    with pytest.raises(ValueError, match=r".") as error:
        import_run(copy_of_run)
    assert "\n" not in str(error.value)
    assert not own_store.exists()


def test_benchmarls_pickle_is_never_read(copy_of_run, mark):
    (path,) = copy_of_run.glob("*/config.pkl")
    path.write_bytes(pickle.dumps(Payload(mark)))
    import_run(copy_of_run)


def test_a_payload_among_right_weights_is_not_run(copy_of_run, own_store, mark):
    path = find_checkpoint(copy_of_run)
    content = torch.load(path, weights_only=True)
    torch.save({**content, "more": Payload(mark)}, path)
    assert "nothing of it was run" in refusal(copy_of_run, own_store)
