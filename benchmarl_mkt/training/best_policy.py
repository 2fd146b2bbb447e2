"""The best policy of a run: what its absolute metric is measured on."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor

from benchmarl_mkt.teams.evaluation import greedy_policy, play_on, random_policy, stage_of
from benchmarl_mkt.teams.export import teams_of
from benchmarl_mkt.training.monitors import RunCallback, episodes_won

_EPISODES = 10  # of random play, at least; games may be slow
_SEED = 2**31  # plus frames: far from the seeds of training and scoring


class Evaluation(NamedTuple):
    """One evaluation."""

    frames: int  # collected before it
    returns: Tensor  # the tasks' mean returns [K]
    levels: Tensor  # what counts, [K]: the win rate of a task that knows victories, else the return
    weights: dict[str, Tensor]  # the policy's


class BestPolicy(RunCallback):
    """Keeps the policy's weights of a run's best evaluation.

    It has the highest mean over the tasks of the win rate, or of the return if the task knows no
    victory. Returns of a set of several tasks count in standard deviations of what uniform random
    play earns in as many episodes of the task as an evaluation has, at least ten: a unit that is
    known before training, the same for every method on the set, and near the distance from random
    play to a teacher on the paper's tasks. Where random play always earns the same, and of groups
    that are no task set, returns count as they are. Among equals, common with win rates, the mean
    return decides, then the first.

    An algorithm with ``averaged_weights`` (a context in which its policy has those of an averaged
    target network) is evaluated with them as well, on as many episodes.

    Works with any algorithm. Attribute ``best`` is the best evaluation so far; None before any.
    """

    def __init__(self):
        super().__init__()
        self.best: Evaluation | None = None
        self.units: Tensor | None = None  # of the tasks' levels [K]

    def on_evaluation_end(self, rollouts: list[TensorDictBase]) -> None:
        """Consider the policy of this evaluation, and the averaged one."""
        groups = self.experiment.algorithm.group_map
        returns = {group: _mean_return(rollouts, group) for group in groups}
        won = {group: episodes_won(rollouts, group) for group in groups}
        self._consider(returns, {group: flags for group, flags in won.items() if flags is not None})
        averaged = getattr(self.experiment.algorithm, "averaged_weights", None)
        if averaged is not None:
            experiment = self.experiment
            fresh = experiment.config.evaluation_episodes, _SEED + experiment.total_frames
            with averaged(), stage_of(experiment) as env:
                played = play_on(env, greedy_policy(teams_of(experiment)), *fresh)
                self._consider({g: r.mean() for g, r in played.returns.items()}, played.won)

    def _consider(self, mean_returns: dict[str, Tensor], won: dict[str, Tensor]) -> None:
        """Keep the policy as it is now, if it is the best."""
        returns = torch.stack([*mean_returns.values()]).cpu()
        levels = [
            won[group].cpu().float().mean() if group in won else mean
            for group, mean in zip(mean_returns, returns)
        ]
        policy = self.experiment.policy.state_dict()
        self._keep(Evaluation(self.experiment.total_frames, returns, torch.stack(levels), policy))

    def _keep(self, evaluation: Evaluation) -> None:
        """Keep a copy of an evaluation, if it is the best."""
        if self.units is None:
            self.units = self._units()
        if self.best is None or self._rank(evaluation) > self._rank(self.best):
            self.best = copy.deepcopy(evaluation)

    def _rank(self, evaluation: Evaluation) -> tuple[float, float]:
        levels, returns = evaluation.levels.double(), evaluation.returns.double()
        return float((levels / self.units).mean()), float(returns.mean())

    def _units(self) -> Tensor:
        tasks, experiment = list(self.experiment.algorithm.group_map), self.experiment
        units = torch.ones(len(tasks), dtype=torch.double)
        teams = getattr(experiment.test_env, "teams", {})
        if len(teams) > 1 and not all(team.knows_wins for team in teams.values()):
            episodes = max(_EPISODES, experiment.config.evaluation_episodes)
            with stage_of(experiment) as env:
                played = play_on(env, random_policy(tasks), episodes, _SEED)
            for index, task in enumerate(tasks):
                returns = played.returns[task].double()
                spread, rounding = float(returns.std()), 1e-6 * (1 + float(returns.abs().max()))
                if task not in played.won and spread > rounding:
                    units[index] = spread
        return units

    def on_state_dict(self, state_dict: dict[str, Any]) -> None:
        kept = [] if self.best is None else [self.best._asdict()]
        state_dict["best_policy"] = {"evaluations": kept, "units": self.units}

    def on_load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = state_dict["best_policy"]
        self.best, self.units = None, state.get("units")
        for kept in state["evaluations"]:  # checkpoints of older versions hold several
            self._keep(Evaluation(**kept))

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Let the experiment's policy have the best evaluation's weights meanwhile, if any."""
        if self.best is None:
            yield
            return
        policy = self.experiment.policy
        final = copy.deepcopy(policy.state_dict())
        policy.load_state_dict(self.best.weights)
        try:
            yield
        finally:
            policy.load_state_dict(final)


def _mean_return(rollouts: list[TensorDictBase], group: str) -> Tensor:
    returns = [td.get(("next", group, "reward")).sum(0).mean() for td in rollouts]
    return torch.stack(returns).mean()
