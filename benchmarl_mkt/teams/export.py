"""The agents of a BenchMARL experiment as frozen teams, in memory or in folders."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from benchmarl.experiment import Experiment
from benchmarl.models.common import Model
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase

from benchmarl_mkt.environments import MultiTaskClass
from benchmarl_mkt.models.multitask import MultiTaskModel, as_multitask
from benchmarl_mkt.models.serialisation import model_to_dict
from benchmarl_mkt.teams.evaluation import copies_of, greedy_policy, play_on, random_policy, stage
from benchmarl_mkt.teams.folder import TeamSpecs, write_team
from benchmarl_mkt.teams.frozen import FrozenTeam, calibrated_temperature

_SCORING_SEED = 10_000  # far from the seeds of training


def team_specs(env: EnvBase, name: str) -> TeamSpecs:
    """Return the sizes of a team of a :class:`~benchmarl_mkt.environments.MultiTaskEnv`."""
    team = env.teams[name]
    return TeamSpecs(team.n_agents, team.observation_size, team.n_actions)


def teams_of(experiment: Experiment) -> dict[str, FrozenTeam]:
    """Return the agents of every group, with the weights that the experiment's networks have."""
    return {group: _team_of(experiment, group) for group in experiment.algorithm.group_map}


def _team_of(experiment: Experiment, group: str) -> FrozenTeam:
    policy, config = experiment.algorithm.get_policy_for_loss(group), experiment.model_config
    model = next(module for module in policy.modules() if isinstance(module, Model))
    if isinstance(model, MultiTaskModel):  # whose trunk alone the configuration may have named
        config = as_multitask(config)
    metadata = {
        "kind": "values" if model.out_key[-1] == "action_value" else "logits",
        "specs": vars(team_specs(experiment.test_env, group)),
    }
    layout = getattr(model, "layout", None)
    if layout is not None:  # what the network needs to know besides sizes
        metadata["layout"] = layout.to_dict()
    return FrozenTeam(model, config, metadata)


class Outputs:
    """Keeps what teams put out as they play; the ``watch`` of :func:`greedy_policy`."""

    def __init__(self) -> None:
        self._seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def __call__(self, task: str, outputs: Tensor, data: TensorDictBase) -> None:
        """Keep outputs [B, N, A] and masks of the steps of ``data`` that belong to episodes."""
        active, mask = data.get(("active", task)).squeeze(-1), data.get((task, "action_mask"))
        rows = tuple(entry[active].flatten(0, 1).cpu() for entry in (outputs, mask))
        self._seen.setdefault(task, []).append(rows)

    def temperature(self, task: str, kind: str) -> float:
        """Calibrate t of Eq. 3 from what was kept."""
        values, masks = zip(*self._seen[task])
        return calibrated_temperature(torch.cat(values), torch.cat(masks), kind)


def scored_team(experiment: Experiment, group: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Score the agents of a group on fresh episodes: their weights, and what ``teacher.json`` says.

    Returns:
        The network's ``state_dict`` and the metadata, as
        :func:`~benchmarl_mkt.teams.folder.write_team` takes them.
    """
    team, task = _team_of(experiment, group), experiment.task.single(group)
    scores = team_scores(team, task, task.final_episodes, copies_of(experiment))
    return team.model.state_dict(), {**_metadata(experiment, group, team), **scores}


def _metadata(experiment: Experiment, group: str, team: FrozenTeam) -> dict[str, Any]:
    """What ``teacher.json`` says, scores and temperature aside."""
    return {
        **team.metadata,
        "task": experiment.task.single(group).identity,
        "copies": copies_of(experiment),
        "model": model_to_dict(team.config),
        "share_params": experiment.config.share_policy_params,
        "algorithm": experiment.algorithm_name,
        "seed": experiment.seed,
        "frames": int(experiment.total_frames),
        "versions": versions(),
    }


def team_scores(
    team: FrozenTeam, task: MultiTaskClass, episodes: int, copies: int
) -> dict[str, Any]:
    """Play fresh episodes of a set of one task: what ``teacher.json`` says of how the team plays.

    Args:
        team: the team.
        task: the set.
        episodes: for its score and for that of random actions.
        copies: episodes at a time.

    Returns:
        ``score`` and ``random``: mean return, 95 % interval, episodes; and ``temperature``.
    """
    (name,) = (config.name for config in task.team_configs)
    outputs = Outputs()
    policies = {"score": greedy_policy({name: team}, outputs), "random": random_policy([name])}
    with stage(task, min(copies, episodes), next(team.parameters()).device) as env:
        scores: dict[str, Any] = {
            who: play_on(env, policy, episodes, _SCORING_SEED).score(name).described
            for who, policy in policies.items()
        }
    scores["temperature"] = outputs.temperature(name, team.kind)
    return scores


def versions() -> dict[str, str]:
    """Return the versions of what teams are trained and played with."""
    return {name: version(name) for name in ("benchmarl", "torchrl", "tensordict", "torch")}


def export_teacher(experiment: Experiment, group: str, path: str | Path) -> Path:
    """Write the agents of ``group`` of any discrete BenchMARL experiment as a teacher's folder.

    The experiment's task must be a task set (:class:`~benchmarl_mkt.environments.MultiTaskClass`),
    so that the teacher sees what the student will see.

    Raises:
        ValueError: if the task is no task set, has no such group, or the folder exists.
    """
    path = Path(path).expanduser()
    if not isinstance(experiment.task, MultiTaskClass):
        raise ValueError(
            "task: a teacher must come from a task set, such as task=multitask/custom "
            "'task.tasks=[vmas/balance]'"
        )
    if group not in experiment.algorithm.group_map:
        raise ValueError(f"group: {group!r} is not one of {sorted(experiment.algorithm.group_map)}")
    if path.exists():
        raise ValueError(f"path: {path} exists; choose another folder or remove it")
    return write_team(path, *scored_team(experiment, group))


def export_team(
    experiment: Experiment, folder: Path, scores: Mapping[str, Mapping[str, Any]] | None = None
) -> Path:
    """Write the experiment's agents of every group, as they are, into ``folder``.

    A team that is there is replaced. See :func:`export_teacher`.

    Args:
        experiment: with a task set.
        folder: the team's.
        scores: task -> ``score``, ``random`` and ``temperature``, if the agents have played; by
            default they play now.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for group in experiment.algorithm.group_map:
        if scores is None:
            export_teacher(experiment, group, folder / group)
        else:
            team = _team_of(experiment, group)
            metadata = {**_metadata(experiment, group, team), **scores[group]}
            write_team(folder / group, team.model.state_dict(), metadata)
    return folder
