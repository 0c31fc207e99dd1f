"""Group metrics, each defined once. All are fractions in [0, 1]; None where no image defines them.

A *group* is the set of images of one label and one bias. A group is *bias-aligned* where the data card ties its bias to
its label, *bias-conflicting* otherwise.

- accuracy: share of images predicted right.
- unbiased: mean of the groups' accuracies, over groups with images.
- worst_group: smallest accuracy of a group, over groups with images.
- aligned, conflicting: mean of the accuracies of the bias-aligned, of the bias-conflicting groups.
- gap: aligned minus conflicting.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

METRICS = ("accuracy", "unbiased", "aligned", "conflicting", "worst_group", "gap")

Ints = npt.NDArray[np.int64]


def group_accuracies(
    predicted: Ints, labels: Ints, biases: Ints, shape: tuple[int, int]
) -> tuple[npt.NDArray[np.float64], Ints]:
    """Accuracy by (label, bias), NaN where there is no image, and the number of images; both of ``shape``."""
    groups = labels * shape[1] + biases
    counts = np.bincount(groups, minlength=shape[0] * shape[1]).reshape(shape)
    right = np.bincount(groups, weights=predicted == labels, minlength=counts.size).reshape(shape)
    with np.errstate(invalid="ignore"):
        return np.where(counts > 0, right / np.maximum(counts, 1), np.nan), counts


def group_metrics(
    predicted: Ints, labels: Ints, biases: Ints | None, aligned: Sequence[Sequence[int]], biases_count: int
) -> dict[str, float | None]:
    """All metrics of one split, and its counts.

    Args:
        predicted: int64 (N,).
        labels: int64 (N,).
        biases: int64 (N,); without them only the accuracy is defined.
        aligned: for each class, the biases aligned with it.
        biases_count: how many bias values there are.

    Returns:
        ``METRICS``, and ``n`` images, ``groups`` with images, ``worst_n`` images in the worst group.
    """
    found: dict[str, float | None] = dict.fromkeys(METRICS)
    found["n"] = float(len(labels))
    found["accuracy"] = float((predicted == labels).mean()) if len(labels) else None
    if biases is None or not len(labels):
        return found
    shape = (len(aligned), biases_count)
    accuracy, counts = group_accuracies(predicted, labels, biases, shape)
    present = counts > 0
    ties = np.zeros(shape, dtype=bool)
    for label, tied in enumerate(aligned):
        ties[label, list(tied)] = True
    worst = np.unravel_index(np.nanargmin(np.where(present, accuracy, np.inf)), shape)
    found["unbiased"] = float(accuracy[present].mean())
    found["worst_group"] = float(accuracy[worst])
    found["groups"] = float(present.sum())
    found["worst_n"] = float(counts[worst])
    for name, mask in (("aligned", present & ties), ("conflicting", present & ~ties)):
        found[name] = float(accuracy[mask].mean()) if mask.any() else None
    if found["aligned"] is not None and found["conflicting"] is not None:
        found["gap"] = found["aligned"] - found["conflicting"]
    return found
