"""Bias predictors h on a tapped feature map, and the losses that pull at them.

Where a data set offers dense bias labels, h is one convolutional head for each of their channels (LNL's three 8-bin
colour heads), on the labels of the nearest pixels; elsewhere, and where the tap is no map, one linear head on the
pooled map predicts the bias attribute.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from debias_zoo.errors import ZooError
from debias_zoo.method import IGNORE_INDEX, Batch, Task

from .groups import batch_bias
from .precision import wide


class DenseHeads(nn.Module):
    """``heads`` independent predictors conv3x3-BN-ReLU-conv3x3 that share nothing but their input.

    They are computed as one: the first layers side by side in one convolution (the fan-in, and so the initial
    distribution, is that of single heads), the last ones each on its own channels.
    """

    def __init__(self, channels: int, heads: int, bins: int) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(channels, heads * channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(heads * channels)
        self.last = nn.ModuleList(nn.Conv2d(channels, bins, 3, padding=1) for _ in range(heads))

    def forward(self, z: Float[Tensor, "b channels h w"]) -> list[Float[Tensor, "b bins h w"]]:
        """A (B, bins, h, w) map of logits for each head. z: (B, channels, h, w)."""
        hidden = F.relu(self.norm(self.hidden(z)))  # (B, heads * channels, h, w)
        return [last(part) for last, part in zip(self.last, hidden.chunk(len(self.last), 1), strict=True)]


class PooledHead(nn.Module):
    """One linear predictor of the bias attribute on the pooled map."""

    def __init__(self, channels: int, biases: int) -> None:
        super().__init__()
        self.last = nn.Linear(channels, biases)

    def forward(self, z: Float[Tensor, "b channels *grid"]) -> list[Float[Tensor, "b biases"]]:
        """One (B, biases) tensor of logits. z: (B, channels, h, w) or (B, channels)."""
        return [self.last(z.mean((2, 3)) if z.dim() == 4 else z)]


def bias_predictor(task: Task, tap_shape: tuple[int, ...]) -> DenseHeads | PooledHead:
    """The predictor h for a map of ``tap_shape`` (C, h, w): dense where there are dense labels, else pooled."""
    if task.biases < 2:
        raise ZooError("a bias predictor needs bias labels with at least two values; the data set has none to offer")
    if task.bias_map is not None and len(tap_shape) == 3:
        return DenseHeads(tap_shape[0], task.bias_map[0], task.bias_map[1])
    return PooledHead(tap_shape[0], task.biases)


def bias_loss(logits: list[Float[Tensor, "b k *grid"]], batch: Batch) -> Float[Tensor, ""]:
    """Cross-entropy of h with the bias labels, summed over heads, averaged over the pixels that are not ignored."""
    targets = bias_targets(logits, batch)
    losses = [_mean_cross_entropy(wide(head), target) for head, target in zip(logits, targets, strict=True)]
    return torch.stack(losses).sum()


def bias_targets(logits: list[Float[Tensor, "b k *grid"]], batch: Batch) -> list[Int[Tensor, " b *grid"]]:
    """The labels of each head: maps (B, h, w) for dense heads, (B,) for a pooled one."""
    if logits[0].dim() == 2:
        return [batch_bias(batch)]
    if batch.bias_map is None:
        raise ZooError("the batch holds no dense bias labels")
    maps, grid = batch.bias_map, logits[0].shape[2:]
    if maps.shape[2:] != grid:
        maps = F.interpolate(maps.float(), grid, mode="nearest-exact").long()
    return list(maps.unbind(1))


def _mean_cross_entropy(logits: Float[Tensor, "b k *grid"], target: Int[Tensor, " b *grid"]) -> Float[Tensor, ""]:
    """Mean over labels that are not ignored; 0 where all are, instead of 0 / 0."""
    total = F.cross_entropy(logits, target, reduction="sum", ignore_index=IGNORE_INDEX)
    return total / (target != IGNORE_INDEX).sum().clamp(min=1)


def negative_entropy(logits: list[Float[Tensor, "b k *grid"]]) -> Float[Tensor, ""]:
    """sum_k p_k log p_k of h, averaged over heads, images and all pixels; at least -log K, there uniform."""
    log_p = [F.log_softmax(wide(head), 1) for head in logits]
    return torch.stack([(value.exp() * value).sum(1).mean() for value in log_p]).mean()


def uniform_cross_entropy(logits: list[Float[Tensor, "b k *grid"]]) -> Float[Tensor, ""]:
    """-1/K sum_k log p_k of h, averaged over heads, images and pixels; at least log K, there uniform."""
    return torch.stack([-F.log_softmax(wide(head), 1).mean() for head in logits]).mean()
