"""Transfer to new tasks (the paper's Table V): a trained team's parts on tasks new to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarl_mkt.environments import MultiTaskClass
from benchmarl_mkt.models import EntityLayout
from benchmarl_mkt.models.entity import EntityModel
from benchmarl_mkt.teams.evaluation import (
    Policy,
    Score,
    copies_for,
    greedy_policy,
    play_on,
    random_policy,
    stage,
)
from benchmarl_mkt.teams.expert import build_network, load_weights, own_network
from benchmarl_mkt.teams.export import team_specs
from benchmarl_mkt.teams.folder import write_team
from benchmarl_mkt.teams.frozen import FrozenTeam

EVERY = "all parts"  # of a network over entities, together; no task has a space in its name
_SELECTION = 1_000_003  # how far the seed of choosing is from the seed of scoring


class Transfer(NamedTuple):
    """What the parts of a team do on a new task without training.

    Attributes:
        sources: task of the team -> score of its embedding, the trunk and its head; only tasks of
            the same sizes. With a single candidate, as of a network over entities: none.
        best: the one that does best.
        score: its score on fresh episodes, others than those of ``sources``.
        random: score of uniform random actions on the same fresh episodes.
        team: the best parts as a team of the new task.
    """

    sources: dict[str, Score]
    best: str
    score: Score
    random: Score
    team: FrozenTeam


def zero_shot(
    team: Mapping[str, FrozenTeam],
    task: str | Mapping[str, Any],
    episodes: int,
    seed: int,
    source: str | None = None,
) -> Transfer:
    """Play a new task with the parts that the team has for the tasks it knows.

    A team whose network is over entities plays any task that shows types it knows, of any size,
    with all its parts at once.

    Args:
        team: as :func:`~benchmarl_mkt.teams.load_team` gives it.
        task: the new task, such as ``smax/4s4z``, or an entry of ``task.tasks``.
        episodes: episodes for every score.
        seed: seed of the episodes.
        source: the team's task whose parts are used; None tries all that fit.

    Raises:
        ValueError: if there is no such source, or none that fits the new task.
    """
    config = next(iter(team.values())).metadata["task"]
    new = MultiTaskClass("transfer", {**config, "tasks": [task], "only": None})
    ((name, known_as),) = ((entry.name, entry.task) for entry in new.team_configs)
    if source is not None and source not in team:
        raise ValueError(f"source: {source!r} is not one of the team's tasks {sorted(team)}")
    chosen = team if source is None else {source: team[source]}

    with stage(new, min(copies_for(team), episodes)) as env:
        shown = {"task": new.single(name).identity, "specs": vars(team_specs(env, name))}
        fitting = _fitting(chosen, known_as, shown, env.teams[name].layout)

        def score(policy: Policy, seed: int) -> Score:
            return play_on(env, policy, episodes, seed).score(name)

        sources = {
            known: score(greedy_policy({name: agents}), (seed + _SELECTION) % 2**32)
            for known, agents in fitting.items()
            if EVERY not in fitting
        }
        best = max(sources, key=lambda known: sources[known].level, default=EVERY)
        reached = score(greedy_policy({name: fitting[best]}), seed)
        return Transfer(sources, best, reached, score(random_policy([name]), seed), fitting[best])


def save_team(found: Iterable[Transfer], folder: Path) -> None:
    """Write what :func:`zero_shot` gave as a team for the new tasks, which can teach in its turn.

    Args:
        found: for every new task.
        folder: of the new team; tasks that are there are kept as they are.
    """
    for transfer in found:
        scores = {"score": transfer.score, "random": transfer.random}
        metadata = transfer.team.metadata | {key: one.described for key, one in scores.items()}
        (entry,) = metadata["task"]["tasks"]
        write_team(folder / entry["name"], transfer.team.model.state_dict(), metadata)


def _fitting(
    chosen: Mapping[str, FrozenTeam],
    task: str,
    shown: Mapping[str, Any],
    layout: EntityLayout | None,
) -> dict[str, FrozenTeam]:
    """Those of the chosen parts that can play the new task, as teams of it.

    ``shown`` is what ``teacher.json`` says of the task: ``task`` and ``specs``.
    """
    networks = _over_entities(chosen) if layout else {}
    if layout and networks:
        fitting = _resized(chosen, networks, {**shown, "layout": layout.to_dict()}, layout)
        types = [layout.type, *(part.type for part in layout.lists)]
        parts = {name for net in networks.values() for name in net.parts}
        known = {name.rpartition(":")[0] for name in parts - {"attention"}}  # it is of all types
        misfit = (
            f"tasks: {task} shows {types}, the team knows {sorted(known)}; all must be known, with "
            "the same sizes, and model.agent_id=true ties a team to its number of agents"
        )
    else:
        fitting = {
            known: FrozenTeam(agents.model, agents.config, {**_learned(agents), **shown})
            for known, agents in chosen.items()
            if vars(agents.specs) == shown["specs"]
        }
        sizes = {known: tuple(vars(agents.specs).values()) for known, agents in chosen.items()}
        misfit = (
            f"tasks: {task} has (agents, observation, actions) = {tuple(shown['specs'].values())}, "
            f"the team {sizes}; without training only equal sizes transfer"
        )
    if not fitting:
        raise ValueError(
            f"{misfit}; train what is new: benchmarl run algorithm=mkt algorithm.trunk=FOLDER"
        )
    return fitting


def _learned(agents: FrozenTeam) -> dict[str, Any]:
    """What ``teacher.json`` says of a team, but for how it was trained as a teacher."""
    return {key: value for key, value in agents.metadata.items() if key != "recipe"}


def _over_entities(team: Mapping[str, FrozenTeam]) -> dict[str, EntityModel]:
    """The team's parts whose observations are described to a network over entities."""
    networks = ((known, own_network(agents.model)) for known, agents in team.items())
    return {
        known: network
        for known, network in networks
        if isinstance(network, EntityModel) and network.layout is not None
    }


def _resized(
    team: Mapping[str, FrozenTeam],
    networks: Mapping[str, EntityModel],
    metadata: dict[str, Any],
    layout: EntityLayout,
) -> dict[str, FrozenTeam]:
    """The same networks for a task of other sizes: all at once, if they were trained as one."""
    states = {known: network.state_dict() for known, network in networks.items()}
    if _agree(states.values()):
        first = next(iter(states))
        together = {key: value for state in states.values() for key, value in state.items()}
        candidates = {EVERY: (team[first], together)}
    else:
        candidates = {known: (team[known], state) for known, state in states.items()}
    fitting = {}
    for known, (agents, weights) in candidates.items():
        about = {key: value for key, value in _learned(agents).items() if key != "expert"}
        about |= metadata
        model, _ = build_network(about)
        own = dict(_tensors(model.state_dict()))
        if all(
            getattr(weights.get(key), "shape", None) == value.shape for key, value in own.items()
        ):
            load_weights(model, {key: weights[key] for key in own})
            fitting[known] = FrozenTeam(model.requires_grad_(False).eval(), agents.config, about)
    return fitting


def _agree(states: Iterable[Mapping[str, Any]]) -> bool:
    """Whether networks have the same weights where they have the same parts."""
    seen: dict[str, Tensor] = {}
    return all(
        torch.equal(seen.setdefault(key, value), value)
        for state in states
        for key, value in _tensors(state)
    )


def _tensors(state: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Those entries of a ``state_dict`` that are weights."""
    return ((key, value) for key, value in state.items() if isinstance(value, Tensor))


def to_json(found: Mapping[str, Transfer]) -> dict[str, Any]:
    """Return plain values: task -> sources, best, score, random."""

    def plain(score: Score) -> dict[str, Any]:
        won = None if score.won is None else score.won._asdict()
        return {"return": score.returns._asdict(), "win_rate": won}

    return {
        task: {
            "sources": {known: plain(score) for known, score in transfer.sources.items()},
            "best": transfer.best,
            "score": plain(transfer.score),
            "random": plain(transfer.random),
        }
        for task, transfer in found.items()
    }
