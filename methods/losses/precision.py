"""Losses are taken in float32 at least, whatever the precision of the network."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """``x`` in float32; float64 stays as it is."""
    return x if x.dtype == torch.float64 else x.float()
