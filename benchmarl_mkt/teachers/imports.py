"""Teachers from outside: experts of plain tasks, trained by BenchMARL itself, as teams on disk."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from benchmarl.algorithms import algorithm_config_registry
from benchmarl.environments import task_config_registry
from benchmarl.experiment import ExperimentConfig
from benchmarl.models import model_config_registry
from torch import Tensor

from benchmarl_mkt.environments import MultiTaskClass
from benchmarl_mkt.files import check_writable, read_yaml, sha256
from benchmarl_mkt.models.serialisation import model_from_dict, model_to_dict
from benchmarl_mkt.presets import experiment_config
from benchmarl_mkt.teachers.store import TeacherStore
from benchmarl_mkt.teams.evaluation import COPIES
from benchmarl_mkt.teams.expert import build_network, build_team, load_weights
from benchmarl_mkt.teams.export import team_scores, team_specs, versions
from benchmarl_mkt.teams.folder import write_team
from benchmarl_mkt.teams.load import load_teacher
from benchmarl_mkt.teams.onnx_expert import OnnxConfig, open_session
from benchmarl_mkt.training.resume.checkpoint import read_benchmarls

EPISODES = 100
# They see every agent for itself, its observation's entries in a row.
MODELS = ("mlp", "gru", "lstm", "multitask", "multitask_entity")
# What BenchMARL's losses call the agents' network, and what it gives.
_NETWORKS = {
    "actor_network_params.module.0.": "logits",  # MAPPO, IPPO, MASAC, ISAC
    "local_value_network_params.module.0.": "values",  # QMIX, VDN
    "value_network_params.module.0.": "values",  # IQL
}
_WIDEST = 4096  # of a layer that is built before its weights are known to fit
_SECTIONS = ("experiment", "algorithm", "task", "model")


class RunSettings(NamedTuple):
    """How a run was configured: the choices of Hydra's groups, and BenchMARL's configuration."""

    choices: Mapping[str, Any]
    config: Mapping[str, Any]


class Expert(NamedTuple):
    """A policy that was read: its task as a set of one, what it was trained with, its weights."""

    task: MultiTaskClass
    metadata: dict[str, Any]  # of teacher.json, without scores
    weights: dict[str, Tensor]

    @property
    def path(self) -> Path:
        """Where it is in the store, or would be."""
        return TeacherStore().root / _name(self.metadata)


def import_run(
    source: str | Path,
    folder: Path | None = None,
    settings: RunSettings | None = None,
    task: str | None = None,
) -> Path:
    """Import what a run of BenchMARL's has learned on a plain task with discrete actions.

    Nothing of it is unpickled: what was run is read from Hydra's YAML files, weights by torch's
    restricted reader. The policy plays :data:`EPISODES` fresh episodes before it is stored.

    Args:
        source: a run's folder, whose last checkpoint is taken, or a checkpoint's file.
        folder: where the team is written, a new one; None is the store.
        settings: how a run was configured that Hydra has not recorded.
        task: what the run must have been trained on; None takes any.

    Returns:
        The team's folder; one that the store has already is kept.

    Raises:
        ValueError: if there is no such run, it is of another task, its actions are continuous, its
            model is none of :data:`MODELS`, or its weights do not fit. Nothing is stored then.
    """
    return store_expert(read_run(source, settings, task), folder)


def read_run(
    source: str | Path, settings: RunSettings | None = None, task: str | None = None
) -> Expert:
    """Read what :func:`import_run` imports, without playing or storing it."""
    checkpoint = find_checkpoint(Path(source).expanduser())
    settings = settings or read_settings(checkpoint)
    if task is not None and (trained := settings.choices["task"]) != task:
        raise ValueError(f"task: {checkpoint} was trained on {trained}, not {task}")
    return _read_expert(checkpoint, settings)


def import_onnx(
    source: str | Path,
    settings: RunSettings,
    folder: Path | None = None,
    inputs: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
    states: Mapping[str, str] | None = None,
) -> Path:
    """Import a policy that is an ONNX file, of any framework.

    :class:`~benchmarl_mkt.teams.onnx_expert.OnnxConfig` says what it reads and writes.

    Args:
        source: the file, with all its data.
        settings: ``task`` among the choices, and what of its configuration is not the default.
        folder: as for :func:`import_run`.
        inputs: ``observation`` and, if there is one, ``action_mask`` -> the input's name, where it
            is another.
        outputs: ``action_value`` or ``logits`` -> the output's name, where it is another.
        states: every hidden state's input -> the output that gives it.

    Returns:
        The team's folder.

    Raises:
        ImportError: if onnx or onnxruntime is not installed.
        ValueError: if there is no such file, it has custom operators or data in other files, or
            does not fit. Nothing is stored then.
    """
    return store_expert(read_onnx(source, settings, inputs, outputs, states), folder)


def read_onnx(
    source: str | Path,
    settings: RunSettings,
    inputs: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
    states: Mapping[str, str] | None = None,
) -> Expert:
    """Read what :func:`import_onnx` imports, without playing or storing it."""
    path = Path(source).expanduser()
    if not path.is_file():
        raise ValueError(f"import: there is no file {path}")
    task = _task_of(settings)
    specs, _, _ = _team_of(task)
    try:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        kind, model = _onnx_model(content, inputs or {}, outputs or {}, states or {})
        metadata = {
            "kind": kind,
            "specs": specs,
            "task": task.identity,
            "copies": COPIES,
            "model": model,
            "share_params": True,
            "algorithm": "onnx",
            "seed": 0,
            "frames": 0,
            "versions": versions(),
            "expert": {"groups": [], "source": str(path.absolute()), "sha256": digest},
        }
        weights = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        expert = Expert(task, metadata, {"content": weights})
        load_weights(build_network(metadata)[0], expert.weights)
    except ValueError as error:
        raise ValueError(f"import: {path}: {error}") from error
    return expert


def _onnx_model(
    content: bytes, inputs: Mapping[str, str], outputs: Mapping[str, str], states: Mapping[str, str]
) -> tuple[str, dict[str, Any]]:
    """What a file gives, and what of it is what."""
    kinds = {"action_value": "values", "logits": "logits"}
    unknown = sorted({*inputs, *outputs} - {"observation", "action_mask", *kinds})
    if unknown:
        raise ValueError(
            f"{unknown} are neither inputs (observation, action_mask) nor outputs {list(kinds)}"
        )
    session = open_session(content)
    given = {entry.name: entry.shape for entry in session.get_inputs()}
    written = [entry.name for entry in session.get_outputs()]
    observation = inputs.get("observation", "observation")
    mask = inputs.get("action_mask", "action_mask")
    named = {kind: outputs.get(kind, kind) for kind in kinds}
    found = [kind for kind in (outputs or kinds) if named.get(kind) in written]
    if observation not in given or len(found) != 1:
        raise ValueError(
            f"its inputs are {list(given)}, its outputs {written}; say which is what: "
            "inputs={observation: NAME} outputs={logits: NAME}, or action_value for values"
        )
    rest = set(given) - {observation, mask} - set(states)
    if rest or not set(states) <= set(given) or not set(states.values()) <= set(written):
        raise ValueError(
            f"its inputs are {list(given)}, its outputs {written}; name every hidden state: "
            "states={INPUT: OUTPUT}"
        )
    lead = 1 if len(given[observation]) == 2 else 2
    config = OnnxConfig(
        len(content),
        observation,
        named[found[0]],
        mask if mask in given else None,
        states,
        {key: given[key][lead:] for key in states},
    )
    return kinds[found[0]], config.to_dict()


def store_expert(expert: Expert, folder: Path | None = None) -> Path:
    """Score an expert and write it; one that the store has already is kept."""
    if folder is not None:
        folder = folder.expanduser().absolute()
        check_writable("out", folder.parent)
        if folder.exists():
            raise ValueError(f"out: {folder} exists; name a new folder")
    path = folder or expert.path
    if path.exists():
        load_teacher(path)  # raises if it is damaged
        return path
    team = build_team(expert.metadata, expert.weights)
    scores = team_scores(team, expert.task, EPISODES, expert.metadata["copies"])
    return write_team(path, team.model.state_dict(), {**expert.metadata, **scores})


def _team_of(task: MultiTaskClass) -> tuple[dict[str, int], list[dict[str, Any]], bool]:
    """Sizes of a set's one team and of its groups, and whether the task is vectorised."""
    env = task.get_env_fun(1, continuous_actions=False, seed=0, device="cpu")()
    ((name, team),) = env.teams.items()
    specs = team_specs(env, name)
    groups = [
        {"name": group, **dict(zip(vars(specs), sizes))}
        for group, sizes in team.group_sizes.items()
    ]
    for group in groups:
        if group["name"] in team.group_layouts:
            group["layout"] = team.group_layouts[group["name"]].to_dict()
    env.close()
    return vars(specs), groups, team.vectorised


def find_checkpoint(source: Path) -> Path:
    """Return a run's last checkpoint.

    Raises:
        ValueError: if there is none, or several runs have some.
    """
    if source.is_file():
        return source
    paths = sorted(source.glob("**/checkpoints/checkpoint_*.pt"))
    if not paths and source.name == "checkpoints":
        paths = sorted(source.glob("checkpoint_*.pt"))
    runs = {path.parent.parent for path in paths}
    if len(runs) > 1:
        raise ValueError(f"import: {source} has {len(runs)} runs; name one, such as {min(runs)}")
    if not runs:
        raise ValueError(
            f"import: no weights in {source} (checkpoints/checkpoint_*.pt); train with "
            "experiment.checkpoint_at_end=true"
        )
    return max(paths, key=lambda path: int("0" + re.sub(r"\D", "", path.stem)))


def read_settings(checkpoint: Path) -> RunSettings:
    """Read how a run was configured from Hydra's files around its checkpoint.

    Raises:
        ValueError: if there are none or they cannot be read.
    """
    above = [parent / ".hydra" for parent in checkpoint.absolute().parents[:4]]
    hydra = next((folder for folder in above if (folder / "config.yaml").is_file()), None)
    if hydra is None:
        raise ValueError(
            f"import: no .hydra/config.yaml above {checkpoint}; say what was run: algorithm=mappo "
            "task=vmas/balance experiment.prefer_continuous_actions=false model=layers/mlp and "
            "what else was set"
        )
    try:
        config, record = (read_yaml(hydra / name) for name in ("config.yaml", "hydra.yaml"))
    except ValueError as error:
        raise ValueError(f"import: {error}") from error
    try:
        choices = record["hydra"]["runtime"]["choices"]
        known = {key: choices[key] for key in ("task", "algorithm")}
    except (LookupError, TypeError):
        raise ValueError(f"import: {hydra / 'hydra.yaml'} names no task and algorithm") from None
    if not isinstance(config, dict):
        raise ValueError(f"import: {hydra / 'config.yaml'} is no configuration")
    return RunSettings(known, config)


def _read_expert(checkpoint: Path, settings: RunSettings) -> Expert:
    config = settings.config
    for key in _SECTIONS:
        if not isinstance(config.get(key), Mapping):
            raise ValueError(f"import: the run's configuration has no section {key}")
        if "${" in str(config[key]):
            raise ValueError(f"import: {key} has interpolations; give their values")
    experiment = experiment_config(config["experiment"], " (in the run)", "import: experiment")
    task, name = _task_of(settings), str(settings.choices["algorithm"])
    algorithm = algorithm_config_registry.get(name)
    if algorithm is None:
        raise ValueError(
            f"import: algorithm {name!r} is not one of {sorted(algorithm_config_registry)}"
        )
    if type(seed := config.get("seed", 0)) is not int:
        raise ValueError(f"import: the run's seed is {seed!r}, not an integer")
    (entry,) = task.team_configs
    _check_discrete(entry.task_class(), algorithm, experiment)
    model = _model_of(config["model"])

    specs, groups, vectorised = _team_of(task)
    try:
        digest, content = sha256(checkpoint), read_benchmarls(checkpoint)
    except ValueError as error:
        raise ValueError(f"import: {error}") from error
    kinds, weights = _weights_of(content, [group["name"] for group in groups], checkpoint)
    copies = max(
        experiment.evaluation_episodes, experiment.n_envs_per_worker(algorithm.on_policy())
    )
    metadata = {
        "kind": kinds,
        "specs": specs,
        "task": task.identity,
        "copies": max(copies, COPIES) if vectorised else copies,
        "model": model,
        "share_params": experiment.share_policy_params,
        "algorithm": name,
        "seed": seed,
        "frames": content["state"]["total_frames"],
        "versions": versions(),
        "expert": {"groups": groups, "source": str(checkpoint.absolute()), "sha256": digest},
    }
    _check_shapes(weights, metadata, entry.task)
    return Expert(task, metadata, weights)


def _task_of(settings: RunSettings) -> MultiTaskClass:
    """The run's task as a set of one; of its configuration what differs from the default."""
    name = str(settings.choices["task"])
    if name not in task_config_registry:
        raise ValueError(
            f"import: the run's task {name!r} is not registered; register it as for its training, "
            "and call benchmarl_mkt.cli.main from there"
        )
    if name.startswith("multitask/"):
        raise ValueError(
            f"import: the run is of a task set, {name}; benchmarl run leaves its team, whose "
            "folders are teachers as they are"
        )
    default = task_config_registry[name].get_from_yaml().config
    changes = {
        key: value
        for key, value in settings.config["task"].items()
        if key not in default or default[key] != value
    }
    entry = {"task": name, "name": re.sub(r"\W", "_", name.split("/")[-1]), "config": changes}
    return MultiTaskClass("CUSTOM", {"tasks": [entry]})


def _check_discrete(task: Any, algorithm: Any, experiment: ExperimentConfig) -> None:
    """Refuse continuous actions, by BenchMARL's own rule."""
    discrete = algorithm.supports_discrete_actions()
    continuous = task.supports_continuous_actions() and algorithm.supports_continuous_actions()
    if not discrete or (continuous and experiment.prefer_continuous_actions):
        raise ValueError(
            "import: the run's actions are continuous; a teacher needs discrete ones: train with "
            "experiment.prefer_continuous_actions=false and an algorithm that has them"
        )


def _model_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The model's configuration as JSON values, checked; images are rows, as teams show them."""
    name = given.get("name", "a sequence" if "layers" in given else None)
    if name not in MODELS:
        raise ValueError(f"import: the run's model is {name}; one of {', '.join(MODELS)} is needed")
    default = model_to_dict(model_config_registry[name].get_from_yaml())
    rows = {"num_feature_dims": 1} if name == "mlp" else {}
    return model_to_dict(model_from_dict({**default, **given, **rows}))


def _weights_of(
    content: Mapping[str, Any], groups: list[str], checkpoint: Path
) -> tuple[str, dict[str, Tensor]]:
    """What the networks give, and their weights by the names of an expert's network."""
    keys = [key for key in content if str(key).startswith("loss_")]
    given = [key.removeprefix("loss_") for key in keys]
    if sorted(given) != sorted(groups):
        raise ValueError(
            f"import: {checkpoint} has policies of {sorted(given)}, the task has {sorted(groups)}"
        )
    kinds: set[str] = set()
    weights: dict[str, Tensor] = {}
    for index, group in enumerate(groups):
        state = content[f"loss_{group}"]
        for key, value in state.items() if isinstance(state, Mapping) else ():
            prefix = next((prefix for prefix in _NETWORKS if str(key).startswith(prefix)), None)
            if prefix is not None and isinstance(value, Tensor) and value.layout == torch.strided:
                kinds.add(_NETWORKS[prefix])
                weights[f"models.{index}.{key.removeprefix(prefix)}"] = value
    if len(kinds) != 1:
        raise ValueError(f"import: {checkpoint} has no discrete policy of BenchMARL's")
    return kinds.pop(), weights


def _check_shapes(weights: Mapping[str, Tensor], metadata: Mapping[str, Any], task: str) -> None:
    """Compare the weights with the network that the run's configuration describes."""
    model = metadata["model"]["name"]
    # A width is a dimension of some weight: what is much wider is not built, it may be huge.
    widest = max((size for value in weights.values() for size in value.shape), default=0)
    too_wide = [n for n in _integers(metadata["model"]) if n > max(widest, _WIDEST)]
    if too_wide:
        raise ValueError(
            f"import: model: {too_wide[0]} does not fit the weights, whose largest size is {widest}"
        )
    try:
        network, _ = build_network(metadata)
    except (TypeError, ValueError, RuntimeError, AttributeError, MemoryError) as error:
        raise ValueError(f"import: model: {' '.join(str(error).split()):.200}") from error
    needed = {k: list(v.shape) for k, v in network.state_dict().items() if isinstance(v, Tensor)}
    given = {key: list(value.shape) for key, value in weights.items()}
    for key in {**needed, **given}:
        if needed.get(key) != given.get(key):
            raise ValueError(
                f"import: weights {key} are {given.get(key, 'missing')}, but {model} for {task} "
                f"has {needed.get(key, 'none')}; the run's task, model or share_policy_params "
                "differ from what its configuration says"
            )
    if not all(value.isfinite().all() for value in weights.values()):
        raise ValueError("import: its weights are not finite; take an earlier checkpoint")


def _integers(value: Any) -> Iterator[int]:
    """All integers in JSON values."""
    if type(value) is int:
        yield value
    elif isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _integers(part)


def _name(metadata: Mapping[str, Any]) -> str:
    """Name of an expert's folder in the store: task, algorithm, digest of all that it is."""
    what = [metadata[key] for key in ("task", "kind", "model", "share_params")]
    text = json.dumps([*what, metadata["expert"]["sha256"]], sort_keys=True)
    (task,) = metadata["task"]["tasks"]
    slug = re.sub(r"[^A-Za-z0-9]+", "-", f"{task['task']}-{metadata['algorithm']}")
    return f"{slug}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
