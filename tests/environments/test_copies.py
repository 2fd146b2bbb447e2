"""Tasks that are not vectorised: BenchMARL's PettingZoo classes, in a set."""

from pathlib import Path

import pytest
import torch
from benchmarl.algorithms import IqlConfig, MappoConfig, QmixConfig, VdnConfig
from benchmarl.environments import task_config_registry
from benchmarl.models import MlpConfig

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.teams.evaluation import play, random_policy, stage
from benchmarl_mkt.training.summary import begin_summary, summarise
from tests.docs.test_examples import example
from tests.games import FINISH, Line, line, register_games
from tests.helpers import PUSH, hydra_overrides, make_experiment, task_set

ALONE = MktConfig(annealing={"start": 1.0, "end": 1.0, "fraction": 1.0}, mixer="vdn")
STOCK = [kind.get_from_yaml() for kind in (IqlConfig, QmixConfig, VdnConfig, MappoConfig)]


@pytest.fixture(autouse=True)
def games():
    register_games()
    Line.forget()


def make_env(*entries, copies=3, seed=0, **config):
    return task_set(*entries, **config).get_env_fun(copies, False, seed, "cpu")()


@pytest.mark.parametrize(
    ("observation", "size"), [("vector", 2), ("scalar", 3), ("dict", 4), ("image", 88 * 88 * 3)]
)
def test_sizes_are_those_of_one_copy(observation, size):
    env = make_env(line(observation=observation), copies=4)
    team = env.teams["line"]
    assert (team.n_agents, team.n_actions) == (3, 3)
    assert team.observation_size == size + 3
    assert team.state_size == 3 * size
    assert team.agents == ["runner_0", "runner_1", "runner_2"]
    assert env.reset()["line", "observation"].shape == (4, 3, size + 3)
    env.close()


def test_numbers_without_a_dimension_stand_beside_the_others():
    env = make_env(line(observation="scalar"))
    observation = env.reset()["line", "observation"]
    far, place, time = observation[..., :3].unbind(-1)
    assert torch.equal(far, FINISH - place)
    assert (time == 0).all()
    env.close()


@pytest.mark.parametrize("observation", ["vector", "scalar", "dict"])
def test_returns_are_the_games_sums_and_agents_leave_one_by_one(observation):
    """The reward of a step is that of the agents who were in the game; all stop at the limit."""
    env = make_env(line(observation=observation), copies=5, seed=3)
    offset = 0 if observation == "vector" else env.teams["line"].state_length - 2
    data = env.reset()
    places = data["line", "observation"][..., offset].clone()
    running, left = torch.ones_like(places, dtype=torch.bool), False
    generator = torch.Generator().manual_seed(0)
    for time in range(1, 7):
        action = torch.randint(1, 3, places.shape, generator=generator)
        data = env.step(data.set(("line", "action"), action.clone()))["next"]
        places = torch.where(running, (places + action - 1).clamp(0, FINISH), places)
        earned = ((places - FINISH) * running).sum(1)
        assert data["line", "reward"][:, 0, 0].tolist() == earned.tolist()
        running &= places < FINISH
        left |= bool((running.any(1) & ~running.all(1)).any())
        over = ~running.any(1) | torch.tensor(time == 6)
        assert data["done"].flatten().tolist() == over.tolist()
    assert left, "no agent has left before the others"
    env.close()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"actions": "several"}, r"^tasks: 'line' has actions of MultiCategorical .* in group"),
        ({"actions": "alike"}, r"^tasks: 'line' has actions of Categorical \[3, 2\] in group"),
        ({"observation": "mixed"}, r"^tasks: 'line' .*group.* different sizes"),
        ({"agents": 0}, r"^tasks: 'line' cannot be set up \("),
    ],
)
def test_what_cannot_be_a_team_is_refused_in_one_line(config, message):
    with pytest.raises(ValueError, match=message) as found:
        make_env(line(**config))
    assert "\n" not in str(found.value)
    assert Line.made <= 1


@pytest.mark.parametrize("algorithm", [ALONE, *STOCK], ids=lambda c: type(c).__name__)
def test_no_more_games_are_alive_than_training_and_evaluation_have(algorithm, tmp_path):
    """Neither while it is set up, nor in its final scores, of more episodes than copies."""
    task = task_set(line(), PUSH, final_episodes=7)
    model = None if algorithm is ALONE else MlpConfig.get_from_yaml()
    experiment = make_experiment(tmp_path, task, algorithm, model)
    summary = begin_summary(experiment, set="s", method="m", overrides=[])
    experiment.run()
    config = experiment.config
    training, evaluation = (
        config.n_envs_per_worker(experiment.on_policy),
        config.evaluation_episodes,
    )
    assert Line.most == training + evaluation
    assert not Line.alive
    row = summarise(experiment, summary)["tasks"]["line"]
    assert -3 * FINISH * 6 < row["student"]["mean"] < 0
    assert Line.most == training + evaluation
    assert Line.made == training + evaluation + max(training, evaluation)
    assert not Line.alive


@pytest.mark.parametrize("algorithm", ["mkt", "qmix"])
def test_a_run_on_the_command_line_has_no_more_games_than_it_plays(algorithm, cli, tmp_path):
    """It is set up once, and that opens none."""
    alone = ["algorithm.annealing={start:1,end:1,fraction:1}", "algorithm.mixer=vdn"]
    status, _, error = cli(
        "run", f"algorithm={algorithm}", *(alone if algorithm == "mkt" else []),
        "task=multitask/custom", "task.tasks=[games/line]", "task.final_episodes=4",
        *hydra_overrides(tmp_path),
    )  # fmt: skip
    assert status == 0, error
    assert Line.most == 4  # two in training, two in evaluation
    assert not Line.alive


def test_episodes_are_played_in_parts_and_the_same_for_every_policy():
    task = task_set(line(limit=3), PUSH)
    policy = random_policy(["line", "simple_push"])
    with stage(task, 4) as env:
        assert Line.most == 4
    first = play(task, policy, 10, seed=5, copies=4)
    assert {name: len(values) for name, values in first.returns.items()} == {
        "line": 10,
        "simple_push": 10,
    }
    again = play(task, policy, 10, seed=5, copies=4)
    other = play(task, policy, 10, seed=6, copies=4)
    for name, values in first.returns.items():
        assert torch.equal(values, again.returns[name])
        assert not torch.equal(values, other.returns[name])
        assert len(set(values.tolist())) > 5  # the parts differ
    assert Line.most == 4
    assert env.is_closed


@pytest.mark.parametrize("seed", [None, 0])
def test_an_environment_that_was_only_made_leaves_no_game(seed):
    make_env(line(), seed=seed).close()
    assert Line.made > 0
    assert not Line.alive


def test_all_games_are_closed_though_one_has_lost_a_process():
    env = make_env(line("a"), line("b"), copies=2, parallel_collection=True)
    env.reset()
    processes = [p for team in env.teams.values() for p in team.env._workers]
    folders = [Path(f"/proc/{process.pid}") for process in processes]
    assert len(folders) == 4
    processes[0].kill()
    processes[0].join()
    with pytest.raises(RuntimeError):
        env.close()
    assert not any(folder.exists() for folder in folders[2:])
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("copies", [1, 3])
def test_copies_in_processes_give_the_same_numbers(copies):
    rollouts, states = [], []
    for parallel in (False, True):
        env = make_env(line(), PUSH, copies=copies, parallel_collection=parallel)
        torch.manual_seed(1)
        rollouts.append(env.rollout(15, break_when_any_done=False))
        before = torch.get_rng_state()
        env.set_seed(7)
        state = torch.get_rng_state()
        rollouts.append(env.rollout(9, break_when_any_done=False))
        env.close()
        assert torch.get_num_threads() == 1
        states.append((before, state))
    for serial, parallel in zip(rollouts[:2], rollouts[2:]):
        assert (serial == parallel).all()
    for serial, parallel in zip(*states):  # the caller's random state is the same, too
        assert torch.equal(serial, parallel)
    assert Line.made == 2 * copies - (copies - 1)  # the processes count for themselves


def test_a_training_in_processes_is_the_one_without(tmp_path):
    weights = []
    for parallel in (False, True):
        folder = tmp_path / str(parallel)
        folder.mkdir()
        task = task_set(line(counter=True), parallel_collection=parallel)
        experiment = make_experiment(folder, task, ALONE, parallel_collection=parallel)
        experiment.run()
        weights.append(experiment.policy.state_dict())
    assert all(torch.equal(weights[1][key], value) for key, value in weights[0].items())


def test_processes_that_a_set_made_in_python_would_not_have_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^experiment.parallel_collection: .*line in processes"):
        make_experiment(tmp_path, task_set(line()), ALONE, parallel_collection=True)
    make_experiment(tmp_path, task_set(PUSH), ALONE, parallel_collection=True).close()


@pytest.mark.parametrize("parallel", [False, True])
def test_transforms_that_keep_a_state_go_on(parallel):
    env = make_env(line(counter=True), copies=2, parallel_collection=parallel)
    team = env.teams["line"]
    team.reset()
    for time in range(1, 4):
        team.step(torch.ones(2, 3, dtype=torch.long), torch.ones(2, dtype=torch.bool))
        assert team._current["step_count"].flatten().tolist() == [time] * 2
    team.step(torch.ones(2, 3, dtype=torch.long), torch.tensor([True, False]))
    assert team._current["step_count"][0].item() == 4
    team.reset(torch.tensor([False, True]))
    assert team._current["step_count"].flatten().tolist() == [4, 0]
    env.close()


# ---- games of others ----


def magent():
    pytest.importorskip("magent2")
    small = {"map_size": 12, "max_cycles": 15}
    return {"task": "magent/adversarial_pursuit", "name": "theirs", "config": small}


def butterfly():
    pytest.importorskip("pymunk", reason="needs pettingzoo[butterfly]")
    example("pettingzoo_game")
    short = {"max_cycles": 40}
    return {"task": "butterfly/knights_archers_zombies", "name": "theirs", "config": short}


@pytest.mark.parametrize("entry", [magent, butterfly], ids=lambda entry: entry.__name__)
def test_returns_are_the_sums_of_what_others_games_pay(entry, monkeypatch):
    """To every agent, in the order of the steps; each of their games is listened to."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = make_env(entry(), line(), PUSH, copies=2)
    paid = [0.0, 0.0]
    for index, copy in enumerate(env.teams["theirs"].env._envs):
        game = copy._env

        def step(actions, play=game.step, index=index):
            out = play(actions)
            paid[index] += sum(out[1].values())
            return out

        monkeypatch.setattr(game, "step", step)
    torch.manual_seed(0)
    data, earned = env.reset(), torch.zeros(2)
    while not data["done"].all():
        data = env.step(env.rand_action(data))["next"]
        earned += data["theirs", "reward"][:, 0, 0]
    assert earned.tolist() == pytest.approx(paid, abs=1e-4)
    env.close()


@pytest.mark.parametrize("algorithm", [ALONE, *STOCK], ids=lambda c: type(c).__name__)
def test_a_set_of_an_own_game_mpe_and_magents_trains(algorithm, tmp_path):
    task = task_set(magent(), line(), PUSH, final_episodes=2)
    model = None if algorithm is ALONE else MlpConfig.get_from_yaml()
    experiment = make_experiment(tmp_path, task, algorithm, model, evaluation=False)
    before = [parameter.clone() for parameter in experiment.policy.parameters()]
    experiment.run()
    after = list(experiment.policy.parameters())
    assert any(not torch.equal(now, then) for now, then in zip(after, before, strict=True))
    assert experiment.total_frames == 100


# ---- memory ----


@pytest.mark.parametrize("algorithm", [ALONE, *STOCK], ids=lambda c: type(c).__name__)
def test_no_state_is_stored_that_nobody_reads(algorithm, tmp_path):
    model = None if algorithm is ALONE else MlpConfig.get_from_yaml()
    task = task_set(line(), {"task": "smax/3m", "config": {"max_steps": 3}}, reward="mean")
    pytest.importorskip("jaxmarl")
    experiment = make_experiment(tmp_path, task, algorithm, model, evaluation=False)
    experiment.run()
    for buffer in experiment.replay_buffers.values():
        stores = buffer.buffers.values() if algorithm is ALONE else [buffer]
        for store in stores:
            keys = store.storage.get(0).keys(True, True)
            assert not [key for key in keys if "state" in key]


def test_a_memory_that_does_not_fit_is_refused_before_training(tmp_path):
    task = task_set(line(observation="image"))
    frames = {"off_policy_memory_size": 1_000_000, "max_n_frames": 10_000_000}
    with pytest.raises(
        ValueError, match=r"^experiment.off_policy_memory_size: 1,000,000 frames .* GiB; set it to"
    ) as found:
        make_experiment(tmp_path, task, ALONE, **frames)
    # A short run does not fill it.
    make_experiment(tmp_path, task, ALONE, off_policy_memory_size=1_000_000).close()
    fits = int(str(found.value).split("set it to ")[1].split()[0])
    make_experiment(tmp_path, task, ALONE, **frames | {"off_policy_memory_size": fits}).close()


def test_the_bytes_foretold_are_those_stored(tmp_path):
    experiment = make_experiment(tmp_path, task_set(line(), PUSH), ALONE, evaluation=False)
    experiment.run()
    algorithm, (buffer,) = experiment.algorithm, experiment.replay_buffers.values()
    one = sum(store.storage.get(0).bytes() for store in buffer.buffers.values())
    config = experiment.config
    length = config.collected_frames_per_batch(False) // config.n_envs_per_worker(False)
    assert algorithm._segment_bytes(length) == one


# ---- time limits ----


def test_vmas_time_limit_is_a_truncation():
    """VMAS itself calls it a termination, after which nothing would bootstrap."""
    entry = {"task": "vmas/balance", "config": {"max_steps": 4}}
    env = make_env(entry, copies=2)
    assert env.max_steps == 4
    data = env.rollout(4)
    ended = data["next", "balance"]
    assert ended["truncated"][:, -1].all()
    assert not ended["terminated"].any()
    assert not ended["done"][:, :-1].any()
    task = task_config_registry["vmas/balance"].get_from_yaml()
    assert task.config["max_steps"] != 4  # nobody's configuration has changed
    env.close()
