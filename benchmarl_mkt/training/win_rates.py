"""The rates of battles won in a run's evaluations, which BenchMARL itself does not write."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor

from benchmarl_mkt.environments.wins import won
from benchmarl_mkt.training.base import RunCallback


def episodes_won(rollouts: list[TensorDictBase], task: str) -> Tensor | None:
    """Whether the first episode of each rollout was won by ``task`` (agent group): bool [episodes].

    None if the task knows no victory.
    """
    found = [won(rollout, task) for rollout in rollouts]
    if any(flags is None for flags in found):
        return None
    ends = [rollout.get(("next", "done")).view(-1).int().argmax() for rollout in rollouts]
    return torch.stack([flags[end] for flags, end in zip(found, ends)])


class WinRates(RunCallback):
    """Logs every task's rate of battles won at every evaluation, and writes it to the run's JSON.

    Works with any algorithm; MKT adds it by itself. Names: ``eval/TASK/win_rate`` in the logs,
    ``TASK_win_rate`` in the JSON (1 or 0 for every episode). Tasks that know no victory have none.
    """

    def on_evaluation_end(self, rollouts: list[TensorDictBase]) -> None:
        experiment = self.experiment
        found = {task: episodes_won(rollouts, task) for task in experiment.algorithm.group_map}
        found = {task: wins.float() for task, wins in found.items() if wins is not None}
        if not found:
            return
        logger, frames = experiment.logger, experiment.total_frames
        means = {f"eval/{task}/win_rate": wins.mean().item() for task, wins in found.items()}
        logger.log(means, step=experiment.n_iters_performed)
        if logger.json_writer is not None:
            logger.json_writer.write(
                metrics={f"{task}_win_rate": wins for task, wins in found.items()},
                total_frames=frames,
                evaluation_step=frames // experiment.config.evaluation_interval,
            )
