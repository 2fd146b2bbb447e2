"""Hydra's composition of a command line, ahead of the run: its errors, in one line each.

Nothing here imports torch: the commonest mistakes are found before that takes seconds.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.conf import ConfigSourceInfo
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException, ValidationError

from benchmarl_mkt.paths import conf_path

Compose = Callable[[list[str]], DictConfig]
KEYS = ("seed", "experiment", "algorithm", "task", "model", "critic_model")
_EXAMPLES = {"task": "multitask/mpe", "algorithm": "mkt"}
_OPEN_SWEEPS = (ValueType.INTERVAL_SWEEP, ValueType.GLOB_CHOICE_SWEEP)
_SCHEMA = re.compile(r"^\s*- (\w+_config)(?:@\w+)?\s*$", re.MULTILINE)


def benchmarl_conf() -> Path:
    """Return BenchMARL's folder of YAML files, without importing it."""
    return Path(find_spec("benchmarl").submodule_search_locations[0]) / "conf"


def split_flags(arguments: list[str]) -> tuple[Namespace, list[str], list[str]]:
    """Read Hydra's flags wherever they stand among the overrides.

    Returns:
        The flags as Hydra's parser reads them, their texts, and the overrides.

    Raises:
        ValueError: if Hydra has no such flag or value, or the flag runs code from a file.
    """

    def refuse(message: str) -> NoReturn:
        raise ValueError(f"{message}; --hydra-help shows Hydra's flags")

    parser = get_args_parser()
    parser.error = refuse
    flags, texts = parser.parse_intermixed_args(arguments), list(arguments)
    for override in flags.overrides:
        texts.remove(override)
    if flags.experimental_rerun is not None:
        refuse("--experimental-rerun: a pickle may run code; use benchmarl resume FOLDER")
    if flags.config_dir is not None and not Path(flags.config_dir).is_dir():
        refuse(f"--config-dir: there is no folder {flags.config_dir}")
    return flags, texts, flags.overrides


def jobs(arguments: list[str]) -> list[list[str]]:
    """Return the overrides of every job of a command line; none if Hydra's own flags decide.

    Raises:
        ValueError: if Hydra cannot read an override or a flag.
    """
    flags, _, overrides = split_flags(arguments)
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except OverrideParseException as error:
        raise ValueError(_explain(error, overrides, _compose_yaml)) from error
    shows = flags.cfg or flags.info or flags.hydra_help or flags.shell_completion
    if shows or flags.config_name or flags.config_path:  # other files may say what is to be done
        return []
    if any(o.key_or_group in ("hydra.mode", "hydra/sweeper") for o in parsed):
        return []
    if not flags.multirun:
        return [overrides]
    if any(o.value_type in _OPEN_SWEEPS for o in parsed):
        return []
    return BasicSweeper.split_arguments(parsed, None)[0]


def check_keys(overrides: list[str], config_dir: str | None = None) -> None:
    """Compose the YAML files alone: finds unknown choices and keys, and what Hydra cannot read.

    Values are not checked: their types are in the schemas, whose modules take seconds to import.

    Raises:
        ValueError: if the composition fails.
    """
    plugins = Plugins.instance().discover(SearchPathPlugin)
    others = [p for p in plugins if not p.__module__.startswith("hydra_plugins.benchmarl_mkt")]
    if others or config_dir or any(o.startswith("hydra.searchpath") for o in overrides):
        return  # there may be more choices than are known here
    with _stand_ins_for_schemas():
        _attempt(_compose_yaml, overrides)


@contextlib.contextmanager
def composed(overrides: list[str], config_dir: str | None = None) -> Iterator[DictConfig]:
    """Compose the configuration with its schemas, as the run will; for the time of the context.

    Raises:
        ValueError: if the composition fails, a value has a wrong type or a key no meaning.
    """
    holder = HydraConfig.instance()
    compose = partial(_compose_all, config_dir=config_dir)
    before, cfg = holder.cfg, _attempt(compose, overrides)
    try:
        holder.set_config(cfg)  # interpolations ask it for choices
        check_meaning(cfg)
        locate_presets(cfg.algorithm, cfg.hydra.runtime.config_sources)
        yield cfg
    finally:
        holder.cfg = before


def locate_presets(algorithm: DictConfig, sources: Iterable[ConfigSourceInfo]) -> None:
    """Put files in the place of the names of teachers' presets that lie on the search path.

    Teachers are trained in processes that know the package's own presets alone.
    """
    folders: list[Traversable] = []
    for source in sources:
        if source.schema == "file":
            folders.append(Path(source.path).absolute())
        elif source.schema == "pkg":
            with contextlib.suppress(ImportError, ValueError):  # Hydra passes over it, too
                folders.append(files(source.path.replace("/", ".")))
    for key, group in (("teacher_experiment", "experiment"), ("teacher_model", "model")):
        if key in algorithm and not (conf_path() / group / f"{algorithm[key]}.yaml").is_file():
            paths = (folder.joinpath(group, f"{algorithm[key]}.yaml") for folder in folders)
            algorithm[key] = str(next((path for path in paths if path.is_file()), algorithm[key]))


def check_meaning(cfg: DictConfig) -> None:
    """Look for what Hydra lets pass: keys added with ``+`` that nobody reads, missing values.

    Raises:
        ValueError: if a key is unknown, or an interpolation cannot be resolved.
    """
    unknown = [str(key) for key in cfg if key not in (*KEYS, "hydra")]
    if unknown:
        raise ValueError(f"{unknown[0]}: unknown key; {_hint(unknown[0], KEYS)}")
    try:
        for key in KEYS:
            _visit(key, cfg[key])
    except OmegaConfBaseException as error:
        raise ValueError(_explain(error, [], _compose_all)) from error
    if type(cfg.seed) is not int or not 0 <= cfg.seed < 2**32:
        raise ValueError(f"seed: {cfg.seed!r} must be an integer from 0 to 2**32 - 1")


def _visit(key: str, node) -> None:
    """Resolve every value below ``node``; refuse keys that its schema lacks."""
    if not isinstance(node, DictConfig | ListConfig):
        return
    fields = getattr(OmegaConf.get_type(node), "__dataclass_fields__", None)
    for name in list(node) if isinstance(node, DictConfig) else range(len(node)):
        if fields is not None and name not in fields:
            raise ValueError(f"{key}.{name}: unknown key; {_hint(str(name), fields)}")
        _visit(f"{key}.{name}", node[name])


def _attempt(compose: Compose, overrides: list[str]) -> DictConfig:
    try:
        return compose(overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(_explain(error, overrides, compose)) from error


def _compose_yaml(overrides: list[str]) -> DictConfig:
    """Compose without plugins: ours would import what registers tasks and schemas."""
    search_path = ConfigSearchPathImpl()
    for provider, path in (
        ("hydra", "pkg://hydra.conf"),
        ("main", f"file://{benchmarl_conf()}"),
        ("benchmarl-mkt", f"file://{conf_path()}"),
        ("schema", "structured://"),
    ):
        search_path.append(provider, path)
    return _compose(search_path, overrides)


def _compose_all(overrides: list[str], config_dir: str | None = None) -> DictConfig:
    search_path = benchmarl_search_path()
    if config_dir is not None:
        folder = f"file://{Path(config_dir).absolute()}"
        search_path.prepend("command-line", folder, SearchPathQuery(provider="schema"))
    return _compose(search_path, overrides)


def benchmarl_search_path() -> ConfigSearchPath:
    """Return where Hydra looks for BenchMARL's configuration, once its plugins have run."""
    return create_config_search_path(str(benchmarl_conf()))


def _compose(search_path: ConfigSearchPath, overrides: list[str]) -> DictConfig:
    version.setbase(None)
    setup_globals()  # what interpolations ask
    loader = ConfigLoaderImpl(search_path)
    return loader.load_configuration("config", overrides, RunMode.RUN, from_shell=False)


@contextlib.contextmanager
def _stand_ins_for_schemas() -> Iterator[None]:
    """Let an empty mapping stand for every schema that a YAML file names."""
    store = ConfigStore.instance()
    kept = store.repo
    store.repo = {key: dict(value) for key, value in kept.items() if isinstance(value, dict)}
    try:
        for folder in (benchmarl_conf(), conf_path()):
            for path in folder.rglob("*.yaml"):
                for name in _SCHEMA.findall(path.read_text()):
                    store.store(name=name, group=path.relative_to(folder).parts[0], node={})
        yield
    finally:
        store.repo = kept


def _explain(error: Exception, overrides: list[str], compose: Compose) -> str:
    """Say in one line which key is wrong, why, and what to do."""
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
        options = [o for o in error.options or () if not o.endswith("_config")]
        return f"{group}: there is no {name!r}; {_hint(name, [*_choices(group), *options])}"
    if missing := re.match(r"You must specify '([^']+)'", text[0]):
        group = missing[1]
        return f"{group}: missing; name one, such as {group}={_EXAMPLES.get(group, '...')}"
    if text[0].startswith("Could not override"):
        key = key or text[0].split("'")[1]
        siblings = _siblings(key, overrides, compose)
        return f"{key}: unknown key; {_hint(key.rpartition('.')[2], siblings)}"
    if "does not support deletion" in reason:
        return f"{key}: cannot be removed; set it to another value"
    if isinstance(cause, MissingMandatoryValue):
        return f"{key}: has no value; set it, or choose another {key.split('.')[0]}"
    if isinstance(cause, ValidationError):
        return f"{key}: {reason.rstrip('.')}; give it such a value"
    return f"{key}: {reason}" if key else " ".join(text)


def _siblings(key: str, overrides: list[str], compose: Compose) -> list[str]:
    """The keys beside ``key`` when the configuration groups alone are chosen."""
    names = {override: override.split("=")[0] for override in overrides}
    with contextlib.suppress(HydraException, OmegaConfBaseException):
        cfg = compose([o for o, name in names.items() if "." not in name and name != key])
        parent = OmegaConf.select(cfg, key.rpartition(".")[0]) if "." in key else cfg
        return [str(name) for name in parent or ()]
    return []


def _choices(group: str) -> list[str]:
    """The YAML files of a configuration group."""
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
