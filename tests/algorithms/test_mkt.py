import csv
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml
from benchmarl.algorithms import MappoConfig, QmixConfig
from benchmarl.benchmark import Benchmark
from benchmarl.experiment import Experiment
from benchmarl.experiment.callback import Callback
from tensordict import TensorDict

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.algorithms.callback import StudentCallback
from benchmarl_mkt.environments import MpeTask, MultiTaskClass
from benchmarl_mkt.files import conf_path
from benchmarl_mkt.objectives import AnnealingSchedule, policy_entropy
from benchmarl_mkt.presets import experiment_preset
from tests.helpers import PUSH, accounts_of, make_experiment, small_model, task_set, tiny_config
from tests.toys import ToyEnv, toy, toy_reward

ALONE = {"start": 1.0, "end": 1.0, "fraction": 1.0}  # TD alone: no teachers
HALF = {"start": 0.5, "end": 0.5, "fraction": 1.0}
ONE = toy("one", groups={"agents": [2, 3, 0]}, length=2, spread=4, masked=True)
TWO = toy("two", groups={"agents": [2, 4, 3]}, length=5, terminal=False)


def run(folder: Path, *tasks, seed: int = 0, algorithm=None, model=None, **changes) -> Experiment:
    algorithm = MktConfig(annealing=ALONE) if algorithm is None else algorithm
    experiment = make_experiment(
        folder, task_set(*(tasks or (ONE, TWO))), algorithm, model, seed, **changes
    )
    experiment.run()
    return experiment


def weights(experiment: Experiment) -> dict[str, torch.Tensor]:
    return dict(experiment.losses["student"].network_params.data.flatten_keys(".").items())


def equal(first: dict, second: dict) -> bool:
    assert set(first) == set(second)
    return all(torch.equal(first[name], second[name]) for name in first)


def student_callback(experiment: Experiment) -> StudentCallback:
    return next(c for c in experiment.callbacks if isinstance(c, StudentCallback))


# ---- values against the largest possible return ----


@pytest.mark.parametrize(("limit", "reward", "expected"), [(1e-3, "sum", 2e-3), (1e9, "mean", 1e9)])
def test_values_above_any_possible_return_are_warned_of_once(
    limit, reward, expected, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(ToyEnv, "max_return", limit, raising=False)
    raw = MktConfig(annealing=ALONE, standardise_rewards=False)
    task = MultiTaskClass("toys", {"tasks": [ONE], "reward": reward})
    experiment = make_experiment(tmp_path, task, raw, small_model(), lr=0.05, max_n_frames=300)
    assert experiment.algorithm.largest_values == {"one": expected}
    experiment.run()
    warnings = [r.getMessage() for r in caplog.records if "values diverge" in r.getMessage()]
    assert len(warnings) == (1 if limit < 1 else 0)
    standardised = make_experiment(tmp_path, task, MktConfig(annealing=ALONE))
    assert standardised.algorithm.largest_values == {}


# ---- configuration ----


def test_configuration_equals_its_yaml_and_its_defaults():
    assert MktConfig.get_from_yaml() == MktConfig()
    content = yaml.safe_load((conf_path() / "algorithm" / "mkt.yaml").read_text())
    written, default = content["algorithm"], asdict(MktConfig())
    for old in ("experiment", "model", "algorithm", "seed", "store"):
        assert default.pop(f"teacher_{old}") is None
    presets = {"experiment": "mkt_quick", "model": "multitask"}  # from the defaults list
    assert {**written, "teachers": {}, "teacher": {**written["teacher"], **presets}} == default


def test_the_papers_configuration_differs_where_we_chose_otherwise():
    paper = MktConfig.get_from_yaml(str(conf_path() / "algorithm" / "mkt_paper.yaml"))
    changed = {k for k, v in asdict(paper).items() if v != asdict(MktConfig())[k]}
    assert changed == {"temperature", "lmbda", "teacher"}
    settings = paper.teacher_settings
    assert paper.lmbda == settings.algorithm.lmbda == 0
    assert settings.experiment.lr == experiment_preset("mkt_paper").lr
    assert paper.temperature == 1.0
    assert AnnealingSchedule(**paper.annealing) == AnnealingSchedule()


def test_teachers_are_trained_by_td_alone():
    config = MktConfig(mixer="vdn", temperature=2.0).teacher_settings.algorithm
    assert not config.uses_teacher
    assert config == MktConfig(annealing=ALONE)
    independent = {"mixer": "none", "hysteresis": 0.4}
    own = MktConfig(mixer="vdn", teacher={"algorithm": independent}).teacher_settings.algorithm
    assert own == MktConfig(annealing=ALONE, **independent)
    mappo = MktConfig(
        teacher={"algorithm": {"name": "mappo", "lmbda": 0.5}}
    ).teacher_settings.algorithm
    assert mappo == replace(MappoConfig.get_from_yaml(), lmbda=0.5)


def taught(algorithm) -> dict:
    return {"teacher": {"algorithm": algorithm}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixer": "sum"}, r"^algorithm\.mixer: 'sum'"),
        ({"hysteresis": 1.5}, r"^algorithm\.hysteresis: 1\.5 must lie in \(0, 1\]"),
        (
            {"teacher": {"algorithm": {"update": "joint"}}},
            r"^algorithm\.teacher\.algorithm: .*'update'",
        ),
        (taught({"mixer": "sum"}), r"^algorithm\.mixer: 'sum'"),
        (
            {"teacher": {"algorithm": "mappo"}},
            r"^algorithm\.teacher\.algorithm: 'mappo' must be null or",
        ),
        (
            {"teacher": {"algorithm": {"name": "coma"}}},
            r"teacher\.algorithm\.name: 'coma' must be mkt",
        ),
        (taught({"name": "maddpg"}), r"'maddpg' must be mkt or one of \['i"),
        (
            {"teacher": {"algorithm": {"name": "vdn", "mixer": "vdn"}}},
            r"'mixer'\]; vdn has \['delay",
        ),
        ({"lmbda": 1.5}, r"^algorithm\.lmbda: 1\.5 must lie in \[0, 1\]"),
        ({"lmbda": "much"}, r"^algorithm\.lmbda: 'much' must lie"),
        ({"update": "random"}, r"^algorithm\.update: 'random'"),
        ({"temperature": 0}, r"^algorithm\.temperature: 0"),
        ({"temperature": -1.0}, r"^algorithm\.temperature: -1"),
        ({"temperature": "hot"}, r"^algorithm\.temperature: 'hot'"),
        ({"temperature": float("nan")}, r"^algorithm\.temperature: nan"),
        ({"annealing": {"start": -0.1}}, r"annealing\.start: -0\.1 must lie in \[0, 1\]"),
        ({"annealing": {"end": 1.5}}, r"annealing\.end: 1\.5 must lie in \[0, 1\]"),
        ({"annealing": {"fraction": 0}}, r"annealing\.fraction: 0"),
        ({"annealing": {"begin": 0.1}}, r"^algorithm\.annealing: .*start, end, fraction"),
        ({"mixing_embed_dim": 0}, r"^algorithm\.mixing_embed_dim: 0"),
    ],
)
def test_wrong_values_are_refused_by_their_key(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        MktConfig(**changes)
    assert "\n" not in str(error.value)


def test_a_bare_task_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"needs a task set.*task\.tasks=\[mpe/simple_push\]"):
        make_experiment(tmp_path, MpeTask.SIMPLE_PUSH.get_from_yaml(), MktConfig(annealing=ALONE))


def test_qmix_needs_teams_of_one_size_and_vdn_does_not(tmp_path):
    tasks = ("vmas/balance", PUSH)
    with pytest.raises(ValueError, match=r"algorithm\.mixer: qmix.*'balance': 4.*mixer=vdn"):
        make_experiment(tmp_path, task_set(*tasks), MktConfig(annealing=ALONE))
    vdn = MktConfig(annealing=ALONE, mixer="vdn")
    experiment = run(tmp_path, *tasks, algorithm=vdn, evaluation=False, max_n_frames=50)
    assert experiment.n_iters_performed == 1


@pytest.mark.parametrize(
    "setting",
    [
        {"share_policy_params": False},
        {"collect_with_grad": True},
        {"off_policy_use_prioritized_replay_buffer": True},
        {"buffer_device": "disk"},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_settings_that_would_be_ignored_are_refused(setting, tmp_path):
    with pytest.raises(ValueError, match=rf"experiment\.{next(iter(setting))}: ") as error:
        make_experiment(tmp_path, task_set(ONE, TWO), MktConfig(annealing=ALONE), **setting)
    assert "\n" not in str(error.value)


def test_random_frames_of_the_collector_respect_the_masks(tmp_path):
    """The toy raises at an illegal action; what lies in the buffer is what was played."""
    experiment = run(tmp_path, ONE, off_policy_init_random_frames=100)
    sample = experiment.replay_buffers["student"].sample_tasks(["one"])["one"]
    mask, action = sample["action_mask"][:, :-1], sample["action"]
    assert mask.gather(-1, action.unsqueeze(-1)).all()


# ---- wiring ----


def test_the_stock_loop_sees_one_student(tmp_path):
    experiment = make_experiment(tmp_path, task_set(ONE, TWO), MktConfig(annealing=ALONE))
    for attribute in (
        "group_map", "train_group_map", "replay_buffers", "losses", "target_updaters",
        "optimizers", "group_policies",
    ):  # fmt: skip
        assert list(getattr(experiment, attribute)) == ["student"], attribute
    (group,) = experiment.optimizers["student"]["loss"].param_groups
    parameters = list(experiment.losses["student"].network_params.values(True, True))
    assert set(map(id, group["params"])) == set(map(id, parameters))
    assert experiment.collector.policy is not None
    experiment.close()


@pytest.mark.parametrize(("update", "steps"), [("sequential", 4), ("joint", 2)])
def test_every_task_gets_the_configured_updates(update, steps, tmp_path):
    seen = []

    experiment = make_experiment(
        tmp_path, task_set(ONE, TWO), MktConfig(annealing=ALONE, update=update)
    )
    loss = experiment.losses["student"]
    loss.register_forward_hook(lambda *_: seen.append(sorted(loss.last_terms)))
    experiment.run()
    if update == "joint":
        assert seen == [["one", "two"]] * 2 * steps
    else:
        assert seen == [["one"], ["two"]] * steps


def test_segments_follow_the_configured_frames(tmp_path):
    """50 frames of 2 copies are 2 segments of 25 steps; 100 frames make a minibatch of 4."""
    experiment = run(tmp_path)
    buffer = experiment.replay_buffers["student"]
    assert len(buffer) == 4
    sample = buffer.sample_tasks(["one"])["one"]
    assert sample["observation"].shape == (4, 26, 2, 5)
    assert sample["action"].shape == (4, 25, 2)


@pytest.mark.parametrize("update", ["sequential", "joint"])
def test_a_soft_target_moves_as_much_in_a_turn_as_in_one_update_of_one_task(update, tmp_path):
    """Two tasks: what is left of the old target after each task's update is 1 - tau = 0.81."""
    algorithm = MktConfig(annealing=ALONE, update=update)
    task = task_set(ONE, TWO)
    settings = {"soft_target_update": True, "polyak_tau": 0.19}
    experiment = make_experiment(tmp_path, task, algorithm, evaluation=False, **settings)
    loss, updater = experiment.losses["student"], experiment.target_updaters["student"]
    for target in loss.target_network_params.values(True, True):
        target.data.zero_()
    for online in loss.network_params.values(True, True):
        online.data.fill_(1.0)
    for _ in range(experiment.algorithm.updates_per_turn):
        updater.step()
    for target in loss.target_network_params.values(True, True):
        assert torch.allclose(target, torch.full_like(target, 0.19))


def test_the_hard_target_follows_after_the_configured_updates_of_each_task(tmp_path):
    """Interval 3 of each of 2 tasks: TorchRL lets 6 steps pass and copies in the next one."""
    experiment = make_experiment(tmp_path, task_set(ONE, TWO), MktConfig(annealing=ALONE))
    loss, same = experiment.losses["student"], []
    original = experiment.target_updaters["student"].step

    def step():
        original()
        same.append(bool((loss.network_params.data == loss.target_network_params.data).all()))

    experiment.target_updaters["student"].step = step
    experiment.run()  # 2 iterations of 2 updates of 2 tasks
    assert same == [step == 7 for step in range(1, 9)]


class Alphas(Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_end(self, training_td, group):
        self.seen.append(self.experiment.losses["student"].alpha.item())


def test_alpha_follows_the_schedule(teachers, tmp_path):
    schedule = {"start": 0.2, "end": 0.8, "fraction": 0.5}
    watch = Alphas()
    experiment = Experiment(
        task=teachers.task,
        algorithm_config=teachers.config(annealing=schedule),
        model_config=small_model(),
        seed=0,
        config=tiny_config(tmp_path, max_n_frames=200),
        callbacks=[watch],
    )
    experiment.run()
    expected = [AnnealingSchedule(**schedule)(p) for p in (0.25, 0.5, 0.75, 1.0)]
    assert watch.seen == pytest.approx(expected)


def test_epsilon_is_annealed_by_collected_frames(tmp_path):
    experiment = run(tmp_path, exploration_anneal_frames=200)
    assert experiment.algorithm.policy.eps.item() == pytest.approx(1 - 0.9 * 100 / 200, abs=1e-6)


def test_the_collecting_policy_is_the_trained_network(tmp_path):
    experiment = run(tmp_path)
    network = experiment.losses["student"].network_params
    agents = experiment.algorithm.policy.agents
    for task in ("one", "two"):
        assert torch.equal(agents[task].embedding.weight, network["embeddings", task, "weight"])
    collecting = dict(experiment.collector.policy.named_parameters())
    assert any(torch.equal(agents["one"].head.weight, p) for p in collecting.values())


# ---- whole runs ----


def test_one_seed_gives_one_result_and_another_another(tmp_path):
    first, second, other = (weights(run(tmp_path, seed=seed)) for seed in (0, 0, 1))
    assert equal(first, second)
    assert not equal(first, other)


def test_runs_with_teachers_are_reproducible(teachers, tmp_path):
    results = []
    for _ in range(2):
        experiment = make_experiment(tmp_path, teachers.task, teachers.config())
        experiment.run()
        results.append(weights(experiment))
    assert equal(*results)


def test_training_moves_every_parameter(teachers, tmp_path):
    config = teachers.config()
    before = make_experiment(tmp_path, teachers.task, config, seed=0)
    start = {name: tensor.clone() for name, tensor in weights(before).items()}
    before.run()
    after = weights(before)
    still = [name for name in start if torch.equal(start[name], after[name])]
    assert still == []


@pytest.mark.parametrize(
    "changes",
    [
        {"update": "joint"},
        {"mixer": "vdn"},
        {"mixer": "attention"},
        {"mixer": "none", "hysteresis": 0.4},
        {"double_q": False},
    ],
)
def test_variants_run(changes, tmp_path):
    experiment = run(tmp_path, algorithm=MktConfig(annealing=ALONE, **changes))
    assert experiment.n_iters_performed == 2
    assert all(tensor.isfinite().all() for tensor in weights(experiment).values())


def test_benchmark_runs_several_algorithms_side_by_side(tmp_path):
    benchmark = Benchmark(
        algorithm_configs=[
            MktConfig(annealing=ALONE),
            QmixConfig.get_from_yaml(),
        ],
        model_config=small_model(),
        tasks=[task_set(ONE, TWO)],
        seeds={0, 1},
        experiment_config=tiny_config(tmp_path, max_n_frames=50),
    )
    benchmark.run_sequential()
    files = [path for path in tmp_path.rglob("*.json") if path.name != "summary.json"]
    assert len(files) == 4
    found = set()
    for path in files:
        (tasks,) = json.loads(path.read_text()).values()
        (algorithms,) = tasks.values()
        ((name, seeds),) = algorithms.items()
        ((seed, content),) = seeds.items()
        steps = [value for key, value in content.items() if key.startswith("step_")]
        assert [step["step_count"] for step in steps] == [50]
        assert {"one_return", "two_return"} <= set(steps[0])
        found.add((name, seed))
    assert found == {(n, f"seed_{s}") for n in ("mkt", "qmix") for s in (0, 1)}


# ---- evaluation ----


class Rollouts(Callback):
    """Keeps what the evaluations played."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_evaluation_end(self, rollouts):
        self.seen.append([td.clone() for td in rollouts])


def hand_return(rollout: TensorDict, task: str) -> float:
    """Sum of the toy's rewards over the episode, from its length and the actions alone."""
    length = round(rollout[task, "observation"][0, 0, 1].item() * 10)
    actions = rollout[task, "action"]
    return sum(
        toy_reward(t, int(actions[t, i]), i) for t in range(length) for i in range(actions.shape[1])
    )


@pytest.mark.parametrize(
    "algorithm", [QmixConfig.get_from_yaml(), MktConfig(annealing=ALONE)], ids=["qmix", "mkt"]
)
def test_json_and_csv_hold_each_tasks_own_return(algorithm, tmp_path):
    """With unequal and random lengths every figure is exactly one episode of each task."""
    watch = Rollouts()
    serial = {**ONE, "task": "toy/serial"}
    for tasks, folder in (((ONE, TWO), tmp_path / "a"), ((serial, TWO), tmp_path / "b")):
        folder.mkdir()
        watch.seen.clear()
        experiment = Experiment(
            task=task_set(*tasks),
            algorithm_config=algorithm,
            model_config=small_model(),
            seed=0,
            config=tiny_config(folder, loggers=["csv"], evaluation_episodes=5),
            callbacks=[watch],
        )
        experiment.run()
        assert len(watch.seen) == 2
        path = next(Path(experiment.folder_name).glob("*.json"))
        run_data = json.loads(path.read_text())
        for _ in ("environment", "task", "algorithm", "seed"):
            (run_data,) = run_data.values()
        for index, rollouts in enumerate(watch.seen):
            step = run_data[f"step_{index + 1}"]
            lengths = {round(r["one", "observation"][0, 0, 1].item() * 10) for r in rollouts}
            assert len(lengths) > 1
            for task in ("one", "two"):
                expected = [hand_return(rollout, task) for rollout in rollouts]
                assert step[f"{task}_return"] == pytest.approx(expected, rel=1e-5)
                for name, value in (
                    ("mean", sum(expected) / 5),
                    ("min", min(expected)),
                    ("max", max(expected)),
                ):
                    file = f"eval_{task}_reward_episode_reward_{name}.csv"
                    with next(folder.rglob(file)).open() as handle:
                        logged = [float(row[1]) for row in csv.reader(handle)]
                    assert logged[index] == pytest.approx(value, rel=1e-5)


# ---- checkpoints ----


def checkpoint_of(experiment: Experiment) -> str:
    (path,) = (Path(experiment.folder_name) / "checkpoints").glob("*.pt")
    return str(path)


def optimizer_state(experiment: Experiment) -> list:
    state = experiment.optimizers["student"]["loss"].state_dict()["state"]
    return [entry[key] for entry in state.values() for key in ("step", "exp_avg", "exp_avg_sq")]


def test_reload_restores_everything_and_runs_longer(teachers, tmp_path):
    experiment = make_experiment(tmp_path, teachers.task, teachers.config(), checkpoint_at_end=True)
    experiment.run()
    reloaded = Experiment.reload_from_file(
        checkpoint_of(experiment), experiment_patch={"max_n_frames": 200}
    )
    assert (reloaded.total_frames, reloaded.n_iters_performed) == (100, 2)
    assert equal(weights(experiment), weights(reloaded))
    targets = [e.losses["student"].target_network_params.data for e in (experiment, reloaded)]
    assert (targets[0] == targets[1]).all()
    pairs = list(zip(optimizer_state(experiment), optimizer_state(reloaded), strict=True))
    assert len(pairs) > 10
    assert all(torch.equal(a, b) for a, b in pairs)
    counters = [e.target_updaters["student"].counter for e in (experiment, reloaded)]
    assert counters[0] == counters[1] > 0
    assert accounts_of(reloaded) == accounts_of(experiment)
    assert len(reloaded.replay_buffers["student"]) == len(experiment.replay_buffers["student"])
    assert torch.equal(reloaded.algorithm.policy.eps, experiment.algorithm.policy.eps)
    reloaded.run()
    assert (reloaded.total_frames, reloaded.n_iters_performed) == (200, 4)
    assert not equal(weights(experiment), weights(reloaded))
    accounts = accounts_of(reloaded)["simple_push"]
    assert accounts == {"frames": 200, "episodes": 8}


def test_checkpoints_hold_plain_values_only(tmp_path):
    experiment = run(tmp_path, checkpoint_at_end=True)
    content = torch.load(checkpoint_of(experiment), weights_only=True)
    assert content["resume"]["optimizers"]["student"]["loss"]["param_groups"][0]["lr"] == 0.001


# ---- distillation is alive ----


def test_calibrated_teachers_have_opinions_and_the_papers_have_none(teachers, tmp_path):
    """Real MPE values: near uniform at t = 1, not at the calibrated temperature."""
    experiment = make_experiment(tmp_path, teachers.task, teachers.config(annealing=HALF))
    experiment.run()
    buffer = experiment.replay_buffers["student"]
    for name, teacher in experiment.algorithm.teachers.items():
        sample = buffer.sample_tasks([name])[name]
        values, mask = sample["teacher_values"], sample["action_mask"][:, :-1]
        assert policy_entropy(values, mask, 1.0).mean() > 0.98
        assert policy_entropy(values, mask, teacher.temperature).mean() < 0.95
        assert experiment.algorithm.temperatures[name] == teacher.temperature
    signals = student_callback(experiment).signals()
    assert set(signals) == {"simple_push", "simple_speaker_listener"}
    for values in signals.values():
        assert 0.0 < values["teacher_entropy"] < 0.95
        assert 0.0 < values["kl_td_gradient_ratio"] < float("inf")


def test_signals_see_a_teacher_that_teaches_nothing(teachers, tmp_path):
    ratios = {}
    for temperature in ("auto", 1.0):
        experiment = make_experiment(
            tmp_path,
            teachers.task,
            teachers.config(temperature=temperature, annealing=HALF),
        )
        experiment.run()
        found = student_callback(experiment).signals()["simple_push"]
        ratios[temperature] = found["kl_td_gradient_ratio"]
        assert (found["teacher_entropy"] > 0.98) is (temperature == 1.0)
    assert ratios["auto"] > 2 * ratios[1.0]


def test_pure_distillation_approaches_the_teacher(teachers, tmp_path):
    config = teachers.config(annealing={"start": 0.0, "end": 0.0, "fraction": 1.0})
    experiment = make_experiment(
        tmp_path, teachers.task, config, lr=0.02, off_policy_n_optimizer_steps=30, evaluation=False
    )
    divergences = []
    loss = experiment.losses["student"]
    loss.register_forward_hook(lambda _, __, out: divergences.append(out["kl"].item()))
    experiment.run()
    assert sum(divergences[-4:]) < 0.5 * sum(divergences[:4])


def test_logs_tell_of_each_task(teachers, tmp_path):
    experiment = make_experiment(tmp_path, teachers.task, teachers.config(), loggers=["csv"])
    experiment.run()
    names = {path.stem for path in Path(experiment.folder_name).rglob("*.csv")}
    for task in ("simple_push", "simple_speaker_listener"):
        for log in (
            f"train_{task}_kl", f"train_{task}_td", f"train_{task}_q_tot",
            f"distillation_{task}_teacher_entropy", f"distillation_{task}_kl_td_gradient_ratio",
            f"counters_{task}_frames", f"counters_{task}_episodes",
        ):  # fmt: skip
            assert log in names
    file = next(Path(experiment.folder_name).rglob("counters_simple_push_frames.csv"))
    assert [float(line.split(",")[1]) for line in file.read_text().split()] == [50.0, 100.0]


def test_evaluation_before_any_training(tmp_path):
    algorithm = MktConfig(annealing=ALONE)
    experiment = make_experiment(tmp_path, task_set(ONE, TWO), algorithm, None, 0)
    experiment.evaluate()
    assert student_callback(experiment).signals() == {}


@pytest.mark.parametrize("temperature", [True, float("inf"), "warm"])
def test_temperatures_that_are_no_numbers(temperature):
    with pytest.raises(ValueError, match=r"^algorithm\.temperature"):
        MktConfig(temperature=temperature)
