"""The best policy of a run: what its absolute metric is measured on."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from benchmarl.experiment.callback import Callback
from tensordict import TensorDictBase
from torch import Tensor

from benchmarl_mkt.evaluation import Episodes, play_in
from benchmarl_mkt.win_rates import episodes_won

_SEED = 2**31  # plus frames: far from the seeds of training and scoring


class Evaluation(NamedTuple):
    """One evaluation.

    Attributes:
        frames: frames collected before it.
        returns: the tasks' mean returns [K].
        levels: what counts, [K]: the win rate of a task that knows victories, else the return.
        weights: the policy's.
    """

    frames: int
    returns: Tensor
    levels: Tensor
    weights: dict[str, Tensor]

    def matches(self, other: Evaluation) -> bool:
        """Whether it is as good on every task: more battles won, or as many and the return."""
        higher, same = self.levels > other.levels, self.levels == other.levels
        return bool((higher | (same & (self.returns >= other.returns))).all())


class BestPolicy(Callback):
    """Keeps the policy's weights of the evaluations among which the best one is.

    With one task the best evaluation has the highest mean return, or the highest win rate if the
    task knows victories. With several it has the highest mean over the tasks of the win rate, or
    of the return scaled from the run's worst evaluation of that task (0) to its best (1): no task's
    unit counts more than another's. Among equals, common with win rates, the mean return decides.
    Only evaluations that no other one matches on every task are kept; the best is always among
    them.

    An algorithm with ``averaged_weights`` (a context in which its policy has those of an averaged
    target network) is evaluated with them as well, on as many episodes.

    Works with any algorithm. Attribute ``evaluations`` holds those kept, oldest first.
    """

    def __init__(self):
        super().__init__()
        self.evaluations: list[Evaluation] = []
        self.low: Tensor | None = None
        self.high: Tensor | None = None

    def on_evaluation_end(self, rollouts: list[TensorDictBase]) -> None:
        """Consider the policy of this evaluation, and the averaged one."""
        groups = self.experiment.algorithm.group_map
        returns = {group: _mean_return(rollouts, group) for group in groups}
        won = {group: episodes_won(rollouts, group) for group in groups}
        self._consider(returns, {group: flags for group, flags in won.items() if flags is not None})
        averaged = getattr(self.experiment.algorithm, "averaged_weights", None)
        if averaged is not None:
            with averaged():
                played = self._play()
                self._consider({g: r.mean() for g, r in played.returns.items()}, played.won)

    def _play(self) -> Episodes:
        """Play as many fresh episodes as an evaluation has."""
        experiment = self.experiment
        episodes, seed = experiment.config.evaluation_episodes, _SEED + experiment.total_frames
        return play_in(experiment, experiment.policy, episodes, seed)

    def _consider(self, mean_returns: dict[str, Tensor], won: dict[str, Tensor]) -> None:
        """Keep the policy as it is now, unless another one is as good on every task."""
        returns = torch.stack([*mean_returns.values()]).cpu()
        levels, low, high = returns.clone(), returns.clone(), returns.clone()
        for index, group in enumerate(mean_returns):
            if group in won:
                levels[index], low[index], high[index] = won[group].float().mean(), 0.0, 1.0
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)
        found = Evaluation(self.experiment.total_frames, returns, levels, {})
        if any(kept.matches(found) for kept in self.evaluations):
            return
        self.evaluations = [kept for kept in self.evaluations if not found.matches(kept)]
        weights = copy.deepcopy(self.experiment.policy.state_dict())
        self.evaluations.append(found._replace(weights=weights))

    @property
    def best(self) -> Evaluation | None:
        """The best evaluation so far; None before the first."""
        if not self.evaluations:
            return None
        span = (self.high - self.low).clamp(min=1e-9)
        return max(
            self.evaluations,
            key=lambda kept: (
                float(((kept.levels - self.low) / span).mean()),
                float(kept.returns.mean()),
            ),
        )

    def on_state_dict(self, state_dict: dict[str, Any]) -> None:
        kept = [evaluation._asdict() for evaluation in self.evaluations]
        state_dict["best_policy"] = {"evaluations": kept, "low": self.low, "high": self.high}

    def on_load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = state_dict["best_policy"]
        self.evaluations = [Evaluation(**kept) for kept in state["evaluations"]]
        self.low, self.high = state["low"], state["high"]

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

    def __getstate__(self) -> dict[str, Any]:
        """BenchMARL pickles an experiment's callbacks, without the experiment."""
        return {**self.__dict__, "experiment": None}


def _mean_return(rollouts: list[TensorDictBase], group: str) -> Tensor:
    returns = [td.get(("next", group, "reward")).sum(0).mean() for td in rollouts]
    return torch.stack(returns).mean()
