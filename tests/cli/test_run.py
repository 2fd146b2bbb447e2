import json

import pytest
import yaml

import benchmarl_mkt
from benchmarl_mkt.cli import VERBS, usage
from benchmarl_mkt.reporting.runs import read_runs
from benchmarl_mkt.training import machine
from tests.conftest import write_tiny_experiment
from tests.helpers import REPOSITORY, command, hydra_overrides

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
    assert out.startswith(f"usage: benchmarl {verb} ")
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
        "error: teachers: argument action: invalid choice: 'sing' (choose from 'train', "
        "'import', 'list', 'show', 'verify'); see benchmarl teachers -h\n",
    )
    assert cli("resume")[::2] == (
        2,
        "error: resume: the following arguments are required: FOLDER; see benchmarl resume -h\n",
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
        f"algorithm.teacher.experiment={experiment}", *hydra_overrides(tmp_path),
    )  # fmt: skip
    found = command(*arguments, cwd=tmp_path, store=own_store)
    assert found.returncode == 0, found.stderr[-3000:]
    assert "Training 1 teachers: simple_push" in found.stdout
    assert "mkt on multitask/custom_simple_push" in found.stdout
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
    arguments = ("-m", "benchmarl_mkt.cli", "evaluate", str(tmp_path), "--episodes", "7")
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


EXAMPLES = str(REPOSITORY / "docs" / "examples")
MIXED = ("+set=mixed", "algorithm=mkt", "seed=3")


@pytest.mark.parametrize("verb", [("run",), ("teachers", "train")], ids="-".join)
@pytest.mark.parametrize(
    "flags",
    [
        ("--cfg", "job"),
        ("--cfg=job", "--config-dir", EXAMPLES),
        ("-c", "job", "-cd", EXAMPLES, "--package", "model"),
        ("-p", "model", f"--config-dir={EXAMPLES}", "-c=job", "--resolve"),
        ("--info", "defaults", "-cd", EXAMPLES),
    ],
    ids=" ".join,
)
def test_hydras_flags_stand_anywhere(verb, flags, cli):
    overrides = MIXED if EXAMPLES in " ".join(flags) else ("task=multitask/mpe", *MIXED[1:])
    cut = len(overrides) - 1
    status, expected, error = cli(*verb, *overrides, *flags)
    assert (status, error) == (0, "")
    if "job" in " ".join(flags):
        content = yaml.safe_load(expected)
        assert content.get("model", content)["name"] == "multitask"
    for arguments in ((*flags, *overrides), (*overrides[:cut], *flags, *overrides[cut:])):
        assert cli(*verb, *arguments) == (0, expected, "")


def test_hydras_own_help(cli):
    status, out, error = cli("run", "--hydra-help")
    assert (status, error, "--config-dir" in out) == (0, "", True)


def test_a_sweep_begins_with_its_flag(cli, tmp_path):
    sweep = ("-m", *CUSTOM, SHORT, "seed=0,1", *hydra_overrides(tmp_path)[1:])
    _, out, _ = cli("run", *sweep, ALONE)
    assert out.count("Team of the ") == 2
    found = [json.loads(path.read_text()) for path in tmp_path.glob("mkt_custom_*/summary.json")]
    assert sorted(summary["seed"] for summary in found) == [0, 1]


ALONE = "algorithm.annealing={start: 1, end: 1, fraction: 1}"
NO_EVALUATIONS = "No evaluations, so no best checkpoint: experiment.evaluation is false, or neither"


@pytest.mark.parametrize(
    ("settings", "evaluates", "draws"),
    [
        (("create_json=false", "loggers=[csv]"), True, False),
        (("create_json=false", "loggers=[]"), False, False),
        (("evaluation=false", "loggers=[csv]"), False, False),
        (("create_json=true", "loggers=[]"), True, True),
    ],
    ids=str,
)
def test_a_run_that_keeps_less_is_finished_too(cli, tmp_path, settings, evaluates, draws):
    changes = (f"experiment.{setting}" for setting in settings)
    arguments = (*hydra_overrides(tmp_path), *CUSTOM, SHORT, ALONE, *changes)
    status, out, error = cli("run", *arguments)
    assert status == 0, error
    (folder,) = tmp_path.glob("mkt_custom_*/")
    assert out.count(NO_EVALUATIONS) == (not evaluates)
    assert (folder / "learning_curves.png").exists() == ("Picture: " in out) == draws
    what = "best checkpoint" if evaluates else "final policy"
    assert f"Team of the {what}: {folder / 'team'}\n" in out
    assert (folder / "team" / "simple_push" / "teacher.json").is_file()
    assert json.loads((folder / "summary.json").read_text())["finished"]
    assert cli("run", *arguments)[1] == f"Finished already: {tmp_path}\n"


def test_threads_are_chosen_once_and_kept(cli, tmp_path, monkeypatch):
    """By the size of minibatches, for a run that is alone; else by the user or by the record."""
    monkeypatch.setattr(machine, "ROWS", 200)  # of two agents, 100 steps each
    monkeypatch.setattr(machine, "_cores", lambda: 2)
    more = ["experiment.evaluation=false", "task.final_episodes=10"]

    def noted(name: str, *arguments: str) -> int:
        overrides = [o for o in hydra_overrides(tmp_path / name) if "hydra" not in o]
        given = [*CUSTOM, SHORT, ALONE, *overrides, *more, *arguments]
        status, _, error = cli("run", *given)
        assert status == 0, error
        (record,) = (tmp_path / name).glob("**/run.json")
        return json.loads(record.read_text())["threads"]

    def folder(name: str) -> str:
        return f"hydra.run.dir={tmp_path / name}"

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert noted("user", folder("user")) == 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert noted("alone", folder("alone")) == 2
    assert noted("sweep", "-m", f"hydra.sweep.dir={tmp_path / 'sweep'}") == 1
    record = tmp_path / "user" / "run.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "finished": False}))
    assert noted("user", folder("user")) == 1


WANDB = """
class UsageError(Exception):
    pass

def login():
    raise UsageError("No API key configured.\\nUse `wandb login` to log in.")

def init(**settings):
    raise UsageError("cannot begin\\n" + settings["project"])
"""


def test_a_logger_that_refuses_is_one_line(tmp_path, own_store):
    """Stood in for: the errors are those of wandb, which is none of the extras.

    Where it can tell, nothing has been trained yet.
    """
    (tmp_path / "wandb.py").write_text(WANDB)
    arguments = (
        *("-m", "benchmarl_mkt.cli", "run", *hydra_overrides(tmp_path), *CUSTOM, SHORT),
        *("experiment.loggers=[csv,wandb]", f"hydra.run.dir={tmp_path / 'run'}"),
    )
    for more, message in (
        ((), "experiment.loggers: wandb cannot log in (No API key configured. Use `wandb login` to "
             "log in.); run wandb login, set WANDB_MODE=offline, or use experiment.loggers=[csv]"),
        ((ALONE, "+experiment.wandb_extra_kwargs.mode=offline"),
         "experiment.loggers: cannot be set up (UsageError: cannot begin benchmarl); use "
         "experiment.loggers=[csv], or mend it"),
        (("+experiment.wandb_extra_kwargs={mode: offline, project: x}",),
         "wandb_extra_kwargs.project (x) is different from the project_name (benchmarl)"),
    ):  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(tmp_path))
            found = command(*arguments, *more, cwd=tmp_path, store=own_store)
        assert found.returncode == 2
        (line,) = found.stderr.splitlines()
        assert line.startswith(f"error: {message}")
        assert not own_store.exists()


def test_wandb_itself_refuses_in_one_line(tmp_path, own_store, monkeypatch):
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    logged = ("-m", "benchmarl_mkt.cli", "run", *hydra_overrides(tmp_path), *CUSTOM, SHORT, ALONE)
    logged += ("experiment.loggers=[csv,wandb]",)
    found = command(*logged, cwd=tmp_path, store=own_store)
    assert found.returncode == 2
    assert found.stderr.splitlines()[-1].startswith(
        "error: experiment.loggers: wandb cannot log in"
    )
    assert "Traceback" not in found.stderr
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert command(*logged, cwd=tmp_path, store=own_store).returncode == 0


def test_what_a_folder_of_ones_own_adds_is_checked(cli, tmp_path):
    """As the package's own files are, before anything is begun."""
    for arguments, message in (
        (("+set=mixd", "-cd", EXAMPLES), "error: set: there is no 'mixd'; did you mean mixed?\n"),
        ((*MIXED, "task.lr=3", "-cd", EXAMPLES), "error: task.lr: unknown key; there are agent_id"),
        ((*MIXED, "-cd", "nowhere"), "error: Additional config directory"),
    ):
        status, out, error = cli("run", *arguments)
        assert (status, out, error[: len(message)]) == (2, "", message)
        assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_presets_of_the_teachers_lie_on_the_search_path(cli, tmp_path, own_store, monkeypatch):
    """One's own are found as Hydra finds them, and the teacher's key is that of their values."""
    own = tmp_path / "own"
    for group in ("experiment", "model"):
        (own / group).mkdir(parents=True)
    write_tiny_experiment(own / "experiment").rename(own / "experiment" / "base.yaml")
    (own / "experiment" / "mine.yaml").write_text("defaults: [base]\nlr: 2e-3\n")
    (own / "model" / "mine.yaml").write_text("defaults: [multitask]\nembedding_size: 8\n")
    names = [f"algorithm.teacher.{group}=mine" for group in ("experiment", "model")]
    status, _, error = cli("teachers", "train", *CUSTOM, SHORT, *names)
    assert (status, error[:43]) == (2, "error: algorithm.teacher.experiment: there ")
    (own / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for where in ("--config-dir=own", f"hydra.searchpath=[file://{own}]", "-cd=own",
                  "hydra.searchpath=[pkg://own]"):  # fmt: skip
        status, out, error = cli("teachers", "train", where, *CUSTOM, SHORT, *names)
        assert status == 0, error
        assert ("Training 1 teachers" in out) == (where == "--config-dir=own")
    (teacher,) = own_store.glob("mpe-simple-push-*/teacher.json")
    assert json.loads(teacher.read_text())["model"]["embedding_size"] == 8
    names = [f"algorithm.teacher.{g}={own / g / 'mine.yaml'}" for g in ("experiment", "model")]
    assert "Training" not in cli("teachers", "train", *CUSTOM, SHORT, *names)[1]
    (own / "model" / "mine.yaml").write_text("name: multitask\nactivation_class: os.mkdir\n")
    status, _, error = cli("teachers", "train", "-cd", "own", *CUSTOM, SHORT, *names)
    assert (status, error.count("\n")) == (2, 1)
    assert "algorithm.teacher.model: " in error


def test_the_version_is_a_version():
    assert benchmarl_mkt.__version__.count(".") == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "evaluate: the following arguments are required: FOLDER"),
        (["x", "y"], "evaluate: unrecognized arguments: y"),
        (["x", "--episode-s=3"], "evaluate: unrecognized arguments: --episode-s=3"),
        (["x", "--episodes=0"], "argument --episodes: '0' must be a whole number from 1 to"),
        (["x", "--seed=-1"], "argument --seed: '-1' must be a whole number from 0 to"),
        (["/nowhere"], "checkpoint: no team in /nowhere"),
    ],
)
def test_wrong_evaluations_are_refused_in_one_line(options, message, cli):
    status, _, err = cli("evaluate", *options)
    assert status == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
