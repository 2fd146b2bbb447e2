import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import log_softmax, rel_entr

from benchmarl_mkt.objectives import distillation_kl, policy_entropy

SHAPE = (3, 2, 4)  # [B, N, A]
VALUES = hnp.arrays(np.float64, SHAPE, elements=st.floats(-20, 20))
MASKS = hnp.arrays(np.bool_, SHAPE)


def reference_kl(teacher, student, mask, t_teacher=1.0, t_student=1.0):
    """Eq. 3, agent by agent over the available actions alone: [B]."""
    result = np.zeros(teacher.shape[0])
    for b, i in np.ndindex(*teacher.shape[:2]):
        available = mask[b, i]
        if available.any():
            p = np.exp(log_softmax(teacher[b, i, available] / t_teacher))
            q = np.exp(log_softmax(student[b, i, available] / t_student))
            result[b] += rel_entr(p, q).sum()
    return result


def test_by_hand():
    """Two agents, two actions: softmax of (0, ln 3) is (1/4, 3/4)."""
    teacher = torch.tensor([[[0.0, math.log(3)], [0.0, 0.0]]])
    student = torch.tensor([[[0.0, 0.0], [math.log(3), 0.0]]])
    first = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    second = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert distillation_kl(teacher, student).tolist() == pytest.approx([first + second], abs=1e-6)


@given(
    teacher=VALUES,
    student=VALUES,
    mask=MASKS,
    t_teacher=st.floats(0.5, 5),
    t_student=st.floats(0.5, 5),
)
def test_equals_the_reference(teacher, student, mask, t_teacher, t_student):
    ours = distillation_kl(
        *(torch.from_numpy(x) for x in (teacher, student, mask)), t_teacher, t_student
    )
    assert ours.shape == (3,)
    expected = reference_kl(teacher, student, mask, t_teacher, t_student)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-7, atol=1e-9)


def test_no_mask_means_all_actions():
    teacher, student = torch.randn(2, 5, *SHAPE[1:])
    everything = torch.ones_like(teacher, dtype=torch.bool)
    assert torch.equal(
        distillation_kl(teacher, student), distillation_kl(teacher, student, everything)
    )
    assert distillation_kl(teacher[None], student[None]).shape == (1, 5)


def test_each_temperature_divides_its_own_side():
    teacher, student = torch.randn(2, *SHAPE)
    assert torch.allclose(
        distillation_kl(teacher, student, temperature=0.5, student_temperature=4.0),
        distillation_kl(teacher * 2, student / 4),
    )


@given(values=VALUES, mask=MASKS, shift=st.floats(-10, 10))
def test_zero_for_equal_policies_whatever_constant_is_added(values, mask, shift):
    values, mask = torch.from_numpy(values), torch.from_numpy(mask)
    assert distillation_kl(values, values + shift, mask).abs().max() < 1e-9


@given(teacher=VALUES, student=VALUES, mask=MASKS, shift=st.floats(-10, 10))
def test_nonnegative_and_invariant_to_constants(teacher, student, mask, shift):
    teacher, student, mask = (torch.from_numpy(x) for x in (teacher, student, mask))
    divergence = distillation_kl(teacher, student, mask)
    assert (divergence >= -1e-9).all()
    moved = distillation_kl(teacher + shift, student - shift, mask)
    torch.testing.assert_close(moved, divergence, rtol=1e-6, atol=1e-9)


@given(teacher=VALUES, student=VALUES, mask=MASKS, hidden=VALUES)
def test_unavailable_actions_take_no_part(teacher, student, mask, hidden):
    """Neither in the divergence nor, by a gradient, in the student; nothing is ever not finite."""
    teacher, student, mask, hidden = (torch.from_numpy(x) for x in (teacher, student, mask, hidden))
    other = torch.where(mask, student, hidden * 100)
    assert torch.equal(
        distillation_kl(teacher, student, mask), distillation_kl(teacher, other, mask)
    )
    student.requires_grad_(True)
    distillation_kl(teacher, student, mask).sum().backward()
    assert student.grad.isfinite().all()
    assert (student.grad[~mask] == 0).all()


def test_a_fully_masked_agent_adds_nothing():
    teacher, student = torch.randn(2, *SHAPE)
    mask = torch.ones(SHAPE, dtype=torch.bool)
    mask[:, 1] = False
    student.requires_grad_(True)
    divergence = distillation_kl(teacher, student, mask)
    alone = distillation_kl(teacher[:, :1], student[:, :1])
    assert torch.allclose(divergence, alone)
    divergence.sum().backward()
    assert (student.grad[:, 1] == 0).all()
    assert (student.grad[:, 0] != 0).any()


def test_gradient_is_student_policy_minus_teacher_policy():
    teacher, student = torch.randn(2, *SHAPE, dtype=torch.float64)
    student.requires_grad_(True)
    distillation_kl(teacher, student, temperature=0.3).sum().backward()
    expected = student.softmax(-1) - (teacher / 0.3).softmax(-1)
    torch.testing.assert_close(student.grad, expected.detach())


def test_entropy_by_hand():
    values = torch.tensor([[0.0, math.log(3)]])
    expected = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(2)
    assert policy_entropy(values).item() == pytest.approx(expected, abs=1e-6)


@given(values=VALUES, mask=MASKS, temperature=st.floats(0.01, 100))
def test_entropy_lies_between_zero_and_one(values, mask, temperature):
    values, mask = torch.from_numpy(values), torch.from_numpy(mask)
    entropy = policy_entropy(values, mask, temperature)
    assert entropy.shape == SHAPE[:-1]
    assert ((entropy >= -1e-6) & (entropy <= 1 + 1e-6)).all()
    assert (entropy[mask.sum(-1) < 2] == 0).all()


def test_entropy_is_one_for_equal_and_zero_for_far_values():
    mask = torch.tensor([[True, True, False]])
    assert policy_entropy(torch.zeros(1, 3), mask).item() == pytest.approx(1.0, abs=1e-6)
    assert policy_entropy(torch.tensor([[0.0, 1.0, 9.0]]), mask, 0.001).item() < 1e-6
