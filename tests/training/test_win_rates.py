import json
from io import StringIO

import pytest
import torch
from benchmarl.algorithms import VdnConfig
from benchmarl.experiment.callback import Callback
from rich.console import Console
from tensordict import TensorDict

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.environments import MultiTaskClass
from benchmarl_mkt.reporting.tables import comparison_table, score_text
from benchmarl_mkt.teams.evaluation import play, random_policy
from benchmarl_mkt.training.best_policy import BestPolicy
from benchmarl_mkt.training.monitors import WinRates, episodes_won
from benchmarl_mkt.training.summary import begin_summary, summarise
from tests.helpers import make_experiment, task_set
from tests.toys import toy

ALONE = MktConfig(annealing={"start": 1.0, "end": 1.0, "fraction": 1.0})
SET = (toy("battle", length=3, spread=3, wins=True), toy("game", length=5))


class Witness(Callback):
    """Writes down who won, from the actions: the toy's rule."""

    def __init__(self):
        super().__init__()
        self.evaluations, self.batches = [], []

    def on_batch_collected(self, batch):
        self.batches.append(batch.clone())

    def on_evaluation_end(self, rollouts):
        lengths = [round(td["battle", "observation"][0, 0, 1].item() * 10) for td in rollouts]
        pairs = zip(rollouts, lengths)
        self.evaluations.append(
            [float(td["battle", "action"][length - 1, 0] == 1) for td, length in pairs]
        )


@pytest.mark.parametrize(
    ("algorithm", "callbacks"),
    [(ALONE, []), (VdnConfig.get_from_yaml(), [WinRates()])],
    ids=["mkt", "stock"],
)
def test_evaluations_are_written_into_the_json_and_logged(algorithm, callbacks, tmp_path):
    witness = Witness()
    experiment = make_experiment(
        tmp_path,
        task_set(*SET),
        algorithm,
        callbacks=[witness, *callbacks],
        loggers=["csv"],
        max_n_frames=200,
    )
    experiment.run()
    content = json.loads(experiment.logger.json_writer.path.read_text())
    for _ in ("environment", "task", "algorithm", "seed"):
        (content,) = content.values()
    run = content
    steps = [run[key] for key in sorted(run) if key.startswith("step_")]
    assert [step["battle_win_rate"] for step in steps] == witness.evaluations
    assert len(steps) == 4
    assert {len(step["battle_win_rate"]) for step in steps} == {2}
    assert all(len(step["battle_return"]) == 2 for step in steps)  # BenchMARL's stand beside them
    assert not any("game_win_rate" in step for step in steps)
    logs = {path.name: path for path in experiment.folder_name.rglob("*.csv")}
    lines = logs["eval_battle_win_rate.csv"].read_text().split()
    rates = [sum(won) / 2 for won in witness.evaluations]
    assert [float(line.split(",")[1]) for line in lines] == rates
    assert "eval_game_win_rate.csv" not in logs
    lines = logs["collection_battle_win_rate.csv"].read_text().split()
    expected = [won_in(batch) for batch in witness.batches]
    assert [float(line.split(",")[1]) for line in lines] == pytest.approx(expected)


def won_in(batch) -> float:
    """Rate of battles won in the rounds that end in a collected batch [B, T], from the actions."""
    found = []
    for copy in batch.unbind(0):
        flag = None
        for t in range(len(copy)):
            if copy["active", "battle"][t] and copy["next", "battle", "done"][t, 0]:
                flag = float(copy["battle", "action"][t, 0] == 1)
            if copy["next", "done"][t]:
                found.append(flag)
    return sum(found) / len(found)


def test_nothing_is_reported_of_a_batch_without_an_end():
    env = task_set(*SET).get_env_fun(2, False, 0, "cpu")()
    batch = env.rollout(2, break_when_any_done=False)
    assert MultiTaskClass.log_info(batch) == {}
    batch = task_set(toy("game", length=1)).get_env_fun(2, False, 0, "cpu")().rollout(3)
    assert MultiTaskClass.log_info(batch) == {}


def test_an_episode_is_the_first_of_its_rollout():
    """Evaluations go on after the end; the second episode does not count."""
    done = torch.tensor([False, True, False, True]).unsqueeze(-1)
    flags = [torch.tensor([False, first, False, True]) for first in (True, False)]
    single = [TensorDict({"next": {"done": done, "info": {"battle_won": f}}}, [4]) for f in flags]
    assert episodes_won(single, "agents").tolist() == [True, False]
    several = [
        TensorDict({"next": {"done": done, "won": {"battle": f.unsqueeze(-1)}}}, [4]) for f in flags
    ]
    assert episodes_won(several, "battle").tolist() == [True, False]
    assert episodes_won(several, "game") is None
    assert episodes_won([TensorDict({"next": {"done": done}}, [4])], "game") is None


@pytest.mark.parametrize("action", [0, 1])
def test_played_episodes_say_who_won(action):
    def always(data):
        for task in ("battle", "game"):
            shape = data[task, "action_mask"].shape[:-1]
            data.set((task, "action"), torch.full(shape, action))
        return data

    played = play(task_set(*SET), always, 9, seed=0)
    assert set(played.won) == {"battle"}
    assert played.won["battle"].tolist() == [action == 1] * 9
    assert set(played.returns) == {"battle", "game"}
    assert played.score("game").won is None
    assert played.score("battle").won.mean == action
    ends = "[0.00, 0.30]" if action == 0 else "[0.70, 1.00]"  # z^2 / (9 + z^2) = 0.299
    assert score_text(played.score("battle")).endswith(f", won {action:.2f} {ends}")


def test_a_summary_has_win_rates_where_there_are_battles(tmp_path):
    best, task = BestPolicy(), task_set(*SET)
    experiment = make_experiment(tmp_path, task, ALONE, callbacks=[best])
    summary = begin_summary(experiment, method="mkt", overrides=[])
    experiment.run()
    summary = summarise(experiment, summary, best)
    at_random = play(task, random_policy(["battle", "game"]), 500, 20_000).won["battle"]
    row = summary["tasks"]["battle"]
    assert row["random_win_rate"]["mean"] == pytest.approx(at_random.float().mean().item())
    assert 0.2 < row["random_win_rate"]["low"] < row["random_win_rate"]["high"] < 0.5
    assert {"student_win_rate", "best_win_rate"} <= row.keys()
    assert not any("win_rate" in key for key in summary["tasks"]["game"])
    metrics = experiment.logger.json_writer.run_data["absolute_metrics"]
    assert metrics["battle_win_rate"] == [pytest.approx(row["best_win_rate"]["mean"])]
    assert "game_win_rate" not in metrics
    text = StringIO()
    Console(file=text, width=250).print(comparison_table(summary))
    for who in ("random", "student", "best"):
        assert (
            "{mean:.2f} [{low:.2f}, {high:.2f}]".format(**row[f"{who}_win_rate"]) in text.getvalue()
        )
