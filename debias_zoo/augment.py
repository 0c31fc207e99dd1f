"""Augmentation of whole batches on the device, by numbers that depend on nothing but (seed, epoch, image).

So the pixels of a run do not depend on the number of workers, nor on which images share a batch.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .method import IGNORE_INDEX
from .protocol import Augment

LUMA = (0.299, 0.587, 0.114)


def augmented(
    how: Augment, image: Tensor, bias_map: Tensor | None, index: Tensor, key: int
) -> tuple[Tensor, Tensor | None]:
    """The images and their dense bias labels, cropped and mirrored alike.

    Args:
        how: what is done.
        image: float (B, C, H, W) in [0, 1].
        bias_map: int64 (B, heads, h, w), or None.
        index: int64 (B,), rows of the training split.
        key: of the seed and the epoch.
    """
    u = uniforms(index, key, 8)  # (B, 8)
    grid_wanted = how.resized_crop is not None or how.pad_crop is not None
    if grid_wanted or how.flip:
        centre, half = _windows(how, u, image.shape[2], image.shape[3])
        if grid_wanted:
            image = _look_through(image, centre, half, "bilinear", "zeros" if how.pad_crop else "border")
        else:
            mirrored = half[:, 0] < 0
            image = torch.where(mirrored.view(-1, 1, 1, 1), image.flip(3), image)
        if bias_map is not None:
            seen = _look_through((bias_map - IGNORE_INDEX).float(), centre, half, "nearest", "zeros")
            bias_map = seen.long() + IGNORE_INDEX  # 0, outside, becomes what is ignored
    if how.jitter is not None:
        image = _jittered(image, 1.0 + how.jitter * (2.0 * u[:, 5:8] - 1.0))
    return image, bias_map


def _windows(how: Augment, u: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Centre and half width of what each image is seen through, (B, 2) as (x, y) in [-1, 1]; mirrored: negative."""
    half = torch.ones(len(u), 2, device=u.device)
    centre = torch.zeros_like(half)
    if how.resized_crop is not None:
        low, high = how.resized_crop
        area = low + (high - low) * u[:, 0]
        stretch = torch.exp((2.0 * u[:, 1] - 1.0) * 0.5 * math.log(4.0 / 3.0))
        half = torch.stack([area.sqrt() * stretch, area.sqrt() / stretch], 1).clamp(max=1.0)
        centre = (2.0 * u[:, 2:4] - 1.0) * (1.0 - half)
    if how.pad_crop is not None:
        steps = torch.floor(u[:, 2:4] * (2 * how.pad_crop + 1)) - how.pad_crop  # whole pixels
        centre = centre + 2.0 * steps / torch.tensor([width, height], device=u.device)
    if how.flip:
        half = torch.where((u[:, 4:5] < 0.5) & torch.tensor([True, False], device=u.device), -half, half)
    return centre, half


def _look_through(image: Tensor, centre: Tensor, half: Tensor, mode: str, outside: str) -> Tensor:
    """What lies in the windows, scaled to the image's own size."""
    height, width = image.shape[2:]
    x, y = (
        centre[:, k : k + 1] + half[:, k : k + 1] * _middles(n, image.device) for k, n in enumerate((width, height))
    )
    grid = torch.empty(len(image), height, width, 2, device=image.device)  # a tenth of the time of affine_grid
    grid[..., 0] = x.unsqueeze(1)
    grid[..., 1] = y.unsqueeze(2)
    return F.grid_sample(image, grid, mode=mode, padding_mode=outside, align_corners=False)


def _middles(count: int, device: torch.device) -> Tensor:
    """The middles of ``count`` pixels that fill [-1, 1]."""
    return (2.0 * torch.arange(count, device=device) + 1.0) / count - 1.0


def _jittered(image: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast and saturation times ``factors`` (B, 3), clipped to [0, 1]."""
    brightness, contrast, saturation = (column.view(-1, 1, 1, 1) for column in factors.unbind(1))
    image = (image * brightness).clamp(0.0, 1.0)
    gray = _gray(image)
    image = (contrast * image + (1.0 - contrast) * gray.mean((2, 3), keepdim=True)).clamp(0.0, 1.0)
    return (saturation * image + (1.0 - saturation) * _gray(image)).clamp(0.0, 1.0)


def _gray(image: Tensor) -> Tensor:
    """(B, 1, H, W): the luma, or the mean of the channels where there are not three."""
    if image.shape[1] != len(LUMA):
        return image.mean(1, keepdim=True)
    return torch.einsum("bchw,c->bhw", image, torch.tensor(LUMA, device=image.device)).unsqueeze(1)


def uniforms(index: Tensor, key: int, count: int) -> Tensor:
    """float32 (B, count) in [0, 1) that depend on each image's row and the key alone (SplitMix64).

    index: int64 (B,). key: any integer of 63 bits.
    """
    stream = torch.arange(1, count + 1, device=index.device)
    x = (index.unsqueeze(1) * count + stream) * _signed(0x9E3779B97F4A7C15) + key
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    x = x ^ _shifted(x, 31)
    return _shifted(x, 40).float() / 2**24  # 24 bits: exact in float32


def _signed(x: int) -> int:
    return x - 2**64 if x >= 2**63 else x


def _shifted(x: Tensor, bits: int) -> Tensor:
    """A right shift that fills with zeros."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
