"""Projecting out: what is left of vectors when all that others span is taken away."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .precision import full_precision, wide

SMALLEST = 1e-12
"""Of the squared norm that the ridge is a part of: with a basis of zeros nothing is taken away."""


def project_out(x: Float[Tensor, "b m"], basis: Float[Tensor, "b k"]) -> Float[Tensor, "b m"]:
    """(I - P) x, P the orthogonal projector on the columns of ``basis``; gradients reach both. x: (B, m).

    P = Q Q', Q the upper part of the orthonormal factor of [basis; sqrt(r) I], which makes
    P = basis (basis' basis + r I)^-1 basis'. The ridge r, at the limit of the precision, changes nothing where the
    columns of ``basis`` (B, k) are independent; where they are not, it keeps the gradient finite.
    """
    x, basis = wide(x), wide(basis)
    ridge = torch.finfo(basis.dtype).eps * basis.detach().square().sum().clamp(min=SMALLEST)
    identity = torch.eye(basis.shape[1], dtype=basis.dtype, device=basis.device)
    with full_precision(basis):
        q, _ = torch.linalg.qr(torch.cat([basis, ridge.sqrt() * identity]))
        q = q[: len(basis)]
        left: Tensor = x - q @ (q.T @ x)
    return left
