import copy
from types import SimpleNamespace

import pytest
import torch
from benchmarl.algorithms import MappoConfig, VdnConfig
from benchmarl.experiment import Experiment
from benchmarl.models import MlpConfig
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.teams.evaluation import play, random_policy
from benchmarl_mkt.training.best_policy import BestPolicy, Evaluation
from tests.helpers import PUSH, SPEAKER, make_experiment, small_model, task_set, tiny_config
from tests.toys import DEFAULTS, ToyTask, toy

ALONE = MktConfig(annealing={"start": 1.0, "end": 1.0, "fraction": 1.0})


class Recorder(BestPolicy):
    """Writes down every evaluation: its mean returns and the weights of that moment."""

    def __init__(self):
        super().__init__()
        self.history = []

    def on_evaluation_end(self, rollouts):
        super().on_evaluation_end(rollouts)
        weights = self.experiment.policy.state_dict()
        returns = [
            torch.stack([td["next", group, "reward"].sum(0).mean() for td in rollouts]).mean()
            for group in self.experiment.algorithm.group_map
        ]
        copied = copy.deepcopy(weights)
        self.history.append((torch.stack(returns), copied))


@pytest.mark.parametrize("algorithm", [ALONE, MappoConfig.get_from_yaml()], ids=["mkt", "mappo"])
def test_the_best_evaluation_is_kept(algorithm, tmp_path):
    best = Recorder()
    experiment = Experiment(
        task=task_set(PUSH),
        algorithm_config=algorithm,
        model_config=small_model(),
        seed=0,
        config=tiny_config(tmp_path, lr=0.1, max_n_frames=300),
        callbacks=[best],
    )
    experiment.run()
    assert len(best.history) == 6
    returns, weights = max(best.history, key=lambda entry: entry[0])
    assert torch.equal(best.best.returns, returns)
    assert len({round(entry[0].item(), 3) for entry in best.history}) > 1
    for name, tensor in weights.items():
        assert torch.equal(best.best.weights[name], tensor)


class Considered(BestPolicy):
    """Writes down what is considered: its returns, the policy's and the target's head."""

    def __init__(self):
        super().__init__()
        self.history = []

    def _consider(self, mean_returns, won):
        super()._consider(mean_returns, won)
        loss = self.experiment.losses["student"]
        agents = loss.network_params["heads", "simple_push", "weight"].data.clone()
        target = loss.target_network_params["heads", "simple_push", "weight"].data.clone()
        policy = self.experiment.policy.state_dict()
        (acting,) = (tensor for name, tensor in policy.items() if name.endswith("head.weight"))
        self.history.append((float(mean_returns["simple_push"]), agents, target, acting.clone()))


@pytest.mark.parametrize("averaging", [True, False])
def test_an_averaged_target_network_is_considered_too(averaging, tmp_path):
    best = Considered()
    changes = {"soft_target_update": averaging, "polyak_tau": 0.1}
    experiment = Experiment(
        task=task_set(PUSH),
        algorithm_config=ALONE,
        model_config=small_model(),
        seed=0,
        config=tiny_config(tmp_path, lr=0.1, max_n_frames=150, **changes),
        callbacks=[best],
    )
    experiment.run()
    assert len(best.history) == (6 if averaging else 3)
    online, averaged = best.history[:: 2 if averaging else 1], best.history[1::2]
    assert all(torch.equal(agents, acting) for _, agents, _, acting in best.history)
    if averaging:
        for (_, _, before, _), (_, agents, target, _) in zip(online, averaged):
            assert torch.equal(agents, target)
            assert torch.equal(target, before)
        assert not torch.equal(online[-1][1], averaged[-1][1])
    last = experiment.losses["student"].network_params["heads", "simple_push", "weight"]
    assert torch.equal(last, online[-1][1])  # restored
    assert float(best.best.returns) == pytest.approx(max(entry[0] for entry in best.history))


def evaluated(rows, units=None) -> BestPolicy:
    """A run of evaluations with these mean returns of tasks a, b, ...; weights are their number."""
    best, tasks = BestPolicy(), "abcdef"[: len(rows[0])]
    best.units = torch.tensor(units or [1.0] * len(tasks))
    best.experiment = SimpleNamespace(algorithm=SimpleNamespace(group_map=dict.fromkeys(tasks)))
    for number, row in enumerate(rows):
        policy = torch.nn.Module()
        policy.register_buffer("number", torch.tensor(number))
        best.experiment.policy, best.experiment.total_frames = policy, number
        rollout = {t: {"reward": torch.full((2, 3, 1), r / 2)} for t, r in zip(tasks, row)}
        best.on_evaluation_end([TensorDict({"next": rollout}, [2])])
    return best


def test_tasks_count_the_same_whatever_their_unit():
    """In units of 100 and 1 the sums are 0, 1.5, 1.9 and 1.0: the third is best."""
    rows = [(0.0, 0.0), (100.0, 0.5), (90.0, 1.0), (20.0, 0.8)]
    best = evaluated(rows, [100.0, 1.0]).best
    assert best.frames == int(best.weights["number"]) == 2
    assert evaluated(rows).best.frames == 1  # in units of 1 the first task alone counts


NUMBERS = st.integers(-20, 20)
ROWS = st.integers(1, 4).flatmap(
    lambda tasks: st.tuples(
        st.lists(st.tuples(*[NUMBERS] * tasks), min_size=1, max_size=12),
        st.lists(st.sampled_from([0.5, 1.0, 4.0, 16.0]), min_size=tasks, max_size=tasks),
    )
)


@given(ROWS)
def test_the_best_of_all_evaluations_is_kept(drawn):
    """With one task that is the highest return; equal ones: the highest mean, then the first."""
    rows, units = drawn
    ranks = [(sum(r / u for r, u in zip(row, units)), sum(row)) for row in rows]
    best = evaluated(rows, units).best
    assert best.frames == int(best.weights["number"]) == ranks.index(max(ranks))
    if len(units) == 1:
        assert best.frames == rows.index(max(rows))


def with_wins(rows, unit: float = 1.0) -> BestPolicy:
    """As :func:`evaluated`, with rows (wins of 4 episodes, mean return) of one task that has wins
    and a task that has not, whose returns count in ``unit``."""
    best = BestPolicy()
    best.units = torch.tensor([1.0, unit])
    groups = dict.fromkeys(("battle", "game"))
    best.experiment = SimpleNamespace(algorithm=SimpleNamespace(group_map=groups))
    for number, (wins, earned, other) in enumerate(rows):
        best.experiment.policy, best.experiment.total_frames = torch.nn.Linear(1, 1), number
        rollouts = []
        for episode in range(4):
            after = {
                "battle": {"reward": torch.full((2, 3, 1), earned / 2)},
                "game": {"reward": torch.full((2, 3, 1), other / 2)},
                "won": {"battle": torch.tensor([[False], [episode < wins]])},
                "done": torch.tensor([[False], [True]]),
            }
            rollouts.append(TensorDict({"next": after}, [2]))
        best.on_evaluation_end(rollouts)
    return best


def test_battles_won_count_more_than_returns():
    best = with_wins([(1, 15.0, 0.0), (2, 10.0, 0.0), (1, 19.0, 0.0)]).best
    assert best.frames == 1
    assert best.levels.tolist() == [0.5, 0.0]


def test_returns_decide_among_equal_win_rates():
    rows = [(2, 10.0, 0.0), (2, 12.0, 0.0), (2, 11.0, 0.0), (2, 12.0, 0.0), (1, 20.0, 0.0)]
    assert with_wins(rows).best.frames == 1


def test_win_rates_count_as_they_are_and_returns_by_their_unit():
    """The game's returns in hundreds: 0, 0.5 + 0.9, 1.0 + 0.2 and 0.75 + 1.0."""
    rows = [(0, 0.0, 0.0), (2, 10.0, 90.0), (4, 20.0, 20.0), (3, 15.0, 100.0)]
    assert with_wins(rows, 100.0).best.frames == 3
    assert with_wins(rows, 1000.0).best.frames == 2


WINS_AND_RETURNS = st.tuples(st.integers(0, 4), st.integers(-9, 9), st.integers(-9, 9))


@given(st.lists(WINS_AND_RETURNS, min_size=1, max_size=12))
def test_the_best_of_all_evaluations_is_kept_with_wins(rows):
    ranks = [(wins / 4 + game / 8, battle + game) for wins, battle, game in rows]
    found = with_wins([(w, float(b), float(g)) for w, b, g in rows], 8.0).best.frames
    assert found == ranks.index(max(ranks))


def test_nothing_is_best_before_the_first_evaluation():
    assert BestPolicy().best is None


@pytest.mark.parametrize("algorithm", [ALONE, MappoConfig.get_from_yaml()], ids=["mkt", "mappo"])
def test_two_tasks_of_a_real_run(algorithm, tmp_path):
    """The units are of random play alone, so the same for every algorithm; one policy is saved."""
    best, task = Recorder(), task_set(PUSH, SPEAKER)
    experiment = make_experiment(
        tmp_path, task, algorithm, lr=0.1, max_n_frames=300, callbacks=[best]
    )
    experiment.run()
    copies = experiment.config.evaluation_episodes
    at_random = play(task, random_policy(experiment.algorithm.group_map), 10, 2**31, copies=copies)
    units = torch.stack([returns.double().std() for returns in at_random.returns.values()])
    assert best.units == pytest.approx(units)
    returns = torch.stack([entry[0] for entry in best.history])
    expected = int((returns / units).mean(1).argmax())
    assert torch.equal(best.best.returns, returns[expected])
    assert best.best.frames == 50 * (expected + 1)
    state = {}
    best.on_state_dict(state)
    (kept,) = state["best_policy"]["evaluations"]
    for name, tensor in best.history[expected][1].items():
        assert torch.equal(kept["weights"][name], tensor)


def test_units_where_nothing_must_be_played_or_nothing_is_learned_from_it(tmp_path):
    """One task; tasks that know victories; a task in which random play always earns the same."""
    battles = [toy(name, wins=True) for name in ("a", "b")]
    alike = toy("c", length=1, masked=True, groups={"agents": [2, 2, 0]})
    for number, tasks in enumerate(([PUSH], battles, [battles[0], alike, toy("d")])):
        best = BestPolicy()
        (tmp_path / str(number)).mkdir()
        make_experiment(tmp_path / str(number), task_set(*tasks), ALONE, callbacks=[best]).run()
        if number < 2:
            assert best.units.tolist() == [1.0] * len(tasks)
        else:
            assert best.units.tolist()[:2] == [1.0, 1.0]
            assert best.units[2] > 0
            assert best.units[2] != 1.0


def test_groups_of_a_task_that_is_no_set(tmp_path):
    """Two teams of one game: returns count as they are, as in BenchMARL's own mean."""
    best = Recorder()
    config = {**DEFAULTS, "groups": {"x": [2, 3, 0], "y": [1, 2, 0]}}
    task = ToyTask.VECTOR.get_task(config)
    make_experiment(
        tmp_path, task, VdnConfig.get_from_yaml(), MlpConfig.get_from_yaml(), callbacks=[best]
    ).run()
    returns = torch.stack([entry[0] for entry in best.history])
    assert torch.equal(best.best.returns, returns[returns.mean(1).argmax()])


def test_a_checkpoint_of_an_older_version_gives_its_best():
    """It holds every evaluation that no other one matches on all tasks, and the run's range."""
    rows = [(0.0, 8.0), (4.0, 6.0), (9.0, 0.0)]
    kept = [
        Evaluation(n, torch.tensor(row), torch.tensor(row), {"n": torch.tensor(n)})._asdict()
        for n, row in enumerate(rows)
    ]
    low, high = torch.tensor([0.0, 0.0]), torch.tensor([9.0, 8.0])
    best = evaluated([(-5.0, -5.0)])
    best.experiment.test_env = None
    best.on_load_state_dict({"best_policy": {"evaluations": kept, "low": low, "high": high}})
    assert int(best.best.weights["n"]) == 1  # 8, 10 and 9
