"""``benchmarl tasks``: what can be composed into a task set."""

from __future__ import annotations

import difflib
import os
import warnings
from argparse import ArgumentParser, Namespace
from importlib.util import find_spec
from pathlib import Path

from benchmarl_mkt.cli.common import Verb, make_console

# The module that each environment needs, and what installs it.
_NEEDS = {
    "vmas": ("vmas", "benchmarl-mkt[vmas]"),
    "mpe": ("mpe2", "benchmarl-mkt[mpe]"),
    "smax": ("jaxmarl", "benchmarl-mkt[smax]"),
    "smac": ("smacv2", "benchmarks/smax.md says how"),
    "smacv2": ("smacv2", "benchmarks/smax.md says how"),
    "meltingpot": ("meltingpot", "see BenchMARL's documentation"),
    "pettingzoo": ("pettingzoo.mpe.simple_spread_v3", "use mpe of benchmarl-mkt[mpe]"),
    "magent": ("magent2", "see BenchMARL's documentation"),
}


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="a task or a set")


def _main(options: Namespace) -> None:
    import benchmarl_mkt

    benchmarl_mkt.register()
    from benchmarl.environments import task_config_registry as registry

    for name in options.names:
        if name not in registry:
            close = difflib.get_close_matches(name, registry, 3, 0.5)
            hint = f"did you mean {' or '.join(close)}?" if close else "see benchmarl tasks"
            raise ValueError(f"tasks: {name!r} is not registered; {hint}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = _teams(options.names) if options.names else _overview()
    make_console().print(table)


def _overview():
    from rich.markup import escape
    from rich.table import Table

    discrete, sets = _registered()
    table = Table("environment", "installed", "tasks with discrete actions", show_lines=True)
    for environment, tasks in discrete.items():
        module, remedy = _NEEDS.get(environment, (None, ""))
        there = module is None or _is_installed(module)
        shown = ", ".join(tasks) if there else f"{len(tasks)} tasks, such as {tasks[0]}"
        table.add_row(environment, "yes" if there else escape(f"no: {remedy}"), shown)
    table.add_row("multitask", "yes", "\n".join(f"{k}: {', '.join(v)}" for k, v in sets.items()))
    return table


def _is_installed(module: str) -> bool:
    """Whether a module is there, and for smacv2 the game that it starts."""
    try:
        if find_spec(module) is None:
            return False
    except ImportError:  # later releases of pettingzoo say so that they have no MPE
        return False
    game = Path(os.environ.get("SC2PATH", "~/StarCraftII")).expanduser()
    return module != "smacv2" or game.is_dir()


def _registered() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Tasks by environment, and task sets with their tasks."""
    from benchmarl.environments import task_config_registry as registry

    discrete: dict[str, list[str]] = {}
    sets: dict[str, list[str]] = {}
    for name, task in registry.items():
        environment, _, short = name.partition("/")
        if environment != "multitask":
            if task.get_from_yaml().supports_discrete_actions():
                discrete.setdefault(environment, []).append(short)
        elif short != "custom":  # empty: its tasks are given on the command line
            sets[short] = [team.task for team in task.get_from_yaml().team_configs]
    return dict(sorted(discrete.items())), sets


def _teams(names: list[str]):
    from rich.table import Table

    columns = ("team", "agents", "observation", "actions", "state", "steps")
    table = Table("task", *columns, caption="Sizes per agent; state: of the whole team.")
    for column in table.columns[2:]:
        column.justify = "right"
    for name in names:
        try:
            task_set = _as_set(name)
            env = task_set.get_env_fun(1, continuous_actions=False, seed=0, device="cpu")()
        except ImportError as error:
            raise ValueError(f"tasks: {name} cannot be built: {error}") from error
        sources = {config.name: config.task for config in task_set.team_configs}
        for team in env.teams.values():
            sizes = (team.n_agents, team.observation_size, team.n_actions, team.state_size)
            table.add_row(sources[team.name], team.name, *map(str, (*sizes, team.max_steps)))
        env.close()
    return table


def _as_set(name: str):
    from benchmarl.environments import task_config_registry as registry

    from benchmarl_mkt.environments import MultiTaskClass

    if name == "multitask/custom":
        raise ValueError("tasks: 'multitask/custom' has no tasks of its own; name those you mean")
    if name.startswith("multitask/"):
        return registry[name].get_from_yaml()
    return MultiTaskClass("shown", {"tasks": [name]})


TASKS = Verb(
    "list the tasks and task sets; show their teams' sizes",
    """Without names, list every task with discrete actions that a set can be composed of, and
the sets that are there. With names (of tasks or sets), build them and show what their agents see
and do: sizes as a student gets them, zero padding and agent ids included.""",
    "  benchmarl tasks multitask/mpe vmas/balance",
    _options,
    _main,
)
