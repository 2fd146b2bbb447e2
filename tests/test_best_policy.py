from types import SimpleNamespace

import pytest
import torch
from benchmarl.algorithms import MappoConfig
from benchmarl.experiment import Experiment
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.best_policy import BestPolicy
from tests.helpers import PUSH, SPEAKER, small_model, task_set, tiny_config

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
        copied = {name: tensor.clone() for name, tensor in weights.items()}
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
    assert len(best.evaluations) == 1
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


def evaluated(rows) -> BestPolicy:
    """A run of evaluations with these mean returns of tasks a, b, ...; weights are their number."""
    best, tasks = BestPolicy(), "abcdef"[: len(rows[0])]
    best.experiment = SimpleNamespace(algorithm=SimpleNamespace(group_map=dict.fromkeys(tasks)))
    for number, row in enumerate(rows):
        policy = torch.nn.Module()
        policy.register_buffer("number", torch.tensor(number))
        best.experiment.policy, best.experiment.total_frames = policy, number
        rollout = {t: {"reward": torch.full((2, 3, 1), r / 2)} for t, r in zip(tasks, row)}
        best.on_evaluation_end([TensorDict({"next": rollout}, [2])])
    return best


def test_tasks_count_the_same_whatever_their_unit():
    """Scaled to the run's range: (0, 0), (1, 0.5), (0.9, 1), (0.2, 0.8): the third is best."""
    rows = [(0.0, 0.0), (100.0, 0.5), (90.0, 1.0), (20.0, 0.8)]
    best = evaluated(rows)
    assert best.best.frames == 2
    assert int(best.best.weights["number"]) == 2
    assert [kept.frames for kept in best.evaluations] == [1, 2]


@given(st.lists(st.tuples(*[st.integers(-20, 20)] * 3), min_size=1, max_size=12))
def test_dropping_beaten_evaluations_loses_no_best(rows):
    returns = torch.tensor(rows, dtype=torch.float)
    span = (returns.amax(0) - returns.amin(0)).clamp(min=1e-9)
    scores = ((returns - returns.amin(0)) / span).mean(1)
    found = evaluated(rows).best
    assert scores[found.frames] == pytest.approx(scores.max().item(), abs=1e-5)


def with_wins(rows) -> BestPolicy:
    """As :func:`evaluated`, with rows (wins of 4 episodes, mean return) of one task that has wins
    and a task that has not."""
    best = BestPolicy()
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
    best = with_wins([(2, 10.0, 0.0), (2, 12.0, 0.0), (2, 11.0, 0.0), (1, 20.0, 0.0)])
    assert best.best.frames == 1
    assert len(best.evaluations) == 1


def test_win_rates_count_as_they_are_and_returns_by_their_range():
    """The game's returns reach from 0 to 100: 0.5 + 0.9, 1.0 + 0.2 and 0.75 + 1.0, halved."""
    best = with_wins([(0, 0.0, 0.0), (2, 10.0, 90.0), (4, 20.0, 20.0), (3, 15.0, 100.0)])
    assert best.best.frames == 3
    assert [kept.frames for kept in best.evaluations] == [2, 3]


WINS_AND_RETURNS = st.tuples(st.integers(0, 4), st.integers(-9, 9), st.integers(-9, 9))


@given(st.lists(WINS_AND_RETURNS, min_size=1, max_size=12))
def test_dropping_beaten_evaluations_loses_no_best_with_wins(rows):
    values = torch.tensor(rows, dtype=torch.float)
    game = values[:, 2]
    scaled = (game - game.min()) / (game.max() - game.min()).clamp(min=1e-9)
    scores = (values[:, 0] / 4 + scaled) / 2
    found = with_wins([(w, float(b), float(g)) for w, b, g in rows]).best.frames
    assert scores[found] == pytest.approx(scores.max().item(), abs=1e-5)


def test_nothing_is_best_before_the_first_evaluation():
    assert BestPolicy().best is None


def test_two_tasks_of_a_real_run(tmp_path):
    best = Recorder()
    Experiment(
        task=task_set(PUSH, SPEAKER),
        algorithm_config=ALONE,
        model_config=small_model(),
        seed=0,
        config=tiny_config(tmp_path, lr=0.1, max_n_frames=300),
        callbacks=[best],
    ).run()
    returns = torch.stack([entry[0] for entry in best.history])
    span = returns.amax(0) - returns.amin(0)
    expected = int(((returns - returns.amin(0)) / span).mean(1).argmax())
    assert torch.equal(best.best.returns, returns[expected])
