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


class Evaluation(NamedTuple):
    """One evaluation: frames collected, mean returns of the tasks [K], the policy's weights."""

    frames: int
    returns: Tensor
    weights: dict[str, Tensor]


class BestPolicy(Callback):
    """Keeps the policy's weights of the evaluations among which the best one is.

    With one task the best evaluation has the highest mean return. With several it has the highest
    mean over the tasks of the return scaled from the run's worst evaluation of that task (0) to
    its best (1): no task's unit counts more than another's. Only evaluations that no other one
    matches on every task are kept; the best is always among them.

    Works with any algorithm. Attribute ``evaluations`` holds those kept, oldest first.
    """

    def __init__(self):
        super().__init__()
        self.evaluations: list[Evaluation] = []
        self.low: Tensor | None = None
        self.high: Tensor | None = None

    def on_evaluation_end(self, rollouts: list[TensorDictBase]) -> None:
        """Consider the policy of this evaluation."""
        groups = self.experiment.algorithm.group_map
        returns = torch.stack([_mean_return(rollouts, group) for group in groups]).cpu()
        self.low = returns if self.low is None else torch.minimum(self.low, returns)
        self.high = returns if self.high is None else torch.maximum(self.high, returns)
        if any((kept.returns >= returns).all() for kept in self.evaluations):
            return
        self.evaluations = [kept for kept in self.evaluations if (kept.returns > returns).any()]
        weights = copy.deepcopy(self.experiment.policy.state_dict())
        self.evaluations.append(Evaluation(self.experiment.total_frames, returns, weights))

    @property
    def best(self) -> Evaluation | None:
        """The best evaluation so far; None before the first."""
        if not self.evaluations:
            return None
        span = (self.high - self.low).clamp(min=1e-9)
        scores = [((kept.returns - self.low) / span).mean() for kept in self.evaluations]
        return self.evaluations[int(torch.stack(scores).argmax())]

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
