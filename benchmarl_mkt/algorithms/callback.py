"""How the student enters BenchMARL's unmodified training loop."""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from typing import Any

import torch
from benchmarl.algorithms.common import Algorithm
from benchmarl.experiment import Experiment
from benchmarl.experiment.callback import Callback
from tensordict import TensorDictBase
from torch import Tensor

from benchmarl_mkt.collectors import MultiTaskCollector
from benchmarl_mkt.objectives import policy_entropy
from benchmarl_mkt.teachers.find import missing_error

STUDENT = "student"
logger = logging.getLogger(__name__)


class StudentCallback(Callback):
    """Replaces the K groups by one training group, anneals a, reports per task, saves all state.

    The loop trains its groups one after the other, in blocks, and a shared trunk would forget;
    with one group whose minibatches alternate between the tasks it follows Algorithm 1.
    """

    def __init__(self, algorithm: Algorithm):
        super().__init__()
        self.algorithm = algorithm
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = defaultdict(int)
        self._warned: set[str] = set()

    @property
    def loss(self):
        """The student's loss."""
        return self.experiment.losses[STUDENT]

    def on_setup(self) -> None:
        """Take the experiment over.

        Raises:
            MissingTeachers: if teachers are missing. By now all else stands, so that whatever is
                wrong with the student has been told before its teachers are trained.
        """
        experiment, algorithm = self.experiment, self.algorithm
        if algorithm.missing:
            experiment.collector.shutdown()
            experiment.test_env.close()
            settings = algorithm.config.teacher_settings
            raise missing_error(settings, experiment.task, algorithm.missing)
        # A run that is continued beyond its plan keeps to the plan's schedule.
        self._planned_frames = experiment.config.get_max_n_frames(False)
        take_over(experiment, algorithm)

    def on_batch_collected(self, batch: TensorDictBase) -> None:
        progress = min(self.experiment.total_frames / self._planned_frames, 1.0)
        self.loss.alpha.fill_(self.algorithm.schedule(progress))

    def on_train_step(self, batch: TensorDictBase, group: str) -> None:
        for task, terms in self.loss.last_terms.items():
            for name, value in terms.items():
                key = f"train/{task}/{name}"
                self._sums[key] = self._sums.get(key, 0.0) + value
                self._counts[key] += 1

    def on_train_end(self, training_td: TensorDictBase, group: str) -> None:
        means = {key: float(total) / self._counts[key] for key, total in self._sums.items()}
        self._sums, self._counts = {}, defaultdict(int)
        self._check_values(means)
        self.experiment.logger.log(means, step=self.experiment.n_iters_performed)

    def _check_values(self, means: dict[str, float]) -> None:
        """Warn, once, of a task whose values are higher than any return can be."""
        for task, limit in self.algorithm.largest_values.items():
            value = means.get(f"train/{task}/q_tot", 0.0)
            if value > limit and task not in self._warned:
                self._warned.add(task)
                logger.warning(
                    "algorithm: the mean value of %s is %.1f, the largest possible return %.1f: "
                    "values diverge; try algorithm.mixer=vdn_s, algorithm.lmbda=0.8 or "
                    "experiment.soft_target_update=true",
                    task,
                    value,
                    limit,
                )

    def on_evaluation_end(self, rollouts: list[TensorDictBase]) -> None:
        to_log: dict[str, float] = {}
        for task, values in self.signals().items():
            to_log.update({f"distillation/{task}/{name}": v for name, v in values.items()})
        self.experiment.logger.log(to_log, step=self.experiment.n_iters_performed)

    def signals(self) -> dict[str, dict[str, float]]:
        """Tell, per task, whether distillation is alive.

        ``teacher_entropy`` is the entropy over its maximum of the teacher's policy at the
        temperature in use (1: it teaches nothing); ``kl_td_gradient_ratio`` the norm of the
        weighted KL gradient on the trunk over that of the weighted TD gradient.
        """
        loss, buffer = self.loss, self.experiment.replay_buffers[STUDENT]
        trunk = [
            parameter
            for name, parameter in loss.network_params.flatten_keys(".").items()
            if name.startswith("trunk.") and parameter.requires_grad
        ]
        found: dict[str, dict[str, float]] = {}
        if not len(buffer) or not trunk:  # an evaluation before any training; a frozen trunk
            return found
        for task in self.algorithm.teachers:
            sample = buffer.sample_tasks([task]).to(self.experiment.config.train_device)
            batch = sample.get(task)
            entropy = policy_entropy(
                batch.get("teacher_values"),
                batch.get("action_mask")[:, :-1],
                loss.temperature[task],
            )
            weights = {"kl": 1 - loss.alpha, "td": loss.alpha}
            with torch.enable_grad():
                terms = loss.terms(sample, [task])[task]
                norms = {
                    name: weight * _norm(torch.autograd.grad(terms[name], trunk, retain_graph=True))
                    for name, weight in weights.items()
                    if name in terms
                }
            kl, td = norms["kl"], norms.get("td", 0.0)
            found[task] = {
                "teacher_entropy": float(entropy[batch.get("active")].mean()),
                "kl_td_gradient_ratio": float(kl / td) if td > 0 else float("inf"),
            }
        return found

    def on_state_dict(self, state_dict: dict[str, Any]) -> None:
        state_dict["mkt"] = {"planned_frames": self._planned_frames}

    def on_load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._planned_frames = state_dict["mkt"]["planned_frames"]


def take_over(experiment: Experiment, algorithm: Algorithm) -> None:
    """Replace in an experiment that has been set up what its loop would do otherwise.

    This is all that MKT-MARL replaces in a running experiment; BenchMARL itself stays as it is.
    """
    task, agents = algorithm.tasks[0], [a for group in algorithm.group_map.values() for a in group]
    loss, updater = algorithm.get_loss_and_updater(task)
    # One group, the student, is trained, so that minibatches alternate between the tasks.
    experiment.group_map = {STUDENT: agents}
    experiment.train_group_map = dict(experiment.group_map)
    # It has the K buffers, one loss, one target network and one Adam over all weights.
    experiment.replay_buffers = {STUDENT: algorithm.get_replay_buffer(task)}
    experiment.losses = {STUDENT: loss}
    experiment.target_updaters = {STUDENT: updater}
    experiment.optimizers = {STUDENT: experiment.optimizers[task]}
    # One policy acts for all tasks: its epsilon is annealed once.
    experiment.group_policies = {STUDENT: algorithm.policy}
    # Teachers' values come with the data; steps are taken without TorchRL's per-step cost.
    experiment.collector = MultiTaskCollector(
        experiment.collector, algorithm.teachers, algorithm.policy
    )
    # The loop counts optimizer steps; the configuration counts updates of each task.
    steps = experiment.config.off_policy_n_optimizer_steps * algorithm.updates_per_turn
    experiment.config = dataclasses.replace(experiment.config, off_policy_n_optimizer_steps=steps)


def _norm(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
