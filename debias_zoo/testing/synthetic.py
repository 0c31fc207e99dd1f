"""Small images with a bias: a shape tells the label, its colour the bias; all groups are of different size."""

from __future__ import annotations

import numpy as np

from ..dataset import IGNORED, Images, Ints, Split

CLASSES, BIASES = 3, 4
MAP_HEADS, MAP_BINS = 3, 8

GROUP_SIZES = ((12, 2, 3, 5), (3, 10, 4, 2), (4, 6, 9, 3))
"""Images by (label, bias): more biases than classes, no two groups of a class alike, none empty."""

ODD_ONE = 9
"""Every ninth image shows another label's shape: no network is right on all, so that error sets are never empty."""

COLOURS = np.array([(230, 60, 60), (50, 170, 60), (90, 110, 240), (200, 140, 40)], dtype=np.int64)


def uneven_split(at_least: int, size: int, seed: int = 0) -> Split:
    """The groups of ``GROUP_SIZES``, in random order, as often as makes ``at_least`` images, with dense bias labels."""
    groups = [(y, b) for y, row in enumerate(GROUP_SIZES) for b, count in enumerate(row) for _ in range(count)]
    groups *= max(1, -(-at_least // len(groups)))
    order = np.random.default_rng([seed, 1]).permutation(len(groups))
    labels, biases = (np.array(column, dtype=np.int64)[order] for column in zip(*groups, strict=True))
    shown = np.where(np.arange(len(labels)) % ODD_ONE, labels, (labels + 1) % CLASSES)
    images = draw(shown, biases, size, seed)
    return Split(images, labels, biases, bins(images))


def even_split(count: int, size: int, seed: int = 0) -> Split:
    """``count`` images whose bias is independent of the label; no dense bias labels."""
    labels = np.arange(count, dtype=np.int64) % CLASSES
    biases = np.arange(count, dtype=np.int64) // CLASSES % BIASES
    return Split(draw(labels, biases, size, seed), labels, biases)


def draw(labels: Ints, biases: Ints, size: int, seed: int) -> Images:
    """uint8 (N, size, size, 3): a vertical bar, a horizontal bar or a square, coloured and noisy, on black."""
    random = np.random.default_rng([seed, 2])
    images = np.zeros((len(labels), size, size, 3), dtype=np.int64)
    thick = max(2, size // 5)
    side = round((size * thick) ** 0.5)  # a square of the area of a bar: brightness alone tells no shape
    for image, label, bias in zip(images, labels, biases, strict=True):
        top, left = random.integers(size // 6, size // 2, 2)
        shape = np.zeros((size, size), dtype=bool)
        if label == 0:
            shape[:, left : left + thick] = True
        elif label == 1:
            shape[top : top + thick, :] = True
        else:
            shape[top : top + side, left : left + side] = True
        noise = random.integers(-25, 26, (size, size, 3))
        image[shape] = np.clip(COLOURS[bias] + noise, 1, 255)[shape]
    return images.astype(np.uint8)


def bins(images: Images) -> Images:
    """uint8 (N, 3, h/2, w/2): the bin of every second pixel's channels, ``IGNORED`` on the black background."""
    small = np.ascontiguousarray(images[:, 1::2, 1::2, :].transpose(0, 3, 1, 2))
    found: Images = np.where(small == 0, np.uint8(IGNORED), small // np.uint8(256 // MAP_BINS))
    return found
