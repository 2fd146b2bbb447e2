import pytest
from benchmarl.algorithms import MappoConfig, QmixConfig
from tensordict import TensorDict

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.training.monitors import Accounts
from benchmarl_mkt.training.summary import begin_summary, summarise
from tests.helpers import accounts_of, make_experiment, task_set
from tests.toys import toy

ALONE = MktConfig(annealing={"start": 1.0, "end": 1.0, "fraction": 1.0})


@pytest.mark.parametrize(
    "algorithm", [ALONE, QmixConfig.get_from_yaml(), MappoConfig.get_from_yaml()]
)
def test_frames_and_episodes_are_the_tasks_own(algorithm, tmp_path):
    """Rounds of 5 steps, 10 in each of two copies: task a plays 2 of 5 steps."""
    task = task_set(toy("a", length=2), toy("b", length=5))
    callbacks = [] if algorithm is ALONE else [Accounts()]  # MKT adds it by itself
    experiment = make_experiment(tmp_path, task, algorithm, callbacks=callbacks)
    experiment.run()
    rounds = 100 // 5
    assert accounts_of(experiment) == {
        "a": {"frames": rounds * 2, "episodes": rounds},
        "b": {"frames": rounds * 5, "episodes": rounds},
    }


def test_uneven_episodes_and_state(tmp_path):
    task = task_set(toy("a", length=1, spread=4, terminal=False), toy("b", length=3))
    experiment = make_experiment(tmp_path, task, ALONE)
    batch = next(iter(experiment.collector))
    accounts = Accounts()
    accounts.on_batch_collected(batch)
    active, done = batch["active", "a"], batch["next", "a", "done"][..., 0, :]
    assert accounts.tasks["a"] == {
        "frames": int(active.sum()),
        "episodes": int((active & done).sum()),
    }
    assert 0 < accounts.tasks["a"]["frames"] < batch.numel()
    state: dict = {}
    accounts.on_state_dict(state)
    restored = Accounts()
    restored.on_load_state_dict(state)
    restored.on_batch_collected(batch)
    assert restored.tasks["a"]["frames"] == 2 * accounts.tasks["a"]["frames"]


def test_environments_without_rounds_have_no_accounts():
    accounts = Accounts()
    accounts.on_batch_collected(TensorDict({}, [2, 3]))
    assert accounts.tasks == {}


def test_the_summary_of_benchmarls_algorithms_has_the_tasks_own_frames(tmp_path):
    task = task_set(toy("a", length=2), toy("b", length=5))
    algorithm = QmixConfig.get_from_yaml()
    experiment = make_experiment(tmp_path, task, algorithm, callbacks=[Accounts()])
    begun = begin_summary(experiment, set="two", method="qmix", overrides=[])
    experiment.run()
    rows = summarise(experiment, begun)["tasks"]
    assert {task: row["frames"] for task, row in rows.items()} == {"a": 40, "b": 100}
