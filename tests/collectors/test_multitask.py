import pytest
import torch
from torchrl.collectors import SyncDataCollector
from torchrl.envs import Compose, RewardSum, TransformedEnv

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.collectors import MultiTaskCollector
from benchmarl_mkt.models import EpsilonGreedyPolicy
from tests.helpers import make_agents, make_experiment, small_model, task_set
from tests.toys import toy

COPIES, FRAMES = 3, 24  # 8 steps of each copy
SHORT = {"max_cycles": 7}


def make_collector(*tasks, teachers=None, batches: int = 3) -> MultiTaskCollector:
    task = task_set(*tasks)
    make_env = task.get_env_fun(COPIES, False, 0, "cpu")
    sizes = {
        name: (team.n_agents, team.observation_size, team.n_actions)
        for name, team in make_env().teams.items()
    }
    torch.manual_seed(0)
    policy = EpsilonGreedyPolicy(make_agents(sizes), 0.5, 0.5, 1)
    inner = SyncDataCollector(
        lambda: TransformedEnv(make_env(), Compose(RewardSum(reset_keys=["_reset"] * len(sizes)))),
        policy,
        frames_per_batch=FRAMES,
        total_frames=batches * FRAMES,
        device="cpu",
    )
    return MultiTaskCollector(inner, teachers or {}, policy)


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


class Counting:
    """A teacher that counts the rows that it is asked for."""

    def __init__(self, is_recurrent: bool):
        self.is_recurrent, self.rows = is_recurrent, 0

    def __call__(self, observation, is_init):
        self.rows += observation.shape[:-2].numel()
        return observation[..., :3] + 1


@pytest.mark.parametrize("is_recurrent", [False, True])
def test_teachers_are_not_asked_what_to_do_while_a_team_idles(is_recurrent):
    teacher = Counting(is_recurrent)
    collector = make_collector(toy("a", length=2), toy("b", length=7), teachers={"a": teacher})
    active = 0
    for batch in collector:
        flags = batch["active", "a"].squeeze(-1)
        active += int(flags.sum())
        values, expected = batch["a", "teacher_values"], batch["a", "observation"][..., :3] + 1
        assert torch.equal(values[flags], expected[flags])
        assert is_recurrent or not values[~flags].any()
    assert 0 < active < 3 * FRAMES
    assert teacher.rows == (3 * FRAMES if is_recurrent else active)
    collector.shutdown()


def test_everything_else_is_the_collectors():
    collector = make_collector(toy("a"))
    next(iter(collector))
    assert collector.total_frames == 3 * FRAMES
    assert collector.state_dict().keys() == collector.collector.state_dict().keys()
    assert collector.state_dict()["frames"] == FRAMES
    collector.shutdown()


def test_a_loaded_state_goes_on_where_it_was():
    collector, other = make_collector(toy("a")), make_collector(toy("a"))
    next(iter(collector))
    other.load_state_dict(collector.state_dict())
    assert len(list(other)) == 2


SETS = {
    "rounds": [toy("a", spread=3, masked=True), toy("b", length=2, spread=4, wins=True)],
    "one by one": [toy("a", "serial", length=4, masked=True), toy("b", length=6, terminal=False)],
    "games": ["mpe/simple_speaker_listener", {"task": "mpe/simple_push", "config": SHORT}],
    "battles": ["smax/3m", {"task": "smax/2s3z", "config": {"max_steps": 5}}],
}


@pytest.mark.parametrize("name", SETS)
def test_plain_rollouts_are_torchrls_bit_by_bit(name):
    """Same seeds, same policy: every entry of every batch, over ends and starts of episodes."""
    if name == "battles":
        pytest.importorskip("jaxmarl")
    runs = []
    for plain in (True, False):
        collector = make_collector(*SETS[name], batches=6)
        tasks = list(collector.env.base_env.teams)
        assert collector.rollouts is not None
        torch.manual_seed(1)
        collector.env.set_seed(3)
        batches = iter(collector if plain else collector.collector)
        collector.reset_at_each_iter = True
        run = [next(batches)]
        collector.reset_at_each_iter = False
        runs.append([*run, *batches])
        collector.shutdown()
    for mine, torchrls in zip(*runs, strict=True):
        expected = dict(torchrls.exclude("collector").flatten_keys(".").items())
        found = dict(mine.flatten_keys(".").items())
        assert found.keys() == expected.keys()
        for key, value in found.items():
            assert value.dtype == expected[key].dtype
            assert torch.equal(value, expected[key]), key
        assert mine.batch_size == torchrls.batch_size
        assert [mine[task].batch_size for task in tasks] == [torchrls[t].batch_size for t in tasks]
    done = torch.cat([batch["next", "done"] for batch in runs[0]], 1)
    assert len(runs[0]) == 6 and done.any() and not done.all()


ALONE = MktConfig(annealing={"start": 1.0, "end": 1.0, "fraction": 1.0})


@pytest.mark.parametrize(
    ("model", "changes", "plain"),
    [
        (None, {}, True),
        (small_model(trunk={"name": "gru"}), {}, False),
        (None, {"off_policy_init_random_frames": 40}, False),
    ],
    ids=["feed-forward", "hidden states", "random frames"],
)
def test_experiments_collect_plainly_where_they_can(tmp_path, model, changes, plain):
    task = task_set(toy("a"), toy("b", length=5))
    experiment = make_experiment(tmp_path, task, ALONE, model, **changes)
    assert (experiment.collector.rollouts is not None) is plain
    batch = next(iter(experiment.collector))
    assert batch["next", "a", "episode_reward"].any()
    experiment.close()


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
