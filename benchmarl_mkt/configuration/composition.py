"""Hydra's composition of a command line, ahead of the run: its errors, in one line each.

Nothing here imports torch: the commonest mistakes are found before that takes seconds.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from hydra.core.plugins import Plugins
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
_LAYER = re.compile(r"torch(_geometric)?\.nn\.[A-Z]\w*")
_SCHEMA = re.compile(r"^\s*- (\w+_config)(?:@\w+)?\s*$", re.MULTILINE)


def benchmarl_conf() -> Path:
    """Return BenchMARL's folder of YAML files, without importing it."""
    return Path(find_spec("benchmarl").submodule_search_locations[0]) / "conf"


def jobs(overrides: list[str]) -> list[list[str]]:
    """Return the overrides of every job of a command line; none if Hydra's own flags decide.

    Raises:
        ValueError: if Hydra cannot read an override.
    """
    flags = {override for override in overrides if override.startswith(("-", "hydra.mode"))}
    if flags - {"-m", "--multirun"}:
        return []
    plain = [override for override in overrides if override not in flags]
    try:
        parsed = OverridesParser.create().parse_overrides(plain)
    except OverrideParseException as error:
        raise ValueError(_explain(error, plain, _compose_yaml)) from error
    if not flags:
        return [plain]
    if any(o.value_type in _OPEN_SWEEPS or o.key_or_group == "hydra/sweeper" for o in parsed):
        return []
    return BasicSweeper.split_arguments(parsed, None)[0]


def check_keys(overrides: list[str]) -> None:
    """Compose the YAML files alone: finds unknown choices and keys, and what Hydra cannot read.

    Values are not checked: their types are in the schemas, whose modules take seconds to import.

    Raises:
        ValueError: if the composition fails.
    """
    plugins = Plugins.instance().discover(SearchPathPlugin)
    others = [p for p in plugins if not p.__module__.startswith("hydra_plugins.benchmarl_mkt")]
    if others or any(override.startswith("hydra.searchpath") for override in overrides):
        return  # there may be more choices than are known here
    with _stand_ins_for_schemas():
        _attempt(_compose_yaml, overrides)


@contextlib.contextmanager
def composed(overrides: list[str]) -> Iterator[DictConfig]:
    """Compose the configuration with its schemas, as the run will; for the time of the context.

    Raises:
        ValueError: if the composition fails, a value has a wrong type or a key no meaning.
    """
    holder = HydraConfig.instance()
    before, cfg = holder.cfg, _attempt(_compose_all, overrides)
    try:
        holder.set_config(cfg)  # interpolations ask it for choices
        check_meaning(cfg)
        yield cfg
    finally:
        holder.cfg = before


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


def check_classes(cfg: DictConfig) -> None:
    """Check that the classes that a configuration names are layers: BenchMARL calls them.

    For configurations that come from a file and not from the user's hand.

    Raises:
        ValueError: if one is neither of torch.nn nor of torch_geometric.nn.
    """
    content = {key: cfg[key] for key in KEYS}
    for key, value in _leaves(OmegaConf.to_container(OmegaConf.create(content), resolve=True)):
        if key.endswith("class") and value is not None and not _LAYER.fullmatch(str(value)):
            raise ValueError(f"{key}: {value!r} must be a class of torch.nn")


def _leaves(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict | list):
        named = content.items() if isinstance(content, dict) else enumerate(content)
        for name, value in named:
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, content


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
    loader = ConfigLoaderImpl(search_path)
    return loader.load_configuration("config", overrides, RunMode.RUN, from_shell=False)


def _compose_all(overrides: list[str]) -> DictConfig:
    with initialize_config_dir(str(benchmarl_conf()), version_base=None):
        return hydra_compose("config", overrides, return_hydra_config=True)


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
        return f"{group}: there is no {name!r}; {_hint(name, _choices(group))}"
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
