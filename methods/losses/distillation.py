"""Distillation: a student's softened prediction is pulled towards a teacher's (Hinton et al., 2015)."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .precision import wide


def soft_cross_entropy(
    student: Float[Tensor, "b c"], teacher: Float[Tensor, "b c"], temperature: float
) -> Float[Tensor, " b"]:
    """(B,): -T^2 sum_c softmax(t / T)_c log softmax(s / T)_c of logits s, t (B, classes); the teacher is constant."""
    target = F.softmax(wide(teacher.detach()) / temperature, 1)
    return -(temperature**2) * (target * F.log_softmax(wide(student) / temperature, 1)).sum(1)


def soft_divergence(
    student: Float[Tensor, "b c"], teacher: Float[Tensor, "b c"], temperature: float
) -> Float[Tensor, " b"]:
    """(B,): T^2 KL(softmax(t / T) || softmax(s / T)), 0 where both agree; the gradient of ``soft_cross_entropy``."""
    own = soft_cross_entropy(teacher, teacher, temperature).detach()
    return soft_cross_entropy(student, teacher, temperature) - own
