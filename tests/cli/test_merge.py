"""One team out of experts that are there, by one command."""

import json
import shutil

import pytest
import yaml

from benchmarl_mkt.cli.jobs import as_override
from benchmarl_mkt.presets import compose_config
from benchmarl_mkt.teachers.imports import import_run
from benchmarl_mkt.teams import load_team
from benchmarl_mkt.teams.folder import METADATA, WEIGHTS, checksum
from benchmarl_mkt.training.forecast import Forecast
from tests.helpers import TINY
from tests.stock import stock_run

BUDGET = [f"experiment.{key}={str(value).lower()}" for key, value in TINY.items()]
SHORT = "task.max_steps=6"


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    """Runs of stock BenchMARL: four agents by MAPPO, two by IQL."""
    folder = tmp_path_factory.mktemp("experts")
    tag = stock_run(folder / "tag", "algorithm=mappo", "task=vmas/simple_tag", SHORT)
    given = ("algorithm=iql", "task=vmas/navigation", SHORT, "task.n_agents=2")
    return tag, stock_run(folder / "walk", *given, model="layers/gru")


def test_one_command_from_experts_to_a_team(experts, cli, tmp_path, monkeypatch):
    monkeypatch.setattr(Forecast.__init__, "__defaults__", (0.0,))
    tag, walk = experts
    budget = [*BUDGET, "task.final_episodes=20"]
    status, out, error = cli("merge", str(tag), str(walk), "out=runs/one", *budget)
    assert status == 0, error
    assert "algorithm.mixer=vdn" in out
    assert "mappo" in out
    assert "iql" in out
    run = tmp_path / "runs" / "one"
    assert "] - 100 frames of each task: about " in (run / "run.log").read_text()
    (summary,) = run.glob("*/summary.json")
    rows = json.loads(summary.read_text())["tasks"]
    assert set(rows) == {"simple_tag", "navigation"}
    assert all({"teacher", "student", "random"} <= set(row) for row in rows.values())
    team = load_team(run)
    assert [team[task].specs.n_agents for task in ("simple_tag", "navigation")] == [4, 2]
    (entry,) = team["navigation"].metadata["task"]["tasks"]
    assert entry["config"] == {"max_steps": 6, "n_agents": 2}
    assert "Finished already" in cli("resume", str(run))[1]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere", "out=one"], "import: no weights in nowhere"),
        (["nowhere"], "one folder, out=FOLDER"),
        (["out=one"], "name the experts' runs"),
        (["push.onnx", "out=one"], "does not say its task"),
        (["push.onnx:mpe/simple_push", "out=one"], "there is no file push.onnx"),
    ],
)
def test_what_is_refused(cli, tmp_path, arguments, reason):
    status, out, error = cli("merge", *arguments)
    assert (status, out) == (2, "")
    assert reason in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("experiment.max_n_frame=100", "did you mean max_n_frames"),
        ("experiment.lr=0", "experiment.lr: 0.0 must be above 0"),
        ("algorithm.mixr=vdn", "algorithm.mixr: unknown key"),
        ("algorithm=qmix", "algorithm: merge trains a student of mkt; leave algorithm=qmix out"),
    ],
)
def test_a_wrong_override_is_told_before_anybody_plays(
    experts, cli, own_store, tmp_path, override, reason
):
    status, _, error = cli("merge", *map(str, experts), "out=runs/one", override)
    assert status == 2
    assert reason in error
    assert not own_store.exists()
    assert not (tmp_path / "runs").exists()


def test_hydras_flags(experts, cli, own_store, tmp_path):
    """The configuration is shown, nothing is played."""
    status, out, _ = cli("merge", str(experts[1]), "out=runs/one", "--cfg", "job", "-p", "task")
    assert status == 0
    assert "vmas/navigation" in out
    assert "seed" not in out
    assert not own_store.exists()
    assert not (tmp_path / "runs").exists()


def test_what_is_chosen_unless_it_is_given(experts, cli, tmp_path):
    """The schedule that was measured best, and what the experts' sizes and layouts ask for."""
    given = ("algorithm=ippo", "task=mpe/simple_spread", "task.max_cycles=6")
    spread = str(stock_run(tmp_path / "spread", *given))

    def chosen(*arguments):
        status, out, error = cli("merge", *arguments, "out=runs/one", "--cfg", "job")
        assert status == 0, error
        return yaml.safe_load(out[out.index("experiment:") :]), out

    config, out = chosen(spread)
    assert config["algorithm"]["annealing"] == {"start": 0.0, "end": 0.0, "fraction": 1.0}
    assert config["algorithm"]["mixer"] == "qmix"
    assert config["experiment"]["off_policy_n_envs_per_worker"] == 32
    assert config["model"]["name"] == "multitask_entity"
    assert "All describe their entities: model=multitask_entity" in out
    config, out = chosen(spread, str(experts[0]), "experiment=mkt_10k", "algorithm.lmbda=0.5")
    assert config["algorithm"]["mixer"] == "vdn"
    assert config["algorithm"]["lmbda"] == 0.5
    assert config["experiment"]["off_policy_n_envs_per_worker"] == 10
    assert config["model"]["name"] == "multitask"
    config, out = chosen(spread, "+method=mkt", "model=multitask", "algorithm.mixer=attention")
    assert config["algorithm"]["annealing"]["end"] == 0.95
    assert config["algorithm"]["mixer"] == "attention"
    assert config["model"]["name"] == "multitask"
    assert "model=" not in out
    config, out = chosen(spread, str(experts[0]), "+method=mkt_smax")  # chooses for itself
    assert config["algorithm"]["mixer"] == "vdn_s"
    assert "Teams of different sizes" not in out
    config, _ = chosen(spread, "+method=mkt")
    assert config["model"]["name"] == "multitask"


def test_experts_of_one_task_are_refused(experts, cli, tmp_path):
    path = import_run(experts[0])
    status, _, error = cli("merge", str(experts[0]), str(path), "out=one")
    assert status == 2
    assert "'simple_tag' is in the set twice" in error
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize(
    "value",
    [
        {"task": "vmas/balance", "config": {"n": 3, "x": 1.5, "y": True, "z": None, "l": [1, [2]]}},
        "a b, c: {d}",
        "true",
        "3",
        "it's",
        'say "so"',
        "/a/path-1.2/x_y~",
        "/home/jürgen/x",
        "end\\",
        'a\\"b',
        [],
        {},
    ],
)
def test_hydra_reads_what_is_written_for_it(value):
    cfg = compose_config(["algorithm=mkt", "task=multitask/mpe", f"+extra={as_override(value)}"])
    assert cfg.extra == value


@pytest.mark.parametrize("value", [{"a: own:act, b": 1}, {"a b": 1}, {"": 1}, "${oc.env:HOME}"])
def test_what_would_mean_something_else_is_refused(value):
    with pytest.raises(ValueError, match="cannot be a"):
        as_override(value)


def test_a_teachers_folder_names_no_function(experts, cli, tmp_path, monkeypatch):
    """Its name of the task would be read as two teachers, one of them a function's."""
    mark = tmp_path / "mark"
    (tmp_path / "own_policy.py").write_text(f"open({str(mark)!r}, 'w')\ndef act(o): return o\n")
    path = tmp_path / "expert"
    shutil.copytree(import_run(experts[0]), path)
    data = json.loads((path / METADATA).read_text())
    data["task"]["tasks"][0]["name"] = "a: own_policy:act, simple_tag"
    data["checksum"] = checksum(path / WEIGHTS, data)
    (path / METADATA).write_text(json.dumps(data))
    status, _, error = cli("merge", str(path), "out=one")
    assert status == 2
    assert "cannot be a key" in error
    assert not mark.exists()
    assert not (tmp_path / "one").exists()
