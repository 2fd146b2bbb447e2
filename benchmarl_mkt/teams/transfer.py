"""Transfer to new tasks (the paper's Table V): a trained team's parts on tasks new to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarl_mkt.environments import MultiTaskClass
from benchmarl_mkt.teams.evaluation import (
    Policy,
    Score,
    copies_for,
    greedy_policy,
    play_on,
    random_policy,
    stage,
)
from benchmarl_mkt.teams.export import team_specs
from benchmarl_mkt.teams.folder import write_team
from benchmarl_mkt.teams.frozen import FrozenTeam

_SELECTION = 1_000_003  # how far the seed of choosing is from the seed of scoring


class Transfer(NamedTuple):
    """What the parts of a team do on a new task without training.

    Attributes:
        sources: task of the team -> score of its embedding, the trunk and its head; only tasks of
            the same sizes.
        best: the one that does best.
        score: its score on fresh episodes, others than those of ``sources``.
        random: score of uniform random actions on the same fresh episodes.
        task: configuration of the new task, as a task set of one.
    """

    sources: dict[str, Score]
    best: str
    score: Score
    random: Score
    task: dict[str, Any]


def zero_shot(
    team: Mapping[str, FrozenTeam], task: str, episodes: int, seed: int, source: str | None = None
) -> Transfer:
    """Play a new task with the parts that the team has for the tasks it knows.

    Args:
        team: as :func:`~benchmarl_mkt.teams.load_team` gives it.
        task: the new task, such as ``smax/4s4z``.
        episodes: episodes for every score.
        seed: seed of the episodes.
        source: the team's task whose parts are used; None tries all that fit.

    Raises:
        ValueError: if there is no such source, or none whose sizes are those of the new task.
    """
    config = next(iter(team.values())).metadata["task"]
    new = MultiTaskClass("transfer", {**config, "tasks": [task], "only": None})
    (name,) = (entry.name for entry in new.team_configs)
    fitting = _fitting(team, new, name, task, source)

    with stage(new, min(copies_for(team), episodes)) as env:

        def score(policy: Policy, seed: int) -> Score:
            return play_on(env, policy, episodes, seed).score(name)

        sources = {
            known: score(greedy_policy({name: agents}), (seed + _SELECTION) % 2**32)
            for known, agents in fitting.items()
        }
        best = max(sources, key=lambda known: sources[known].level)
        chosen = score(greedy_policy({name: fitting[best]}), seed)
        return Transfer(
            sources, best, chosen, score(random_policy([name]), seed), new.single(name).identity
        )


def save_team(
    team: Mapping[str, FrozenTeam], found: Iterable[Transfer], episodes: int, folder: Path
) -> None:
    """Write the best parts of a team as a team for the new tasks, which can teach in its turn.

    Args:
        team: what :func:`zero_shot` was given.
        found: what it gave, for every new task.
        episodes: of its scores.
        folder: of the new team; tasks that are there are kept as they are.
    """
    for transfer in found:
        source = team[transfer.best]
        scores = {"score": transfer.score, "random": transfer.random}
        metadata = {
            **{key: value for key, value in source.metadata.items() if key != "recipe"},
            **{k: {**v.returns._asdict(), "episodes": episodes} for k, v in scores.items()},
            "task": transfer.task,
        }
        (entry,) = transfer.task["tasks"]
        write_team(folder / entry["name"], source.model.state_dict(), metadata)


def _fitting(
    team: Mapping[str, FrozenTeam], new: MultiTaskClass, name: str, task: str, source: str | None
) -> dict[str, FrozenTeam]:
    """The team's parts for tasks of the new one's sizes."""
    if source is not None and source not in team:
        raise ValueError(f"source: {source!r} is not one of the team's tasks {sorted(team)}")
    env = new.get_env_fun(1, continuous_actions=False, seed=0, device="cpu")()
    specs = team_specs(env, name)
    env.close()
    chosen = team if source is None else {source: team[source]}
    fitting = {known: agents for known, agents in chosen.items() if agents.specs == specs}
    if not fitting:
        own, *others = (
            tuple(vars(sizes).values())
            for sizes in (specs, *(agents.specs for agents in chosen.values()))
        )
        raise ValueError(
            f"tasks: {task} has (agents, observation, actions) = {own}, the team "
            f"{dict(zip(chosen, others))}; without training only equal sizes transfer; train a new "
            "embedding and head: benchmarl run algorithm=mkt algorithm.trunk=FOLDER"
        )
    return fitting


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
