"""The agents of a BenchMARL experiment as frozen teams, in memory or in folders."""

from __future__ import annotations

import shutil
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


def scored_team(experiment: Experiment, group: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Score the agents of a group on fresh episodes: their weights, and what ``teacher.json`` says.

    Returns:
        The network's ``state_dict`` and the metadata, as
        :func:`~benchmarl_mkt.teams.folder.write_team` takes them.
    """
    team, task = _team_of(experiment, group), experiment.task.single(group)
    metadata = {
        **team.metadata,
        "task": task.identity,
        "copies": copies_of(experiment),
        "model": model_to_dict(team.config),
        "share_params": experiment.config.share_policy_params,
        "algorithm": experiment.algorithm_name,
        "seed": experiment.seed,
        "frames": int(experiment.total_frames),
        "versions": {p: version(p) for p in ("benchmarl", "torchrl", "tensordict", "torch")},
    }
    values, masks = [], []

    def watch(_: str, outputs: Tensor, data: TensorDictBase) -> None:
        active = data.get(("active", group)).squeeze(-1)
        values.append(outputs[active].flatten(0, 1).cpu())
        masks.append(data.get((group, "action_mask"))[active].flatten(0, 1).cpu())

    episodes = task.final_episodes
    policies = {"score": greedy_policy({group: team}, watch), "random": random_policy([group])}
    device = next(team.parameters()).device
    with stage(task, min(copies_of(experiment), episodes), device) as env:
        for name, policy in policies.items():
            interval = play_on(env, policy, episodes, _SCORING_SEED).score(group).returns
            metadata[name] = {**interval._asdict(), "episodes": episodes}
    seen = torch.cat(values), torch.cat(masks)
    metadata["temperature"] = calibrated_temperature(*seen, metadata["kind"])
    return team.model.state_dict(), metadata


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


def export_team(experiment: Experiment, folder: Path) -> Path:
    """Write the experiment's agents of every group, as they are, into ``folder``.

    A team that is there is replaced. See :func:`export_teacher`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for group in experiment.algorithm.group_map:
        export_teacher(experiment, group, folder / group)
    return folder
