import json

import pytest
import yaml

import benchmarl_mkt
from benchmarl_mkt.cli import VERBS, usage
from benchmarl_mkt.reporting.runs import read_runs
from tests.conftest import write_tiny_experiment
from tests.helpers import command, hydra_overrides

CUSTOM = ("task=multitask/custom", "algorithm=mkt")
SHORT = "task.tasks=[{task: mpe/simple_push, config: {max_cycles: 5}}]"


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_usage(cli, arguments):
    assert cli(*arguments) == (0, usage(), "")
    assert all(f"\n  {verb} " in usage() for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb, cli):
    status, out, error = cli(verb, "--help")
    assert (status, error) == (0, "")
    assert out.startswith(f"Usage: benchmarl {verb}")
    example = out[out.index("Example") :].splitlines()[1]
    assert example.startswith(f"  benchmarl {verb} ")


def test_the_package_runs_as_a_program(tmp_path, own_store):
    found = command("-m", "benchmarl_mkt.cli", cwd=tmp_path, store=own_store)
    assert (found.returncode, found.stdout, found.stderr) == (0, usage(), "")


def test_unknown_commands(cli):
    status, out, error = cli("dance")
    assert (status, out) == (2, "")
    assert error == "error: command: 'dance' is unknown; see benchmarl -h\n"
    assert cli("teachers", "sing")[::2] == (
        2,
        "error: teachers: 'sing' given; choose train, list, show TEACHER or verify\n",
    )
    assert cli("resume")[::2] == (
        2,
        "error: resume: 'nothing' given; usage: benchmarl resume FOLDER\n",
    )


def test_the_installed_module_exits_with_2(tmp_path, own_store):
    found = command(
        "-m", "benchmarl_mkt.cli", "run", *CUSTOM, "task.tasks=[]", f"hydra.run.dir={tmp_path}",
        cwd=tmp_path, store=own_store,
    )  # fmt: skip
    assert found.returncode == 2
    assert found.stderr.strip().splitlines()[-1].startswith("error: tasks: the task set is empty")
    assert found.stderr.count("error:") == 1


def test_the_store_is_listed(cli, teachers, monkeypatch):
    monkeypatch.setenv("BENCHMARL_MKT_STORE", str(teachers.store))
    status, out, _ = cli("teachers", "list")
    assert status == 0
    for path in teachers.paths.values():
        assert path.name in out
        score = json.loads((path / "teacher.json").read_text())["score"]
        assert f"{score['mean']:.2f}" in out
    assert str(teachers.store) in out.replace("\n", "")


def test_a_run_trains_missing_teachers_and_compares(tmp_path, own_store):
    """The whole job: teacher, student, table, picture, summary; then nothing is trained again."""
    experiment = write_tiny_experiment(tmp_path)
    arguments = (
        "-m", "benchmarl_mkt.cli", "run", *CUSTOM, SHORT,
        f"algorithm.teacher_experiment={experiment}", *hydra_overrides(tmp_path),
    )  # fmt: skip
    found = command(*arguments, cwd=tmp_path, store=own_store)
    assert found.returncode == 0, found.stderr[-3000:]
    assert "Training 1 teachers: simple_push" in found.stdout
    assert "mkt on multitask/custom, seed 0" in found.stdout
    (summary,) = tmp_path.glob("mkt_custom_*/summary.json")
    row = json.loads(summary.read_text())["tasks"]["simple_push"]
    assert row["frames"] == 100
    assert row["teacher_frames"] == 100
    for who in ("random", "teacher", "student"):
        assert row[who]["low"] <= row[who]["mean"] <= row[who]["high"]
        assert f"{row[who]['mean']:.2f}" in found.stdout
    assert (summary.parent / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(own_store.glob("mpe-simple-push-*/teacher.json"))) == 1
    assert f"Team of the best checkpoint: {summary.parent / 'team'}" in found.stdout
    arguments = ("-m", "benchmarl_mkt.cli", "evaluate", f"checkpoint={tmp_path}", "episodes=7")
    shown = command(*arguments, cwd=tmp_path, store=own_store)
    assert shown.returncode == 0, shown.stderr[-3000:]
    assert "simple_push" in shown.stdout
    assert "same 7 fresh" in shown.stdout
    (read,), damaged = read_runs([summary.parent])
    assert (read.method, read.finished, read.frames) == ("mkt", True, 100)
    assert (read.problems, damaged) == ((), [])
    push = read.tasks["simple_push"]
    assert push.means == {who: row[who]["mean"] for who in push.means}
    assert {"random", "teacher", "student", "best"} <= set(push.means)
    assert (push.frames, push.teacher_frames, list(push.curve[0])) == (100, 100, [50, 100])


def test_hydras_own_flags_work(cli):
    status, out, error = cli("run", "algorithm=mkt", "task=multitask/mpe", "--cfg", "job")
    assert (status, error) == (0, "")
    assert yaml.safe_load(out)["model"]["name"] == "multitask"


def test_the_version_is_a_version():
    assert benchmarl_mkt.__version__.count(".") == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "usage: benchmarl evaluate checkpoint=FOLDER"),
        (["somewhere"], "usage: benchmarl evaluate checkpoint=FOLDER"),
        (["checkpoint=x", "episode=3"], "usage: benchmarl evaluate checkpoint=FOLDER"),
        (["checkpoint=x", "episodes=0"], "episodes: '0' must be a whole number from 1 to"),
        (["checkpoint=x", "seed=-1"], "seed: '-1' must be a whole number from 0 to"),
        (["checkpoint=/nowhere"], "checkpoint: no team in /nowhere"),
    ],
)
def test_wrong_evaluations_are_refused_in_one_line(options, message, cli):
    status, _, err = cli("evaluate", *options)
    assert status == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
