"""The loss of MKT-MARL (Eq. 6) as a TorchRL loss module."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictParams, dispatch
from torch import Tensor, nn
from torchrl.objectives import LossModule

from benchmarl_mkt.models.actions import chosen_values, greedy_actions
from benchmarl_mkt.objectives.active import active_places, places_of, rows, spread, worthwhile
from benchmarl_mkt.objectives.distillation import distillation_kl
from benchmarl_mkt.objectives.td import (
    hysteretic_square,
    lambda_targets,
    masked_mean,
    standardise_rewards,
)


class MktLoss(LossModule):
    r"""Eq. 6: :math:`L = (1 - a) L_{KL} + a L_{TD}`, summed over the tasks in the batch.

    The batch holds segments of T steps, T + 1 observations, nested by task::

        {task: {observation [B, T+1, N, D], action_mask [B, T+1, N, A], state [B, T+1, S],
                action [B, T, N], reward [B, T], terminated [B, T], active [B, T],
                bootstrap [B, T], teacher_values [B, T, N, A], is_init [B, T+1, 1]}}

    ``active`` steps count in the losses; of them, those with ``bootstrap`` false (their next
    observation is lost) take no part in TD. ``teacher_values`` may be missing while a = 1,
    ``state`` where the mixer reads none or ``state_lengths`` has the task; only a recurrent student
    needs ``is_init``.

    Args:
        network: the student, as :class:`~benchmarl_mkt.models.StudentNetwork`: called with
            (task -> observations, is_init), with a ``mixer`` and one of ``embeddings`` per task.
            Without ``is_init`` observations may be those of active steps alone, [M, N, D].
        gamma: discount factor.
        temperature: t of Eq. 3 per task, or one for all.
        share_temperature: whether the student's softmax uses t too (Eq. 3: no).
        double_q: choose the next action with the online network (Table III: yes).
        standardise: standardise rewards per minibatch (Table III: yes).
        hysteresis: weight of negative TD errors (1: all errors count the same).
        lmbda: lambda of Peng's Q(lambda), 0 to 1 (Eq. 5: 0, one step).
        state_lengths: task -> L, if its state is the first L entries of all agents' observations.
        td: whether there is a TD term; without it (a = 0 throughout) neither target network nor
            mixer is computed, and there is no ``td`` and no ``q_tot``.

    The returned tensordict has ``loss`` (to minimise) and, detached, ``kl``, ``td``, ``q_tot``
    and ``alpha``, means over the batch's tasks; ``last_terms`` keeps them apart, task by task.
    The weight ``alpha`` (a) is a buffer: set it from an
    :class:`~benchmarl_mkt.objectives.AnnealingSchedule`.
    """

    @dataclass
    class _AcceptedKeys:
        """Keys of the entries of each task."""

        observation: str = "observation"
        action_mask: str = "action_mask"
        state: str = "state"
        action: str = "action"
        reward: str = "reward"
        terminated: str = "terminated"
        active: str = "active"
        bootstrap: str = "bootstrap"
        teacher_values: str = "teacher_values"
        is_init: str = "is_init"

    network: nn.Module
    network_params: TensorDictParams
    target_network_params: TensorDictParams
    default_keys = _AcceptedKeys
    tensor_keys: _AcceptedKeys
    out_keys = ["loss", "kl", "td", "q_tot", "alpha"]

    def __init__(
        self,
        network: nn.Module,
        gamma: float = 0.99,
        temperature: float | Mapping[str, float] = 1.0,
        share_temperature: bool = False,
        double_q: bool = True,
        standardise: bool = True,
        hysteresis: float = 1.0,
        lmbda: float = 0.0,
        state_lengths: Mapping[str, int] | None = None,
        td: bool = True,
    ):
        super().__init__()
        self.tasks = list(network.embeddings)
        self.convert_to_functional(network, "network", create_target_params=True)
        self._bind()
        self.discount = gamma
        if not isinstance(temperature, Mapping):
            temperature = dict.fromkeys(self.tasks, temperature)
        for task, value in temperature.items():
            if not value > 0:
                raise ValueError(f"temperature: {value} of task '{task}' must be > 0")
        self.temperature = dict(temperature)
        self.share_temperature = share_temperature
        self.double_q, self.standardise = double_q, standardise
        self.hysteresis, self.lmbda = hysteresis, lmbda
        self._has_td = td
        if not td:
            self.out_keys = ["loss", "kl", "alpha"]
        self._reads_state = getattr(network.mixer, "reads_state", True)
        self.state_lengths = dict(state_lengths or {}) if self._reads_state else {}
        self.register_buffer("alpha", torch.tensor(1.0))
        self.last_terms: dict[str, dict[str, Tensor]] = {}

    def _bind(self) -> None:
        """Give both parameter sets a module of their own.

        The parameters stay those of ``network_params`` and ``target_network_params``; swapping
        them into the one functional module at every call would take a tenth of an update.
        """
        for name in ("network", "target_network"):
            module = copy.deepcopy(self.network)
            self._modules[f"{name}_params"].to_module(module)
            self.__dict__[f"_bound_{name}"] = module

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the network, and who shares its parameters, have the target's values meanwhile."""
        own = self.network_params.data.clone()
        self.network_params.data.copy_(self.target_network_params.data)
        try:
            yield
        finally:
            self.network_params.data.copy_(own)

    def _apply(self, fn) -> MktLoss:
        super()._apply(fn)
        self._bind()  # moving to a device or type may have replaced the tensors
        return self

    @property
    def in_keys(self) -> list:
        """The entries read, per task."""
        keys = []
        for task in self.tasks:
            left_out = {"is_init", "teacher_values"}  # they are optional
            if task in self.state_lengths or not self._reads_state:
                left_out.add("state")
            names = self._AcceptedKeys.__dataclass_fields__
            keys += [(task, getattr(self.tensor_keys, n)) for n in names if n not in left_out]
        return keys

    def _forward_value_estimator_keys(self, **kwargs) -> None:
        """Nothing to forward: the target is computed here (Eq. 5)."""

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """Return the losses of the tasks in the batch; see the class."""
        tasks = [task for task in self.tasks if task in tensordict.keys()]
        terms = self.terms(tensordict, tasks)
        self.last_terms = {
            task: {name: value.detach() for name, value in values.items()}
            for task, values in terms.items()
        }
        names = next(iter(terms.values()))
        sums = {name: sum(values[name] for values in terms.values()) for name in names}
        means = {name: value.detach() / len(tasks) for name, value in sums.items()}
        loss = sums["kl"]
        if self._has_td:
            loss = torch.lerp(loss, sums["td"], self.alpha)  # Eq. 6: (1 - a) KL + a TD
        return TensorDict({"loss": loss, **means, "alpha": self.alpha.clone()})

    def terms(self, tensordict: TensorDictBase, tasks: list[str]) -> dict[str, dict[str, Tensor]]:
        """Return per task the scalars ``kl`` and, if there is one, ``td`` and ``q_tot``.

        One forward pass over all T + 1 observations serves the chosen values, the double-Q
        choice of the next action and the student's policy.
        """
        batches = {task: self._unpack(task, tensordict.get(task)) for task in tasks}
        read = {task: self._read(batch) for task, batch in batches.items()}
        seen = {task: rows(batch["observation"], read[task]) for task, batch in batches.items()}
        shapes = {task: batch["observation"].shape[:2] for task, batch in batches.items()}

        def values(network: nn.Module) -> dict[str, Tensor]:  # [B, T+1, N, A]
            out = network(seen, batches[tasks[0]]["is_init"])
            return {task: spread(out[task], read[task], shapes[task]) for task in tasks}

        own = values(self._bound_network)
        if not self._has_td:
            return {task: {"kl": self._kl(task, batches[task], own[task])} for task in tasks}
        with torch.no_grad():
            target = values(self._bound_target_network)
        return {
            task: self._task_terms(task, batches[task], own[task], target[task]) for task in tasks
        }

    def _read(self, batch: dict) -> Tensor | None:
        """Places among [B, T+1] of the observations whose values are needed; None, if all are.

        They are those of active steps and, for TD, those that follow. A recurrent trunk reads whole
        sequences.
        """
        active = batch["active"]
        if batch["is_init"] is not None or not worthwhile(active):
            return None
        read = nn.functional.pad(active, (0, 1))
        return places_of(read | nn.functional.pad(active, (1, 0)) if self._has_td else read)

    def _task_terms(self, task: str, batch: dict, values: Tensor, target_values: Tensor) -> dict:
        active, state = batch["active"], batch["state"]
        places = active_places(active)

        def mixed(network: nn.Module, chosen: Tensor, steps: slice) -> Tensor:
            state_now = None if state is None else rows(state[:, steps], places)
            return spread(
                network.mixer(task, rows(chosen, places), state_now), places, active.shape
            )

        taken = chosen_values(values[:, :-1], batch["action"])
        q_tot = mixed(self._bound_network, taken, slice(-1))  # [B, T], or [B, T, N] without mixing
        with torch.no_grad():
            best = self._best_next_values(batch, values, target_values)
            following = mixed(self._bound_target_network, best, slice(1, None))
        per_step = q_tot.detach().reshape(*active.shape, -1).mean(-1)
        return {
            "kl": self._kl(task, batch, values),
            "td": self._td(batch, q_tot, following),
            "q_tot": masked_mean(per_step, active),
        }

    def _unpack(self, task: str, batch: TensorDictBase) -> dict[str, Any]:
        entries = {
            name: batch.get(getattr(self.tensor_keys, name), None)
            for name in self._AcceptedKeys.__dataclass_fields__
        }
        if task in self.state_lengths:
            entries["state"] = entries["observation"][..., : self.state_lengths[task]].flatten(-2)
        elif entries["state"] is None and self._reads_state:
            raise ValueError(f"state: task '{task}' has none; give state_lengths to MktLoss")
        return entries

    def _best_next_values(self, batch: dict, values: Tensor, target_values: Tensor) -> Tensor:
        """The target network's values [B, T, N] of the next observations' greedy actions."""
        choosing = (values if self.double_q else target_values)[:, 1:]
        best = greedy_actions(choosing, batch["action_mask"][:, 1:])
        return chosen_values(target_values[:, 1:], best)

    def _td(self, batch: dict, q_tot: Tensor, following: Tensor) -> Tensor:
        """Eq. 5, mean over the active steps whose next observation is known."""
        rewards, valid = batch["reward"], batch["active"] & batch["bootstrap"]
        if self.standardise:
            rewards = standardise_rewards(rewards, batch["active"])
        steps = rewards, batch["terminated"], valid
        if q_tot.ndim > rewards.ndim:  # independent learners: an error for every agent
            steps = tuple(step.unsqueeze(-1).expand_as(q_tot) for step in steps)
        rewards, terminated, valid = steps
        target = lambda_targets(rewards, following, terminated, valid, self.discount, self.lmbda)
        return masked_mean(hysteretic_square(target - q_tot, self.hysteresis), valid)

    def _kl(self, task: str, batch: dict, values: Tensor) -> Tensor:
        """Eq. 3, mean over the active steps; zero without teacher."""
        if batch["teacher_values"] is None:
            return values.new_zeros(())
        mask, temperature = batch["action_mask"][:, :-1], self.temperature[task]
        own = temperature if self.share_temperature else 1.0
        divergence = distillation_kl(
            batch["teacher_values"], values[:, :-1], mask, temperature, own
        )
        return masked_mean(divergence, batch["active"])
