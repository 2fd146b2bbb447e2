"""Distillation of teachers into a student (Eq. 3)."""

from __future__ import annotations

import torch
from torch import Tensor


def distillation_kl(
    teacher_values: Tensor,
    student_values: Tensor,
    mask: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    student_temperature: float | Tensor = 1.0,
) -> Tensor:
    r"""Eq. 3: :math:`\sum_i KL(softmax(Q_T^i / t) \,\|\, softmax(Q_S^i / t_S))` over agents i.

    Args:
        teacher_values: action values or logits [*B, n_agents, n_actions].
        student_values: the student's, same shape.
        mask: available actions, bool, same shape; others take no part. None means all.
        temperature: t > 0 of the teacher (paper: 1).
        student_temperature: t_S > 0 of the student (Eq. 3: 1).

    Returns:
        The divergence [*B] in nats, summed over agents. An agent without any available action
        adds nothing.
    """
    log_teacher = masked_log_softmax(teacher_values / temperature, mask)
    if not isinstance(student_temperature, float) or student_temperature != 1.0:
        student_values = student_values / student_temperature
    log_student = masked_log_softmax(student_values, mask)
    # Where the mask is false the teacher's probability is exactly zero and both logarithms are
    # finite; without any available action both policies are uniform: either way nothing is added.
    return (log_teacher.exp() * (log_teacher - log_student)).sum((-2, -1))


def policy_entropy(values: Tensor, mask: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """Entropy of softmax(values / temperature) over its maximum, in [0, 1]: [*B, n_agents].

    Agents with fewer than two available actions have entropy 0. Values [*B, n_agents, n_actions].
    """
    if mask is None:
        mask = torch.ones_like(values, dtype=torch.bool)
    log_policy = masked_log_softmax(values / temperature, mask)
    entropy = (-log_policy.exp() * log_policy).masked_fill(~mask, 0.0)
    return entropy.sum(-1) / mask.sum(-1).clamp(min=2).float().log()


def masked_log_softmax(values: Tensor, mask: Tensor | None) -> Tensor:
    """Log-softmax over the last dimension; masked entries get a very low finite value.

    Equal to ``values.log_softmax(-1)``. Actions are few: over the first dimension the same sum is
    vectorised across rows, many times faster than row by row.
    """
    if mask is not None:
        values = torch.where(mask, values, torch.finfo(values.dtype).min / 4)
    return values.movedim(-1, 0).contiguous().log_softmax(0).movedim(0, -1)
