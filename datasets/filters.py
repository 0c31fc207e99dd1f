"""Filters that the corruptions are made of; what they take and give is described in ``corruptions.py``."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from debias_zoo.dataset import Images

Floats = npt.NDArray[np.float64]
Random = np.random.Generator


def plasma(count: int, size: int, decay: float, random: Random) -> Floats:
    """(count, size, size) in [0, 1]: fractals by diamonds and squares on a torus; size: a power of two."""
    found = np.zeros((count, size, size))
    step, wibble = size, 100.0

    def wibbled(total: Floats) -> Floats:
        return total / 4 + wibble * random.uniform(-wibble, wibble, total.shape)

    while step >= 2:
        half = step // 2
        corners = found[:, ::step, ::step]
        square = corners + np.roll(corners, -1, 1)
        found[:, half::step, half::step] = wibbled(square + np.roll(square, -1, 2))
        centres, corners = found[:, half::step, half::step], found[:, ::step, ::step]
        found[:, ::step, half::step] = wibbled(centres + np.roll(centres, 1, 1) + corners + np.roll(corners, -1, 2))
        found[:, half::step, ::step] = wibbled(centres + np.roll(centres, 1, 2) + corners + np.roll(corners, -1, 1))
        step, wibble = half, wibble / decay
    found -= found.min((1, 2), keepdims=True)
    scaled: Floats = found / found.max((1, 2), keepdims=True)
    return scaled


def gaussian(x: Floats, sigma: float) -> Floats:
    """Blurred by a Gaussian, edge pixels repeated."""
    return np.asarray(ndimage.gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest", truncate=4.0))


def filtered(x: Floats, kernel: Floats) -> Floats:
    """Convolved with a symmetric kernel, mirrored at the edges."""
    return np.asarray(ndimage.correlate(x, kernel[None, :, :, None], mode="mirror"))


def smeared(x: Floats, radius: int, sigma: float, degrees: Floats) -> Floats:
    """ImageMagick's motion blur: a one-sided Gaussian of 2 radius + 1 taps along a line, edge pixels repeated."""
    width, size = 2 * radius + 1, x.shape[1]
    weights = np.exp(-(np.arange(width) ** 2) / (2.0 * sigma**2))
    angle = np.deg2rad(degrees)
    rows, grid = np.arange(len(x))[:, None, None], np.arange(size)
    found = np.zeros_like(x)
    for k, weight in enumerate(weights / weights.sum()):
        down = np.ceil(k * np.sin(angle) - 0.5).astype(np.int64)[:, None, None]
        right = np.ceil(k * np.cos(angle) - 0.5).astype(np.int64)[:, None, None]
        at = np.clip(grid[None, :, None] + down, 0, size - 1), np.clip(grid[None, None] + right, 0, size - 1)
        found += weight * x[rows, at[0], at[1]]
    return found


def zoomed(x: Floats, factor: float) -> Floats:
    """The middle, enlarged to the size of x."""
    size = x.shape[1]
    inner = int(np.ceil(size / factor))
    top = (size - inner) // 2
    large = ndimage.zoom(x[:, top : top + inner, top : top + inner], (1, factor, factor, 1), order=1)
    trim = (large.shape[1] - size) // 2
    return np.array(large[:, trim : trim + size, trim : trim + size])


def sampled(x: Floats, row: npt.NDArray[Any], column: npt.NDArray[Any], mode: Literal["mirror", "reflect"]) -> Floats:
    """X at real positions, row and column (N, H, W), bilinearly."""
    found = np.empty_like(x)
    for image, out, r, c in zip(x, found, row, column, strict=True):
        for channel in range(3):
            out[..., channel] = ndimage.map_coordinates(image[..., channel], [r, c], order=1, mode=mode)
    return found


def as_bytes(x: Floats) -> Images:
    """Rounded to uint8."""
    return np.rint(x * 255.0).astype(np.uint8)


def box_mean(image: Floats) -> Floats:
    """Mean of the 3 x 3 pixels around each."""
    return ndimage.uniform_filter(image, 3, mode="mirror")


def equalised(image: Floats) -> Floats:
    """Histogram of whole numbers 0 ... 255 made even; an image of one value stays as it is."""
    counts = np.bincount(image.astype(np.int64).ravel(), minlength=256)
    first = int(np.flatnonzero(counts)[0])
    others = image.size - counts[first]
    if others == 0:
        return image
    table = np.rint((np.cumsum(counts) - counts[first]) * (255.0 / others))
    return np.asarray(table[image.astype(np.int64)])


def edges(image: Floats, low: float, high: float) -> npt.NDArray[np.bool_]:
    """Canny's edges: Sobel gradients, thinned along their direction, followed from above ``high`` down to ``low``."""
    dy, dx = (ndimage.sobel(image, axis, mode="nearest") for axis in (0, 1))
    size = np.abs(dx) + np.abs(dy)
    padded, (height, width) = np.pad(size, 1), size.shape
    steps = [(v, h) for v in (-1, 0, 1) for h in (-1, 0, 1)]
    around = {(v, h): padded[1 + v : 1 + v + height, 1 + h : 1 + h + width] for v, h in steps}
    flat, steep = np.abs(dy) <= np.tan(np.pi / 8) * np.abs(dx), np.abs(dy) > np.tan(3 * np.pi / 8) * np.abs(dx)
    same = dx * dy >= 0
    peak = np.where(
        flat,
        (size > around[0, -1]) & (size >= around[0, 1]),
        np.where(
            steep,
            (size > around[-1, 0]) & (size >= around[1, 0]),
            np.where(
                same,
                (size > around[-1, -1]) & (size > around[1, 1]),
                (size > around[-1, 1]) & (size > around[1, -1]),
            ),
        ),
    )
    weak, strong = peak & (size > low), peak & (size > high)
    pieces, _ = ndimage.label(weak, np.ones((3, 3)))
    return weak & np.isin(pieces, np.unique(pieces[strong]))
