"""Generalised cross-entropy (Zhang and Sabuncu, NeurIPS 2018), in the form that LfF's gradient has."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from .precision import wide


def generalized_cross_entropy(logits: Float[Tensor, "b c"], label: Int[Tensor, " b"], q: float) -> Float[Tensor, " b"]:
    """(B,): q stopgrad(p_y)^q CE, whose gradient is q times that of (1 - p_y^q) / q; easy images weigh more.

    logits: (B, classes). label: int64 (B,). q: in (0, 1]; towards 0 all images weigh alike.
    """
    losses = F.cross_entropy(wide(logits), label, reduction="none")  # (B,)
    return q * (-q * losses.detach()).exp() * losses
