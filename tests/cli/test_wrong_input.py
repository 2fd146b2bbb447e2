"""Wrong command lines: status 2, one line with key, value and remedy, and nothing left behind."""

import shutil

import pytest

from benchmarl_mkt.presets import experiment_preset
from tests.conftest import write_tiny_experiment
from tests.helpers import command, hydra_overrides
from tests.reporting.results import evaluations, summary, write_run

PUSH = "{task: mpe/simple_push, config: {max_cycles: 5}}"
SET = ("algorithm=mkt", "task=multitask/custom", f"task.tasks=[{PUSH}]")
EXP, ALG = "experiment.", "algorithm."


def with_set(*overrides: str) -> tuple[str, ...]:
    return (*SET, *overrides)


def of_tasks(tasks: str, *overrides: str) -> tuple[str, ...]:
    return (*SET[:2], f"task.tasks=[{tasks}]", *overrides)


def stock(*overrides: str) -> tuple[str, ...]:
    return ("algorithm=qmix", "task=mpe/simple_push", *overrides)


# The overrides after those of a good run of seconds, and parts of the line they lead to.
CHOICES = {
    "task": (("algorithm=mkt", "task=multitask/nope"), "task: there is no 'multitask/nope'; did"),
    "algorithm": (("algorithm=qmux", "task=multitask/mpe"), "algorithm: there is no 'qmux'; did"),
    "experiment": (with_set("experiment=mkt_slow"), "experiment: there is no 'mkt_slow'; there"),
    "model": (with_set("model=layers/mpl"), "model: there is no 'layers/mpl'; did you mean layers"),
    "method": (("task=multitask/mpe", "+method=mk"), "method: there is no 'mk'; did you mean mkt"),
    "schema-as-task": (
        ("algorithm=mkt", "task=vmas_balance_config"),
        "task.max_steps: has no value; set it, or choose another task",
    ),
    "schema-as-algorithm": (
        ("algorithm=qmix_config", "task=mpe/simple_push"),
        "algorithm.mixing_embed_dim: has no value; set it, or choose another algorithm",
    ),
    "no-task": (("algorithm=mkt",), "task: missing; name one, such as task=multitask/mpe"),
    "no-algorithm": (("task=multitask/mpe",), "algorithm: missing; name one, such as algorithm="),
    "no-equals-sign": (with_set("experiment.lr"), "experiment.lr: Hydra cannot read it; write key"),
    "open-bracket": (with_set("task.tasks=[a"), "task.tasks=[a: Hydra cannot read it; write key="),
    "a-list-unquoted": (with_set("experiment.loggers=csv,wandb"), "experiment.loggers=csv,wandb"),
    "loop": (with_set("seed=${seed}"), "seed: "),
    "interpolation": (with_set("seed=${nothing}"), "seed: Interpolation key 'nothing' not found"),
}
KEYS = {
    "top": (with_set("lr=3"), "lr: unknown key; there are algorithm"),
    "top-added": (with_set("+experimnt.lr=3"), "experimnt: unknown key; did you mean experiment?"),
    "algorithm": (
        with_set("algorithm.mixr=vdn"),
        "algorithm.mixr: unknown key; did you mean mixer",
    ),
    "algorithm-added": (
        with_set("+algorithm.mixr=vdn"),
        "algorithm.mixr: unknown key; did you mea",
    ),
    "algorithm-removed": (with_set("~algorithm.mixer"), "algorithm.mixer: cannot be removed; set"),
    "annealing": (
        with_set("algorithm.annealing.begin=1"),
        "algorithm.annealing.begin: unknown key",
    ),
    "annealing-added": (with_set("+algorithm.annealing.begin=1"), "algorithm.annealing: {'start'"),
    "experiment": (with_set("experiment.learning_rate=1"), "experiment.learning_rate: unknown key"),
    "experiment-added": (
        with_set("+experiment.gama=1"),
        "experiment.gama: unknown key; did you mean gamma",
    ),
    "model": (with_set("model.width=3"), "model.width: unknown key; there are embedding_size"),
    "model-added": (
        with_set("+model.width=3"),
        "model: got an unexpected keyword argument 'width'",
    ),
    "trunk-added": (with_set("+model.trunk.width=3"), "model.trunk: unknown ['width']; mlp has"),
    "task": (
        with_set("task.task=[mpe/simple_push]"),
        "task.task: unknown key; did you mean tasks?",
    ),
    "entry": (of_tasks("{task: mpe/simple_push, size: 3}"), "unknown: ['size']"),
    "entry-config": (of_tasks("{task: mpe/simple_push, config: {n: 3}}"), "no configuration ['n']"),
    "hydra": (with_set("hydra.run.dirr=x"), "hydra.run.dirr: unknown key; did you mean dir?"),
    "optimizer": (with_set("+experiment.adam_extra_kwargs.momentum=1"), "'momentum'"),
}
TYPES = {
    "text-for-number": (with_set("experiment.lr=fast"), "experiment.lr: Value 'fast'"),
    "list-for-number": (with_set("experiment.lr=[1,2]"), "experiment.lr: Value '[1, 2]'"),
    "text-for-list": (with_set("experiment.loggers=csv"), "experiment.loggers: Invalid value"),
    "text-for-flag": (with_set("task.agent_id=perhaps"), "task.agent_id: Value 'perhaps' is not"),
    "fraction-for-integer": (with_set("experiment.off_policy_memory_size=1.5"), "Value '1.5'"),
    "null": (
        with_set("experiment.gamma=null"),
        "experiment.gamma: field 'experiment.gamma' is not",
    ),
    "number-for-mapping": (with_set("algorithm.annealing=1"), "algorithm.annealing: Cannot assign"),
    "text-in-mapping": (
        with_set("algorithm.annealing.end=x"),
        "algorithm.annealing.end: Value 'x'",
    ),
    "critic": (
        stock("critic_model=multitask"),
        "critic_model: 'multitask' is no configuration; choose one: model@critic_model=NAME",
    ),
    "no-seed": (stock("~seed"), "seed: None must be an integer"),
    "no-model": (stock("~model"), "model: None is no configuration; choose one: model=NAME"),
    "no-algorithm": (stock("~algorithm"), "algorithm: None is no configuration; choose one: algo"),
    "number-as-group": (
        stock("experiment=3"),
        "experiment: a group's choice is a name; choose one",
    ),
    "null-as-group": (
        stock("task=null"),
        "task: a group's choice is a name; choose one: task=NAME",
    ),
    "layers": (stock("++model.layers=3"), "model.layers: 3 must be a mapping of models"),
    "seed": (with_set("seed=one"), "seed: 'one' must be an integer from 0"),
    "teachers": (with_set("algorithm.teachers=3"), "algorithm.teachers: 3 must be null or"),
    "teacher": (with_set("algorithm.teachers={simple_push: 3}"), "algorithm.teachers"),
    "temperature": (with_set("algorithm.temperature=hot"), "algorithm.temperature: 'hot' must be"),
    "entry": (of_tasks("3"), "tasks: the entry 3 must be a task's name"),
    "entry-config": (of_tasks("{task: mpe/simple_push, config: 3}"), "config of mpe/simple_push"),
    "entry-opponents": (of_tasks("{task: mpe/simple_push, opponents: x}"), "opponents of mpe/simp"),
    "trunk": (with_set("model.trunk=mlp"), "model.trunk: 'mlp' must be a mapping with name"),
    "embedding": (with_set("model.embedding_size=big"), "model.embedding_size: 'big' must be"),
    "cycles": (stock("task.max_cycles=many"), "max_cycles: 'many' must be an integer"),
}
RANGES = {
    **{
        f"{key}={value}": (with_set(f"{key}={value}"), f"{key}: ")
        for key, value in (
            (f"{EXP}lr", "0"),
            (f"{EXP}lr", "nan"),
            (f"{EXP}lr", "-1"),
            (f"{EXP}gamma", "1.5"),
            (f"{EXP}gamma", "nan"),
            (f"{EXP}adam_eps", "-1"),
            (f"{EXP}clip_grad_val", "inf"),
            (f"{EXP}exploration_eps_init", "2"),
            (f"{EXP}exploration_anneal_frames", "0"),
            (f"{EXP}hard_target_update_frequency", "0"),
            (f"{EXP}max_n_frames", "0"),
            (f"{EXP}off_policy_n_envs_per_worker", "0"),
            (f"{EXP}off_policy_n_optimizer_steps", "0"),
            (f"{EXP}off_policy_train_batch_size", "-800"),
            (f"{EXP}off_policy_collected_frames_per_batch", "0"),
            (f"{EXP}evaluation_episodes", "0"),
            (f"{EXP}evaluation_interval", "-50"),
            (f"{EXP}checkpoint_interval", "-1"),
            (f"{ALG}temperature", "nan"),
            (f"{ALG}temperature", "-1"),
            (f"{ALG}mixing_embed_dim", "0"),
            (f"{ALG}hysteresis", "2"),
            (f"{ALG}mixer", "qmux"),
            (f"{ALG}update", "random"),
            (f"{ALG}teacher.seed", "-1"),
            ("model.embedding_size", "0"),
            ("model.trunk.name", "cnn"),
            ("seed", "-1"),
            ("seed", "4294967296"),
        )
    },
    "annealing.start=nan": (with_set("algorithm.annealing.start=nan"), "annealing.start: nan"),
    "annealing.fraction=0": (with_set("algorithm.annealing.fraction=0"), "annealing.fraction: 0"),
    "max_cycles=0": (stock("task.max_cycles=0"), "max_cycles: 0 must be an integer of at least 1"),
    "reward": (with_set("task.reward=max"), "reward: 'max' must be one of ('sum', 'mean')"),
    "keep": (with_set("experiment.keep_checkpoints_num=0"), "experiment.keep_checkpoints_num must"),
    "only": (with_set("task.only=push"), "only: 'push' is not in the task set; it has"),
    "trunk-cells": (with_set("model.trunk.num_cells=[-3]"), "experiment: cannot be set up"),
    "stock-lr": (stock("experiment.lr=-1"), "experiment.lr: -1.0 must be above 0, and finite"),
}
COMBINATIONS = {
    "bare-task": (("algorithm=mkt", "task=mpe/simple_push"), "use task=multitask/custom 'task.tas"),
    "no-tasks": (of_tasks(""), "tasks: the task set is empty; name at least one"),
    "unknown-task": (of_tasks("mpe/simple_pusch"), "tasks: unknown task 'mpe/simple_pusch'; did"),
    "set-in-set": (of_tasks("multitask/mpe"), "tasks: unknown task 'multitask/mpe'; did you mean"),
    "twice": (of_tasks(f"{PUSH},{PUSH}"), "tasks: 'simple_push' is in the set twice; remove one"),
    "continuous-task": (of_tasks("toy/continuous"), "continuous actions only; choose tasks with"),
    "continuous-algorithm": (
        ("algorithm=maddpg", *SET[1:]),
        "is not compatible with the action space of task",
    ),
    "team-sizes": (
        of_tasks("vmas/balance,mpe/simple_push"),
        "use algorithm.mixer=vdn or attention",
    ),
    "opponent": (
        of_tasks("{task: mpe/simple_adversary, opponents: {adversary: fox}}"),
        "opponents: no policy 'fox'; give a .safetensors file or one of: simple_adversary_chaser",
    ),
    "opponents-for-all": (
        of_tasks("{task: mpe/simple_push, opponents: {adversary: a, agent: b}}"),
        "opponents: of task 'simple_push' must be some, not all, of its groups",
    ),
    "opponent-of-nobody": (
        of_tasks("{task: mpe/simple_push, opponents: {wolf: simple_adversary_chaser}}"),
        "must be some, not all, of its groups ['adversary', 'agent'], got ['wolf']",
    ),
    "opponent-of-another-size": (
        of_tasks("{task: mpe/simple_push, opponents: {agent: simple_adversary_chaser}}"),
        "opponents: 'simple_adversary_chaser' maps 8 observations to 5 actions, but group 'agent'",
    ),
    "evaluation-interval": (
        with_set("experiment.evaluation_interval=30"),
        "(30) is not a multiple",
    ),
    "checkpoint-interval": (
        with_set("experiment.checkpoint_interval=30"),
        "(30) is not a multiple",
    ),
    "environments": (with_set(f"{EXP}off_policy_n_envs_per_worker=3"), "choose a divisor"),
    "environments-of-stock": (stock(f"{EXP}off_policy_n_envs_per_worker=3"), "choose a divisor"),
    "memory": (with_set(f"{EXP}off_policy_memory_size=99"), "99 frames are less than a training b"),
    "batch": (with_set(f"{EXP}off_policy_train_batch_size=110"), "choose a multiple, such as 125"),
    "minibatch": (
        ("algorithm=mappo", *SET[1:], f"{EXP}on_policy_minibatch_size=51"),
        "experiment.on_policy_minibatch_size: 51 is more than the 50 frames",
    ),
    "no-end": (with_set(f"{EXP}max_n_frames=null"), "max_n_frames and max_n_iters are both not"),
    "shared": (with_set(f"{EXP}share_policy_params=false"), "experiment.share_policy_params: must"),
    "priorities": (
        with_set(f"{EXP}off_policy_use_prioritized_replay_buffer=true"),
        "must be False",
    ),
    "disk": (
        with_set(f"{EXP}buffer_device=disk"),
        "experiment.buffer_device: disk is not supported",
    ),
    "logger": (with_set(f"{EXP}loggers=[paper]"), "experiment.loggers: 'paper' is not one of"),
    "logger-missing": (
        with_set(f"{EXP}loggers=[mlflow]"),
        "experiment.loggers: mlflow is not inst",
    ),
    "device": (with_set(f"{EXP}train_device=gpu"), "experiment.train_device: 'gpu' cannot be used"),
    "no-such-device": (with_set(f"{EXP}train_device=cuda:99"), "'cuda:99' cannot be used"),
    "save-folder": (with_set(f"{EXP}save_folder=/nowhere"), "save_folder: there is no folder /now"),
    "restore-file": (with_set(f"{EXP}restore_file=/nowhere.pt"), "restore_file: there is no file"),
    "foreign-teacher": (with_set(f"+{ALG}teachers.simple_tag=x"), "algorithm.teachers: ['simple_t"),
    "no-teacher": (with_set(f"+{ALG}teachers.simple_push=/nowhere"), "there is no teacher in /now"),
    "teacher-preset": (
        with_set(f"{ALG}teacher.experiment=mkt_slow"),
        "algorithm.teacher.experiment: there is no experiment 'mkt_slow'; use one of",
    ),
    "teacher-model": (with_set(f"{ALG}teacher.model=bert"), "no model 'bert'; use one of"),
    "teacher-free": (with_set(f"{ALG}teacher.algorithm.mixer=vdn"), "put a + before it"),
    "teacher-algorithm": (with_set(f"+{ALG}teacher.algorithm.lr=3"), "unknown ['lr']; it may set"),
    "teacher-mixer": (with_set(f"+{ALG}teacher.algorithm.mixer=qmux"), "'qmux' must be one of"),
    "run-under-a-file": (
        with_set("hydra.run.dir=/dev/null/run"),
        "hydra.run.dir: cannot write to /de",
    ),
    "store-under-a-file": (with_set(f"{ALG}teacher.store=/dev/null/store"), "/dev/null is a file"),
}
GROUPS = {
    "choice": CHOICES, "key": KEYS, "type": TYPES, "range": RANGES, "combination": COMBINATIONS
}  # fmt: skip
TABLE = [
    pytest.param(overrides, message, id=f"{group}:{name}")
    for group, cases in GROUPS.items()
    for name, (overrides, message) in cases.items()
]


@pytest.fixture
def refused(cli, tmp_path, own_store):
    """Call the command with what is wrong: the one line that it says."""
    before = set(tmp_path.iterdir())

    def call(*arguments: str) -> str:
        before.update(tmp_path.iterdir())
        status, out, error = cli(*arguments)
        assert status == 2, error or out
        (line,) = error.splitlines()
        assert line.startswith("error: ")
        assert set(tmp_path.iterdir()) == before, "something is left behind"
        assert not list(own_store.glob("[!.]*"))
        return line

    return call


def tiny(folder) -> list[str]:
    """A good run of seconds; its results would be in ``folder``, Hydra's in ``outputs``."""
    return [text for text in hydra_overrides(folder) if not text.startswith("hydra.run.dir")]


@pytest.mark.parametrize(("overrides", "message"), TABLE)
def test_wrong_runs_are_refused(refused, tmp_path, overrides, message):
    assert message in refused("run", *tiny(tmp_path), *overrides)


def test_every_job_of_a_sweep_is_looked_at_before_the_first(refused, tmp_path):
    sweep = (*tiny(tmp_path), *SET, "algorithm.mixer=vdn,none", "-m")
    (tmp_path / "multirun").mkdir()  # where Hydra notes what was asked for
    assert "experiment: there is no 'mkt_slow'" in refused(
        "run", *sweep, "experiment=mkt_quick,mkt_slow"
    )
    assert "experiment.lr: Value 'fast'" in refused("run", *sweep, "experiment.lr=0.1,fast")
    assert {path.name for path in tmp_path.rglob("multirun/*/*/*")} == {"multirun.yaml"}


PRESETS = {
    "lr: [": "cannot read",
    "lr: fast": "algorithm.teacher.experiment.lr: Value 'fast' of type 'str'",
    "learning_rate: 3": "Key 'learning_rate' not in",
    "- lr": "Cannot merge",
    "3: 4": "Key '3' not in",
    "defaults: 3": "defaults must be a list",
    "defaults: [PATH]": "there is no experiment",
    "defaults: [mkt_slow]": "there is no experiment 'mkt_slow'",
    "lr: 0": "algorithm.teacher.experiment.lr: 0.0 must be above 0, and finite",
    "max_n_frames: null": "max_n_frames and max_n_iters are both not set",
    "off_policy_train_batch_size: 51": "choose a multiple, such as 75",
    "adam_extra_kwargs: {speed: 3}": "algorithm.teacher.experiment: cannot be set up (TypeError",
    "loggers: [paper]": "loggers: 'paper' is not one of",
    "lr: !!python/object/apply:os.mkdir [made]": "cannot read",
    "\x00": "cannot read",
}


@pytest.mark.parametrize("text", PRESETS)
def test_wrong_presets_of_the_teachers_are_refused(refused, tmp_path, own_store, text):
    path = write_tiny_experiment(tmp_path)
    wrong = text.replace("PATH", str(path))
    kept = [line for line in path.read_text().splitlines() if line.split(":")[0] not in wrong]
    path.write_text("\n".join([wrong, *(kept if ": " in wrong else [])]))
    if "adam" in wrong:  # told by the process that would train, which locks the store
        own_store.mkdir()
    line = refused("run", *tiny(tmp_path), *SET, f"{ALG}teacher.experiment={path}")
    assert "algorithm.teacher.experiment" in line
    assert PRESETS[text] in line


def test_a_number_that_yaml_reads_as_a_text_is_a_number(tmp_path):
    path = write_tiny_experiment(tmp_path)
    path.write_text("lr: 1e-3\nclip_grad_val: 10\n")
    preset = experiment_preset(str(path))
    assert (preset.lr, type(preset.clip_grad_val)) == (0.001, float)


def test_damaged_teachers_stop_a_run(refused, teachers, tmp_path):
    own = shutil.copytree(teachers.store, tmp_path / "own")
    folder = own / teachers.paths["simple_push"].name
    (folder / "weights.safetensors").write_bytes(b"")
    with_store = (f"{ALG}teacher.store={own}", f"{ALG}teacher.experiment={teachers.experiment}")
    line = refused("run", *tiny(tmp_path), *of_tasks("mpe/simple_push"), *with_store)
    assert str(folder) in line
    assert "checksum" in line
    other = f"+{ALG}teachers.simple_push={teachers.paths['simple_speaker_listener']}"
    assert "was made for" in refused("run", *tiny(tmp_path), *SET, *with_store[1:], other)


COMMANDS = {
    ("dance",): "command: 'dance' is unknown; see benchmarl -h",
    ("resume",): "resume: the following arguments are required: FOLDER",
    ("resume", "nowhere"): "resume: there is no run in",
    ("evaluate", "nowhere"): "checkpoint: no team in nowhere; name the folder of one",
    (
        "evaluate",
        ".",
        "--seed",
        "4294967296",
    ): "argument --seed: '4294967296' must be a whole",
    ("teachers",): "teachers: the following arguments are required: action",
    ("teachers", "list", "all"): "teachers: 'list all' given; ",
    ("teachers", "list", "--out=here"): "teachers: list writes nothing; leave out --out",
    ("teachers", "import"): "teachers: import takes one expert, not []",
    ("teachers", "import", "nowhere"): "import: no weights in nowhere",
    ("merge", "nowhere"): "merge: name the experts' runs and one folder, out=FOLDER",
    ("teachers", "train"): "task: missing; name one, such as task=multitask/mpe",
    ("teachers", "train", "algorithm=qmix", "experiment=mkt_quick", "task=multitask/mpe"): (
        "algorithm: teachers are trained for algorithm=mkt"
    ),
    ("teachers", "train", *SET, "algorithm.teacher.store=/dev/null"): "/dev/null is a file",
    ("teachers", "train", *SET, "algorithm.mixr=3"): "algorithm.mixr: unknown key; did you mean m",
    ("report",): "report: the following arguments are required: RESULTS",
    ("report", "nowhere"): "RESULTS: there is no folder nowhere",
    ("report", "."): "RESULTS: no summary.json below .",
    ("report", ".", "--colour"): "report: unrecognized arguments: --colour",
    ("report", ".", "--labels"): "report: argument --labels: expected one argument",
}


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_wrong_commands_are_refused(refused, arguments):
    assert COMMANDS[arguments] in refused(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--labels", "nowhere.yaml"), "--labels: cannot read nowhere.yaml"),
        (("--labels", "bad.yaml"), "--labels: bad.yaml: the file: unknown key 'colour'; known are"),
        (("--out", "bad.yaml"), "--out: cannot write to bad.yaml"),
    ],
)
def test_wrong_reports_are_refused(refused, tmp_path, options, message):
    write_run(tmp_path / "run", summary(), evaluations({"push": [0.0]}))
    (tmp_path / "bad.yaml").write_text("colour: blue\n")
    assert message in refused("report", "run", *options)


def test_options_stand_anywhere_among_the_results(cli, tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path / name, summary(), evaluations({"push": [0.0]}))
    status, _, error = cli("report", "a", "--out", "there", "b")
    assert (status, error) == (0, "")
    assert "0 finished runs, 2 unfinished" in (tmp_path / "there" / "report.md").read_text()


PROCESSES = {
    "key": (
        with_set("algorithm.mixr=vdn"),
        "error: algorithm.mixr: unknown key; did you mean mixer?",
    ),
    "type": (with_set("experiment.lr=fast"), "error: experiment.lr: Value 'fast' of type 'str'"),
    "range": (  # after all interpolations, in a process where Hydra has not run yet
        ("+method=mkt_smax", "experiment=smax", "task=multitask/smax_5", "experiment.lr=-1"),
        "error: experiment.lr: -1.0 must be above 0, and finite",
    ),
}


@pytest.mark.parametrize("case", PROCESSES)
def test_a_process_says_one_line_and_leaves_nothing(case, tmp_path, own_store):
    overrides, message = PROCESSES[case]
    results = tmp_path / "results"
    results.mkdir()
    found = command(
        "-m", "benchmarl_mkt.cli", "run", *tiny(results), *overrides, cwd=tmp_path, store=own_store
    )
    assert (found.returncode, found.stdout) == (2, "")
    (line,) = found.stderr.splitlines()
    assert line.startswith(message)
    assert list(tmp_path.rglob("*")) == [results]
