"""Verbs that take Hydra's overrides: from a command line to the parts of an experiment."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarl_mkt.cli.common import user_errors

if TYPE_CHECKING:
    from benchmarl.algorithms.common import AlgorithmConfig
    from benchmarl.environments.common import TaskClass
    from benchmarl.experiment import ExperimentConfig
    from benchmarl.models.common import ModelConfig
    from omegaconf import DictConfig

KEYS = ("seed", "experiment", "algorithm", "task", "model", "critic_model")
_EXAMPLES = {"task": "multitask/mpe", "algorithm": "mkt"}
FULL_ERROR = "HYDRA_FULL_ERROR"
# Flags of Hydra's that a value follows.
_WITH_VALUE = (
    "-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd",
    "--config-dir", "-i", "--info",
)  # fmt: skip


class Job(NamedTuple):
    """One job of a command: what BenchMARL's ``Experiment`` takes, and what the run is called.

    Attributes:
        task, algorithm_config, model_config, critic_model_config, seed, config: the experiment's.
        record: the configuration as plain values, with the ``choices`` of its groups.
        overrides: the command's that made it; a label.
        folder: its own.
        again: the command that goes on with it, once stopped.
        alone: whether the command has this job only.
    """

    task: TaskClass
    algorithm_config: AlgorithmConfig
    model_config: ModelConfig
    critic_model_config: ModelConfig
    seed: int
    config: ExperimentConfig
    record: dict[str, Any]
    overrides: list[str]
    folder: Path
    again: str
    alone: bool = True


def with_hydra(
    command: str,
    arguments: list[str],
    work: Callable[[Job], None],
    typed: list[str] | None = None,
) -> None:
    """Compose BenchMARL's configuration by Hydra's own main, and call ``work(job)``.

    Args:
        command: the verb.
        arguments: Hydra's overrides and flags, in any order.
        work: what is done, once for every job of a sweep.
        typed: those that the user has typed; by default all.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from benchmarl_mkt.files import check_writable
    from benchmarl_mkt.presets import benchmarl_conf
    from benchmarl_mkt.quiet import quiet

    quiet()
    given, shown = command_given(), os.environ.get(FULL_ERROR)
    typed = list(arguments) if typed is None else typed
    arguments = _in_hydras_order(arguments)

    @functools.wraps(work)  # Hydra names the job after its module
    def of_hydra(cfg: DictConfig) -> None:
        import benchmarl_mkt

        quiet()  # a sweep's launcher may run this in a new process
        benchmarl_mkt.register()
        with user_errors(), nothing_left(Path(HydraConfig.get().runtime.output_dir)):
            job = _job_of_hydra(cfg, given)
            if take_scripts(job, typed):
                job = job._replace(again="the same command")
        work(job)

    with user_errors():
        for key in ("hydra.run.dir", "hydra.sweep.dir"):
            folders = [a.partition("=")[2] for a in arguments if a.startswith(f"{key}=")]
            for folder in folders:
                check_writable(key, Path(folder.strip("'\"")))
        sys.argv = [f"benchmarl {command}", *arguments]
        os.environ[FULL_ERROR] = "1"  # Hydra hands errors on, instead of telling them in its way
        try:
            hydra.main(version_base=None, config_path=str(benchmarl_conf()), config_name="config")(
                of_hydra
            )()
        except (HydraException, OmegaConfBaseException) as error:
            if shown == "1":
                raise
            raise ValueError(explain(error, arguments)) from error
        except ValueError as error:
            raise wrong_choice(error, arguments) from error.__cause__
        except ConnectionError as error:  # a plain one: Ray's launcher finds no cluster
            if type(error) is not ConnectionError:
                raise
            raise ValueError(f"hydra/launcher: {error}; start one, see docs/sweeps.md") from error
        finally:
            os.environ.pop(FULL_ERROR)
            os.environ.update({} if shown is None else {FULL_ERROR: shown})


def _in_hydras_order(arguments: list[str]) -> list[str]:
    """Put overrides before Hydra's flags, which it expects; add the model that MKT-MARL needs.

    Raises:
        ValueError: for the flag that runs code from a file.
    """
    if any(argument.startswith("--experimental-r") for argument in arguments):
        raise ValueError("--experimental-rerun: a pickle may run code; use benchmarl resume FOLDER")
    flags: list[str] = []
    overrides: list[str] = []
    for argument, before in zip(arguments, ["", *arguments]):
        (flags if is_flag(argument, before) else overrides).append(argument)
    chosen = dict(override.lstrip("+").split("=", 1) for override in overrides if "=" in override)
    if chosen.get("algorithm", "").startswith("mkt"):
        groups = ("model", "model@critic_model")
        overrides = [f"{g}=multitask" for g in groups if g not in chosen] + overrides
    return [*overrides, *flags]


def is_flag(argument: str, before: str) -> bool:
    """Whether an argument is a flag of Hydra's, or the value of the flag before it."""
    return argument.startswith("-") or (before in _WITH_VALUE and "=" not in argument)


def command_given() -> str | None:
    """The command line of a script of the user's own that calls us; None if there is none.

    What it registers is unknown elsewhere: its runs go on in it alone.
    """
    program = Path(sys.argv[0])
    own = Path(__file__).with_name("__main__.py")
    if program.stem in ("benchmarl", "benchmarl-mkt") or program == own:
        return None
    return shlex.join(sys.orig_argv)


@contextlib.contextmanager
def nothing_left(folder: Path, known: bool | None = None) -> Iterator[None]:
    """Remove what a job has written into its folder if its input is wrong.

    Args:
        folder: the job's.
        known: whether a run was there before, which is left as it was; None looks now.
    """
    from hydra.core.hydra_config import HydraConfig

    from benchmarl_mkt.training.resume.record import RECORD, RunInUse, restore_hydra

    known = (folder / RECORD).exists() if known is None else known
    try:
        yield
    except RunInUse:
        raise
    except (ValueError, ImportError):
        if known:
            restore_hydra(folder)
        elif HydraConfig.initialized():
            shutil.rmtree(folder / ".hydra", ignore_errors=True)
            for name in (f"{HydraConfig.get().job.name}.log", RECORD, f".{RECORD}.lock"):
                (folder / name).unlink(missing_ok=True)
            for path in (path for path in (folder, *folder.parents) if Path.cwd() in path.parents):
                with contextlib.suppress(OSError):  # it is not empty
                    path.rmdir()
        raise


def _job_of_hydra(cfg: DictConfig, given: str | None) -> Job:
    """Read from Hydra what its job is.

    Args:
        cfg: the job's configuration.
        given: see :func:`command_given`.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from benchmarl_mkt.presets import compose_preset

    config = HydraConfig.get()
    folder = Path(config.runtime.output_dir)
    again = f"benchmarl resume {folder}"
    if given is not None:
        key, where = "hydra.run.dir", folder
        if config.mode == RunMode.MULTIRUN:
            key, where = "hydra.sweep.dir", Path(config.runtime.cwd, config.sweep.dir)
        named = any(override.startswith(f"{key}=") for override in config.overrides.hydra)
        quote = "" if re.fullmatch(r"[\w/.-]+", str(where)) else "'"
        again = given if named else f"{given} {shlex.quote(f'{key}={quote}{where}{quote}')}"
    choices = {k: v for k, v in config.runtime.choices.items() if not k.startswith("hydra/")}
    try:
        check_keys(cfg)
        plain: dict[str, Any] = {"choices": choices, **OmegaConf.to_container(cfg, resolve=True)}
    except OmegaConfBaseException as error:
        raise ValueError(explain(error, [])) from error
    teacher = plain["algorithm"].get("teacher") or {}
    for group in ("experiment", "model"):  # a preset's name means something on this search path
        if isinstance(name := teacher.get(group), str):
            preset = compose_preset(group, name, f"algorithm.teacher.{group}")
            teacher[group] = OmegaConf.to_container(preset, resolve=True)
    job = make_job(cfg, plain, list(config.overrides.task), folder, again)
    return job._replace(alone=config.mode != RunMode.MULTIRUN)


_SCRIPT = r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)"


def take_scripts(job: Job, typed: list[str]) -> bool:
    """Import the teachers that the command line itself names as ``package.module:function``.

    A text that comes from a file, such as a preset, a team or a run's record, is never imported.

    Args:
        job: whose algorithm's teachers they are; names are replaced by functions.
        typed: the arguments that the user has typed.

    Returns:
        Whether there are any.

    Raises:
        ValueError: if there is no such function, or the user has not typed its name.
    """
    teachers = getattr(job.algorithm_config, "teachers", None) or {}
    named = {
        script[0]
        for argument in typed
        if argument.lstrip("+").startswith("algorithm.teachers")
        for script in re.finditer(rf"(?<![\w.:]){_SCRIPT}(?![\w.:])", argument)
    }
    scripts = {task: name for task, name in teachers.items() if re.fullmatch(_SCRIPT, str(name))}
    for task, name in scripts.items():
        if name not in named:
            raise ValueError(
                f"algorithm.teachers: {name} is a function, which the command line alone may name: "
                "give the command that began the run"
            )
        module, _, function = name.partition(":")
        sys.path.insert(0, os.getcwd())  # as python -m does
        try:
            teachers[task] = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"algorithm.teachers: there is no {name} ({error})") from error
        finally:
            sys.path.remove(os.getcwd())
        if not callable(teachers[task]):
            raise ValueError(f"algorithm.teachers: {name} is no function")
    return bool(scripts)


def make_job(
    cfg: DictConfig, record: dict[str, Any], overrides: list[str], folder: Path, again: str
) -> Job:
    """Build BenchMARL's objects from a configuration, and check what they cannot know.

    Raises:
        ValueError: if a value is wrong (one line that names key and remedy).
    """
    from benchmarl.environments import task_config_registry
    from benchmarl.hydra_config import (
        load_algorithm_config_from_hydra,
        load_experiment_config_from_hydra,
        load_model_config_from_hydra,
        load_task_config_from_hydra,
    )
    from benchmarl.models import model_config_registry
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    from benchmarl_mkt.algorithms import MktConfig
    from benchmarl_mkt.algorithms.checks import check_experiment
    from benchmarl_mkt.cli.settings import check_settings

    name = record["choices"]["task"]
    if name not in task_config_registry:
        raise ValueError(f"task: {name!r} is not registered; choose ENVIRONMENT/TASK")
    for key in ("model", "critic_model"):
        layers = cfg[key].get("layers") or {"": cfg[key]}
        if not isinstance(layers, DictConfig | dict):
            raise ValueError(f"{key}.layers: {layers!r} must be a mapping of models")
        for layer in layers.values():
            model = str(layer.get("name") if isinstance(layer, DictConfig) else layer)
            if model not in model_config_registry:
                known = sorted(model_config_registry)
                raise ValueError(f"{key}.name: {model!r} is not one of {known}")

    def built(key: str, load: Callable[..., Any], *more: str) -> Any:
        try:
            return load(cfg[key], *more)
        except (OmegaConfBaseException, TypeError, AttributeError, LookupError) as error:
            reason = str(error).splitlines()[0].split("__init__() ")[-1]
            raise ValueError(f"{key}: {reason}") from error

    job = Job(
        built("task", load_task_config_from_hydra, name),
        built("algorithm", load_algorithm_config_from_hydra),
        built("model", load_model_config_from_hydra),
        built("critic_model", load_model_config_from_hydra),
        cfg.seed,
        built("experiment", load_experiment_config_from_hydra),
        record,
        overrides,
        folder,
        again,
    )
    check_settings(job.config, job.algorithm_config.on_policy())
    if isinstance(job.algorithm_config, MktConfig) and job.algorithm_config.uses_teacher:
        settings, key = job.algorithm_config.teacher_settings, "algorithm.teacher.experiment"
        check_settings(settings.experiment, settings.algorithm.on_policy(), key)
        check_experiment(settings.experiment, key)
    return job


def composed(overrides: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compose BenchMARL's configuration without running anything: Hydra's choices, plain values.

    Raises:
        ValueError: if the overrides are wrong.
    """
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from benchmarl_mkt.presets import compose_config

    try:
        cfg = compose_config(overrides, with_hydras=True)
        choices = dict(cfg.hydra.runtime.choices)
        cfg = OmegaConf.masked_copy(cfg, KEYS)
        check_keys(cfg)
        plain = OmegaConf.to_container(cfg, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(explain(error, overrides)) from error
    except ValueError as error:
        raise wrong_choice(error, overrides) from error.__cause__
    return choices, plain


def as_override(value: Any) -> str:
    """Write a plain value as Hydra's overrides have it; every text means itself alone.

    Raises:
        ValueError: for a key or an interpolation, which would mean something else.
    """
    if isinstance(value, dict):
        for key in value:
            if not re.fullmatch(r"\w+", str(key), re.ASCII):
                raise ValueError(f"{key!r} cannot be a key: letters, digits and underscores can")
        return f"{{{', '.join(f'{key}: {as_override(entry)}' for key, entry in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(as_override, value))}]"
    if not isinstance(value, str):
        return json.dumps(value)
    if "${" in value:
        raise ValueError(f"{value!r} cannot be a value: ${{ would be looked up")
    plain = re.fullmatch(r"[A-Za-z_/][\w/.-]*", value, re.ASCII)
    if plain and value.lower() not in ("true", "false", "null", "nan", "inf"):
        return value
    # Backslashes mean themselves, but before a quote.
    escaped = re.sub(
        r'(\\*)("|$)', lambda part: 2 * part[1] + ("\\" * bool(part[2])) + part[2], value
    )
    return f'"{escaped}"'


def check_keys(cfg: DictConfig) -> None:
    """Look for what Hydra lets pass: keys added with ``+`` that nobody reads, missing values.

    Raises:
        ValueError: if a key is unknown, or one that is needed is none or of another kind.
        OmegaConfBaseException: if an interpolation cannot be resolved.
    """
    from omegaconf import DictConfig

    for key in KEYS[1:]:
        if not isinstance(cfg.get(key), DictConfig):
            choose = "model@critic_model=NAME" if key == "critic_model" else f"{key}=NAME"
            raise ValueError(f"{key}: {cfg.get(key)!r} is no configuration; choose one: {choose}")
    for key in cfg:
        if key not in KEYS:
            raise ValueError(f"{key}: unknown key; {_hint(str(key), KEYS)}")
        _visit(str(key), cfg[key])
    if type(cfg.get("seed")) is not int or not 0 <= cfg.seed < 2**32:
        raise ValueError(f"seed: {cfg.get('seed')!r} must be an integer from 0 to 2**32 - 1")


def _visit(key: str, node: Any) -> None:
    """Resolve every value below ``node``; refuse keys that its schema lacks."""
    from omegaconf import DictConfig, ListConfig, OmegaConf

    if not isinstance(node, DictConfig | ListConfig):
        return
    fields = getattr(OmegaConf.get_type(node), "__dataclass_fields__", None)
    for name in list(node) if isinstance(node, DictConfig) else range(len(node)):
        if fields is not None and name not in fields:
            raise ValueError(f"{key}.{name}: unknown key; {_hint(str(name), fields)}")
        _visit(f"{key}.{name}", node[name])


def explain(error: Exception, overrides: list[str]) -> str:
    """Say in one line which key of a composition is wrong, why, and what to do."""
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException, ValidationError

    text = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key, reason = getattr(cause, "full_key", None), str(cause).splitlines()[0].strip()
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: Hydra cannot read it; write key=value, in quotes if it has "
            "brackets or spaces: 'task.tasks=[vmas/balance]'"
        )
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.partition("/")
        if group == "hydra" and name.startswith("launcher/"):
            extras = "[sweep] for joblib, [slurm] or [ray]"
            lacking = f"there is no {name.partition('/')[2]!r} here"
            return f"hydra/launcher: {lacking}; pip install 'benchmarl-mkt' with {extras}"
        choices = [*_choices(group), *(error.options or ())]
        choices = [choice for choice in choices if not choice.endswith("_config")]
        return f"{group}: there is no {name!r}; {_hint(name, choices)}"
    if missing := re.match(r"You must specify '([^']+)'", text[0]):
        group = missing[1]
        flags = {override.partition("=")[0] for override in overrides}
        named = flags & {"-cn", "--config-name"}  # Hydra hides what ails a sweep's
        more = "; --multirun says more of a sweep's file" if named else ""
        return f"{group}: missing; name one, such as {group}={_EXAMPLES.get(group, '...')}{more}"
    if text[0].startswith("Could not override"):
        key = key or text[0].split("'")[1]
        return f"{key}: unknown key; {_hint(key.rpartition('.')[2], _siblings(key, overrides))}"
    if "does not support deletion" in reason:
        return f"{key}: cannot be removed; set it to another value"
    if isinstance(cause, MissingMandatoryValue):
        return f"{key}: has no value; set it, or choose another {str(key).split('.')[0]}"
    if isinstance(cause, ValidationError):
        return f"{key}: {reason.rstrip('.')}; give it such a value"
    return f"{key}: {reason}" if key else " ".join(text)


def wrong_choice(error: ValueError, overrides: list[str]) -> ValueError:
    """Name the group whose choice is no name, if Hydra's plain error says that; else return it."""
    if not str(error).startswith("Config group override must be"):
        return error
    no_name = re.compile(r"[\w@/]+=([-\d.]+|null|true|false)")
    wrong = [override for override in overrides if no_name.fullmatch(override)]
    group = wrong[0].partition("=")[0] if wrong else "override"
    return ValueError(f"{group}: a group's choice is a name; choose one: {group}=NAME")


def _siblings(key: str, overrides: list[str]) -> list[str]:
    """The keys beside ``key`` when the configuration groups alone are chosen."""
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from benchmarl_mkt.presets import compose_config

    names = {o: o.split("=")[0] for o in overrides if "=" in o and o[0] != "-"}
    groups = [o for o, name in names.items() if "." not in name and name != key]
    if folder := re.search(r" (?:-cd|--config-dir)[= ](\S+)", " ".join(["", *overrides])):
        groups.append(f"hydra.searchpath=[file://{Path(folder[1]).absolute()}]")
    try:
        cfg = compose_config(groups, with_hydras=True)
    except (HydraException, OmegaConfBaseException):
        return []
    parent = OmegaConf.select(cfg, key.rpartition(".")[0]) if "." in key else cfg
    return [str(name) for name in parent or ()]


def _choices(group: str) -> list[str]:
    """The YAML files of a configuration group."""
    from benchmarl_mkt.files import conf_path
    from benchmarl_mkt.presets import benchmarl_conf

    folders = [folder / group for folder in (benchmarl_conf(), conf_path())]
    return [
        path.relative_to(folder).with_suffix("").as_posix()
        for folder in folders
        for path in folder.rglob("*.yaml")
    ]


def _hint(wrong: str, known: Iterable[str]) -> str:
    known = sorted(set(known))
    close = difflib.get_close_matches(wrong, known, 3)
    if close:
        return f"did you mean {' or '.join(close)}?"
    more = ", ..." if len(known) > 15 else ""
    return f"there are {', '.join(known[:15])}{more}" if known else "put a + before it to add it"
