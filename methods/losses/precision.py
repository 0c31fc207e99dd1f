"""Losses are taken in float32 at least, whatever the precision of the network."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor


def wide(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``x`` in float32; float64 stays as it is."""
    return x if x.dtype == torch.float64 else x.float()


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """No autocast on the device of ``x``: there a product would be taken in bfloat16. Meta knows no autocast."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)
