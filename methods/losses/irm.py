"""The gradient of a risk with respect to a scale of the logits, which IRMv1 pulls to 0 (Arjovsky et al., 2019)."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from .precision import wide


def scale_gradient(logits: Float[Tensor, "b c"], label: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """(B,): d CE(w z, y) / dw at w = 1, which is sum_c p_c z_c - z_y; an ordinary function of z, differentiable.

    logits: (B, classes). label: int64 (B,).
    """
    z = wide(logits)
    return (F.softmax(z, 1) * z).sum(1) - z.gather(1, label.unsqueeze(1)).squeeze(1)
