import pytest
from benchmarl.algorithms import MappoConfig
from benchmarl.models import MlpConfig

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.files import conf_path
from benchmarl_mkt.models import MultiTaskModelConfig
from benchmarl_mkt.teams import evaluate_team, export_team, load_team
from benchmarl_mkt.teams.evaluation import play
from benchmarl_mkt.training.best_policy import BestPolicy
from tests.helpers import PUSH, SPEAKER, make_experiment, play_as_torchrl, small_model, task_set

ALONE = {"start": 1.0, "end": 1.0, "fraction": 1.0}
GRU = MultiTaskModelConfig.get_from_yaml(str(conf_path() / "model" / "multitask_gru.yaml"))


@pytest.mark.parametrize(
    ("algorithm", "model"),
    [
        (MktConfig(annealing=ALONE), small_model()),
        (MktConfig(annealing=ALONE), GRU),
        (MktConfig(annealing=ALONE), MlpConfig.get_from_yaml()),
        (MappoConfig.get_from_yaml(), small_model()),
    ],
    ids=["mkt", "recurrent", "plain trunk", "mappo"],
)
def test_a_loaded_team_plays_as_the_experiments_policy(algorithm, model, tmp_path):
    experiment = make_experiment(tmp_path, task_set(PUSH, SPEAKER), algorithm, model, lr=0.1)
    experiment.run()
    path = export_team(experiment, experiment.folder_name / "team")
    team = load_team(tmp_path)  # the one team below the folder
    assert list(team) == ["simple_push", "simple_speaker_listener"]
    found = evaluate_team(team, 12, seed=3)
    expected = play_as_torchrl(experiment, 12, seed=3).returns
    for task, scores in found.items():
        mean = scores["team"].returns.mean
        assert mean == pytest.approx(expected[task].mean().item(), rel=1e-5)
        assert scores["team"].won is None
    assert load_team(path).keys() == team.keys()


def test_the_best_policy_can_be_exported(tmp_path):
    best = BestPolicy()
    experiment = make_experiment(
        tmp_path,
        task_set(PUSH),
        MktConfig(annealing=ALONE, lmbda=0.0),
        callbacks=[best],
        lr=0.1,
        max_n_frames=300,
    )
    experiment.run()

    def mean_return():
        return play(experiment.task, experiment.policy, 12, 3).returns["simple_push"].mean().item()

    final = mean_return()
    with best.in_use():
        export_team(experiment, tmp_path / "team")
        expected = mean_return()
    assert final != expected
    found = evaluate_team(load_team(tmp_path / "team"), 12, seed=3)
    assert found["simple_push"]["team"].returns.mean == pytest.approx(expected, rel=1e-5)
    assert mean_return() == final


def test_a_team_of_before_is_replaced_and_a_student_teaches(tmp_path):
    experiment = make_experiment(tmp_path, task_set(PUSH), MktConfig(annealing=ALONE))
    experiment.run()
    (tmp_path / "team" / "other").mkdir(parents=True)
    path = export_team(experiment, tmp_path / "team")
    assert [entry.name for entry in path.iterdir()] == ["simple_push"]
    pupil = MktConfig(teachers={"simple_push": str(path / "simple_push")})
    make_experiment(tmp_path, task_set(PUSH), pupil).run()


def test_one_team_must_be_meant(tmp_path):
    with pytest.raises(ValueError, match=r"^checkpoint: no team in .*finished"):
        load_team(tmp_path)
    experiment = make_experiment(tmp_path, task_set(PUSH), MktConfig(annealing=ALONE))
    for run in ("one", "two"):
        export_team(experiment, tmp_path / run / "team")
    with pytest.raises(ValueError, match=r"^checkpoint: 2 teams: .*one/team, .*two/team in"):
        load_team(tmp_path)
    assert set(load_team(tmp_path / "one")) == {"simple_push"}
    experiment.close()
