"""A running mean of each training image's loss, and LfF's relative difficulty (Nam et al., NeurIPS 2020)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

TINY = 1e-8


class PerSampleEMA(nn.Module):
    """For every training image the exponential moving average of a loss, which starts at the first loss seen.

    Args:
        size: training images. alpha: weight of the past.
    """

    value: Tensor
    label: Tensor

    def __init__(self, size: int, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.register_buffer("value", torch.zeros(size))
        self.register_buffer("label", torch.full((size,), -1))  # of images seen so far

    def update(self, losses: Float[Tensor, " b"], label: Int[Tensor, " b"], index: Int[Tensor, " b"]) -> None:
        """Take in the losses (B,) of the images with these labels (B,) and rows (B,)."""
        losses = losses.detach().to(self.value.dtype)
        averaged = torch.lerp(losses, self.value[index], self.alpha)
        self.value[index] = torch.where(self.label[index] < 0, losses, averaged)
        self.label[index] = label

    def relative(self, label: Int[Tensor, " b"], index: Int[Tensor, " b"], classes: int) -> Float[Tensor, " b"]:
        """(B,) in [0, 1]: the averages of these images, over the largest one of their class in the training split."""
        largest = torch.zeros(classes + 1, dtype=self.value.dtype, device=self.value.device)
        largest = largest.scatter_reduce(0, self.label + 1, self.value, "amax")  # those never seen share cell 0
        return self.value[index] / largest[label + 1].clamp(min=TINY)


def relative_difficulty(biased: Float[Tensor, " b"], debiased: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """LfF's weight of an image: loss of the biased network over the sum of both, each relative to its class. (B,)."""
    return biased / (biased + debiased + TINY)


class RelativeDifficulty(nn.Module):
    """LfF's weights of images, from running means of the losses of a biased and a debiased network.

    Args:
        size: training images. classes: labels. alpha: weight of the past.
    """

    def __init__(self, size: int, classes: int, alpha: float) -> None:
        super().__init__()
        self.classes = classes
        self.biased = PerSampleEMA(size, alpha)
        self.debiased = PerSampleEMA(size, alpha)

    def forward(
        self,
        biased: Float[Tensor, " b"],
        debiased: Float[Tensor, " b"],
        label: Int[Tensor, " b"],
        index: Int[Tensor, " b"],
    ) -> Float[Tensor, " b"]:
        """(B,): weights, without gradients, once the losses (B,) of both networks are taken in."""
        self.biased.update(biased, label, index)
        self.debiased.update(debiased, label, index)
        shares = [ema.relative(label, index, self.classes) for ema in (self.biased, self.debiased)]
        return relative_difficulty(*shares)
