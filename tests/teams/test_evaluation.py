import pytest
import torch

from benchmarl_mkt.teachers import load_teacher
from benchmarl_mkt.teams.evaluation import greedy_policy, play, random_policy
from tests.helpers import PUSH, SPEAKER, task_set
from tests.toys import toy, toy_reward

SET = (toy("one", length=2, spread=3), toy("two", length=4))


def always(action: int):
    def act(data):
        for task in ("one", "two"):
            data.set((task, "action"), torch.full(data[task, "action_mask"].shape[:-1], action))
        return data

    return act


def test_returns_are_sums_over_each_tasks_own_episode():
    lengths = {}

    def act(data):
        for task in ("one", "two"):
            lengths.setdefault(task, (data[task, "observation"][:, 0, 1] * 10).round().int())
        return always(1)(data)

    returns = play(task_set(*SET), act, 9, seed=0).returns
    assert len(set(lengths["one"].tolist())) > 1
    for task, length in lengths.items():
        expected = [
            sum(toy_reward(t, 1, i) for t in range(n) for i in range(2)) for n in length.tolist()
        ]
        assert returns[task].tolist() == pytest.approx(expected)


def test_the_same_seed_gives_the_same_episodes():
    task = task_set(SPEAKER, PUSH)
    random = random_policy([team.name for team in task.team_configs])
    first, second, other = (play(task, random, 6, seed=s).returns for s in (3, 3, 4))
    for name in first:
        assert torch.equal(first[name], second[name])
        assert not torch.equal(first[name], other[name])


def test_the_callers_random_state_is_left_alone():
    state = torch.random.get_rng_state()
    play(task_set(*SET), random_policy(["one", "two"]), 3, seed=0)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_teachers_act_greedily(teachers):
    found = {name: load_teacher(path) for name, path in teachers.paths.items()}
    env = teachers.task.get_env_fun(7, False, 0, "cpu")()
    data = greedy_policy(found)(env.reset())
    for name, teacher in found.items():
        values = teacher(data[name, "observation"])
        expected = values.masked_fill(~data[name, "action_mask"], -torch.inf).argmax(-1)
        assert torch.equal(data[name, "action"], expected)


def test_a_recurrent_student_is_summarised(tmp_path):
    from benchmarl_mkt.algorithms import MktConfig
    from benchmarl_mkt.files import conf_path
    from benchmarl_mkt.models import MultiTaskModelConfig
    from benchmarl_mkt.training.summary import begin_summary, summarise
    from tests.helpers import PUSH, make_experiment, task_set

    gru = MultiTaskModelConfig.get_from_yaml(str(conf_path() / "model" / "multitask_gru.yaml"))
    alone = MktConfig(annealing={"start": 1.0, "end": 1.0, "fraction": 1.0})
    experiment = make_experiment(tmp_path, task_set(PUSH), alone, gru, 0)
    summary = begin_summary(experiment, method="gru", overrides=[])
    experiment.run()
    assert summarise(experiment, summary)["tasks"]["simple_push"]["episodes"] > 0
