"""A contact sheet of a data set: for each class, aligned images beside conflicting ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .dataset import BiasDataset, Ints
from .errors import ZooError
from .seeds import seed_for
from .writing import cannot_write

SIDE = 0.7
"""Inches of one image on the sheet."""

MOST_CLASSES = 40


def preview(dataset: BiasDataset, root: Path | None, split: str, file: Path, count: int = 6, seed: int = 0) -> str:
    """Write a picture file: a row a class, ``count`` bias-aligned images on its left, conflicting ones on its right.

    Where a split has no bias labels, a row is ``2 * count`` images of a class. Under an image stands its bias.

    Args:
        dataset: with its parameters.
        root: where downloaded data lie, or None.
        split: whose images.
        file: PNG, or whatever matplotlib can write.
        count: images of each kind.
        seed: of which images are drawn.

    Returns:
        What the sheet shows, in a line.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    card, found = dataset.card, dataset.load(root, split)
    classes = list(range(len(card.classes)))[:MOST_CLASSES]
    figure = Figure((SIDE * (2 * count + 2.5), (SIDE + 0.22) * len(classes) + 0.7), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        len(classes), 2 * count + 1, squeeze=False, gridspec_kw={"width_ratios": [1] * count + [0.35] + [1] * count}
    )
    for axis in axes.flat:
        axis.axis("off")
    random = np.random.default_rng(seed_for("preview", seed))
    for label in classes:
        axes[label, 0].text(
            -0.25, 0.5, card.classes[label], ha="right", va="center", transform=axes[label, 0].transAxes
        )
        for where, rows in _sides(found.labels, found.biases, label, card.aligned[label], count):
            if not len(rows):
                axes[label, where.start].text(0.0, 0.5, "none", color="grey", va="center")
            chosen = np.sort(random.permutation(rows)[: where.stop - where.start])
            for axis, row, image in zip(axes[label, where], chosen, found.images[chosen], strict=False):
                axis.imshow(image if image.shape[2] == 3 else image[..., 0], cmap="binary_r", vmin=0, vmax=255)
                if found.biases is not None:
                    axis.set_title(card.biases[found.biases[row]], fontsize=6, pad=2)
    annotated = found.biases is not None
    title = f"{dataset.name}, {split}" + (": bias-aligned on the left, conflicting on the right" if annotated else "")
    figure.suptitle(title, fontsize=10)
    figure.subplots_adjust(
        left=0.16, right=0.99, top=1 - 0.6 / figure.get_figheight(), bottom=0.01, wspace=0.06, hspace=0.3
    )
    try:
        figure.savefig(file)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError):
            raise cannot_write(file, error) from error
        raise ZooError(f"cannot write {file}: {error}") from error
    return f"{title}: {len(classes)} of {len(card.classes)} classes, in {file}"


def _sides(
    labels: Ints, biases: Ints | None, label: int, aligned: tuple[int, ...], count: int
) -> list[tuple[slice, Ints]]:
    """The columns of the left and of the right side, and the rows of the split that may stand there."""
    left, right = slice(0, count), slice(count + 1, 2 * count + 1)
    own = np.flatnonzero(labels == label)
    if biases is None:
        half = len(own) // 2
        return [(left, own[:half]), (right, own[half:])]
    fits = np.isin(biases[own], aligned)
    return [(left, own[fits]), (right, own[~fits])]
