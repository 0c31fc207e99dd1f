"""The neural gray-level co-occurrence matrix: texture without content (Wang et al., ICLR 2019, section 3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class NGLCM(nn.Module):
    """G = s(a; phi_a) s(b; phi_b)', s(v; phi) = clamp(v - phi, 0, 1): a soft count of pixels by level and step.

    a are the gray levels of the flattened image, b their differences to the pixel before. With phi = n - epsilon, G
    counts the pixels above level n whose step is above n': the cumulative co-occurrence matrix.

    Args:
        levels: gray levels, and thresholds phi of each kind, which start uniform in [0, levels).
    """

    def __init__(self, levels: int = 16) -> None:
        super().__init__()
        self.levels = levels
        self.phi_a = nn.Parameter(levels * torch.rand(levels))
        self.phi_b = nn.Parameter(levels * torch.rand(levels))

    def forward(self, gray: Float[Tensor, "b h w"]) -> Float[Tensor, "b levels levels"]:
        """(B, levels, levels). gray: (B, H, W), not negative."""
        a = gray_levels(gray, self.levels).flatten(1).unsqueeze(1)  # (B, 1, HW)
        b = a - F.pad(a[..., :-1], (1, 0))
        above_a = (a - self.phi_a.unsqueeze(1)).clamp(0.0, 1.0)  # (B, levels, HW)
        above_b = (b - self.phi_b.unsqueeze(1)).clamp(0.0, 1.0)
        return above_a @ above_b.transpose(1, 2)


def gray_levels(gray: Float[Tensor, "b h w"], levels: int) -> Float[Tensor, "b h w"]:
    """Whole numbers 0 ... levels - 1, of which each image's brightest pixel is the last. gray: (B, H, W)."""
    brightest = gray.amax((1, 2), keepdim=True).clamp(min=torch.finfo(gray.dtype).tiny)
    return (gray / brightest * (levels - 1)).trunc()
