"""Gradient reversal (Ganin and Lempitsky, ICML 2015)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * grads[0], None


def reverse_gradient(x: Float[Tensor, "*shape"], scale: float) -> Float[Tensor, "*shape"]:
    """``x`` unchanged; its gradient is multiplied by ``-scale``."""
    reversed_: Tensor = _Reverse.apply(x, scale)  # type: ignore[no-untyped-call]
    return reversed_
