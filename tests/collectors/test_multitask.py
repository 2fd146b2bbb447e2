import torch
from torchrl.collectors import SyncDataCollector

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.collectors import MultiTaskCollector
from benchmarl_mkt.models import EpsilonGreedyPolicy
from tests.helpers import make_agents, make_experiment, task_set
from tests.toys import toy

COPIES, FRAMES = 3, 24  # 8 steps of each copy


def make_collector(*tasks, teachers=None, batches: int = 3) -> MultiTaskCollector:
    task = task_set(*tasks)
    make_env = task.get_env_fun(COPIES, False, 0, "cpu")
    sizes = {
        name: (team.n_agents, team.observation_size, team.n_actions)
        for name, team in make_env().teams.items()
    }
    inner = SyncDataCollector(
        make_env,
        EpsilonGreedyPolicy(make_agents(sizes), 1.0, 1.0, 1),
        frames_per_batch=FRAMES,
        total_frames=batches * FRAMES,
        device="cpu",
    )
    return MultiTaskCollector(inner, teachers or {})


def test_teacher_values_are_the_teachers_forward():
    def teach(observation, is_init):
        assert is_init[:, 0].all()
        assert not torch.is_grad_enabled()
        given.append(is_init)
        return observation @ torch.arange(15.0).view(5, 3)

    given = []
    collector = make_collector(toy("a"), toy("b"), teachers={"a": teach})
    for batch in collector:
        with torch.no_grad():
            starts = torch.ones_like(batch["next", "done"])
            starts[:, 1:] = batch["next", "done"][:, :-1]
            expected = teach(batch["a", "observation"], starts)
            assert torch.equal(given[-1], starts)
        assert torch.equal(batch["a", "teacher_values"], expected)
        assert ("b", "teacher_values") not in batch.keys(True)
    collector.shutdown()


def test_everything_else_is_the_collectors():
    collector = make_collector(toy("a"))
    next(iter(collector))
    assert collector.total_frames == 3 * FRAMES
    assert collector.state_dict()["iter"] == collector.collector.state_dict()["iter"]
    collector.shutdown()


def test_stored_values_equal_the_teachers_on_mpe(teachers, tmp_path):
    experiment = make_experiment(tmp_path, teachers.task, teachers.config())
    assert isinstance(experiment.algorithm.config, MktConfig)
    batch = next(iter(experiment.collector))
    for name, teacher in experiment.algorithm.teachers.items():
        observation = batch[name, "observation"]
        expected = torch.stack([teacher(observation[:, t]) for t in range(observation.shape[1])], 1)
        torch.testing.assert_close(batch[name, "teacher_values"], expected)
        assert expected.std() > 0
    experiment.close()
