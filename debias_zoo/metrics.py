"""Group metrics, each defined once, here: ``DEFINITIONS`` says in words what the functions below compute.

A *group* is the set of images of one label and one bias. A group is *bias-aligned* where the data card ties its bias to
its label, *bias-conflicting* otherwise. Groups without images are left out and counted. All metrics are fractions; None
where no image defines them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from .trial import Groups

DEFINITIONS = {
    "accuracy": "share of images predicted right",
    "unbiased": "mean of the groups' accuracies",
    "aligned": "mean of the bias-aligned groups' accuracies",
    "conflicting": "mean of the bias-conflicting groups' accuracies",
    "worst_group": "smallest accuracy of a group",
    "gap": "bias-aligned minus bias-conflicting accuracy",
    "train_weighted": "mean of the groups' accuracies, each weighted by its share of the training images",
    "ece": "expected calibration error: |accuracy - mean confidence| in 15 equal bins of the confidence in the "
    "predicted class, weighted by the images in each",
    "ece_worst": "largest expected calibration error of a group",
    "auroc": "area under the ROC curve of the second of two classes",
}
"""Metric -> its definition in words, over the images of one split."""

METRICS = ("accuracy", "unbiased", "aligned", "conflicting", "worst_group", "gap")
"""What a table shows unless it is asked for others."""

ALL_METRICS = tuple(DEFINITIONS)

LEAKAGE = "leakage"
"""Not of the predictions but of the features: what ``debias-zoo probe`` reads of the bias at the embedding."""

ERRORS = frozenset({"gap", "ece", "ece_worst", LEAKAGE})
"""Metrics of which the value nearest to zero is best; of the others the largest."""

BINS = 15
"""Of the confidence, in the expected calibration error (Guo et al., ICML 2017)."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Integers = npt.NDArray[np.integer[Any]]


def group_metrics(
    predicted: Integers,
    labels: Integers,
    biases: Integers | None,
    groups: Groups,
    log_odds: npt.NDArray[np.floating[Any]] | None = None,
) -> dict[str, float | None]:
    """All metrics of one split, and its counts.

    Args:
        predicted: (N,) classes.
        labels: (N,).
        biases: (N,); without them only accuracy, ece and auroc are defined.
        groups: of the data.
        log_odds: float (N,), log(p / (1 - p)) of the predicted class; without them neither ece nor auroc are defined.

    Returns:
        ``ALL_METRICS``, and ``n`` images, ``groups`` with images, ``empty_groups`` without; of the worst group its
        images ``worst_n``, its ``worst_label`` and ``worst_bias``. The first of several groups that are equally bad.
    """
    found: dict[str, float | None] = dict.fromkeys(ALL_METRICS)
    found["n"] = float(len(labels))
    if not len(labels):
        return found
    found["accuracy"] = float((predicted == labels).mean())
    if biases is not None:
        found |= _of_groups(*group_accuracies(predicted, labels, biases, groups.shape), groups)
    if log_odds is not None:
        found |= _of_confidence(predicted, labels, biases, groups, log_odds)
    return found


def _of_confidence(
    predicted: Integers,
    labels: Integers,
    biases: Integers | None,
    groups: Groups,
    log_odds: npt.NDArray[np.floating[Any]],
) -> dict[str, float | None]:
    right, confidence = predicted == labels, sigmoid(log_odds)
    found: dict[str, float | None] = {
        "ece": calibration_error(right, confidence),
        "auroc": _auroc(predicted, labels, log_odds, groups),
    }
    if biases is not None:
        codes = labels.astype(np.int64) * groups.shape[1] + biases
        members = [codes == code for code in np.unique(codes)]
        found["ece_worst"] = max(calibration_error(right[some], confidence[some]) for some in members)
    return found


def _of_groups(accuracy: Floats, counts: Ints, groups: Groups) -> dict[str, float | None]:
    """The metrics that follow from the groups' accuracies, both (classes, biases)."""
    present = counts > 0
    ties = np.zeros(groups.shape, dtype=bool)
    for label, tied in enumerate(groups.aligned):
        ties[label, list(tied)] = True
    worst = np.unravel_index(np.argmin(np.where(present, accuracy, np.inf)), groups.shape)
    found: dict[str, float | None] = {
        "unbiased": float(accuracy[present].mean()),
        "worst_group": float(accuracy[worst]),
        "groups": float(present.sum()),
        "empty_groups": float((~present).sum()),
        "worst_n": float(counts[worst]),
        "worst_label": float(worst[0]),
        "worst_bias": float(worst[1]),
        "aligned": float(accuracy[present & ties].mean()) if (present & ties).any() else None,
        "conflicting": float(accuracy[present & ~ties].mean()) if (present & ~ties).any() else None,
    }
    if found["aligned"] is not None and found["conflicting"] is not None:
        found["gap"] = found["aligned"] - found["conflicting"]
    if groups.train is not None:
        shares = np.where(present, np.asarray(groups.train, dtype=np.float64), 0.0)
        if shares.sum() > 0:  # over the groups that both splits have
            found["train_weighted"] = float((np.where(present, accuracy, 0.0) * shares).sum() / shares.sum())
    return found


def group_accuracies(
    predicted: Integers, labels: Integers, biases: Integers, shape: tuple[int, int]
) -> tuple[Floats, Ints]:
    """Accuracy by (label, bias), NaN where there is no image, and the number of images; both of ``shape``."""
    codes = labels.astype(np.int64) * shape[1] + biases
    counts = np.bincount(codes, minlength=shape[0] * shape[1]).reshape(shape)
    right = np.bincount(codes, weights=predicted == labels, minlength=counts.size).reshape(shape)
    return np.where(counts > 0, right / np.maximum(counts, 1), np.nan), counts


def calibration_error(right: npt.NDArray[np.bool_], confidence: Floats) -> float:
    """The expected calibration error. right: (N,). confidence: (N,) in [0, 1]; bins are open below, closed above."""
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    surplus = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(surplus).sum() / len(right))


def sigmoid(log_odds: npt.NDArray[np.floating[Any]]) -> Floats:
    """1 / (1 + exp(-x)), in float64 and without overflow; also of infinite numbers."""
    from scipy.special import expit

    found: Floats = expit(log_odds.astype(np.float64))
    return found


def _auroc(
    predicted: Integers, labels: Integers, log_odds: npt.NDArray[np.floating[Any]], groups: Groups
) -> float | None:
    """Images are ordered by the log-odds of the second class: their sigmoid is 1 for all that are above 37."""
    if len(groups.classes) != 2 or len(np.unique(labels)) < 2:
        return None
    from sklearn.metrics import roc_auc_score

    _, places = np.unique(np.where(predicted == 1, log_odds, -log_odds), return_inverse=True)  # infinite ones too
    return float(roc_auc_score(labels, places))


def goodness(metric: str, value: float) -> float:
    """A number that is larger where the metric is better."""
    return -abs(value) if metric in ERRORS else value


def wilson(right: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of an accuracy: ``right`` of ``n`` images; (0, 1) where there are none."""
    if n <= 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, wide = right / n, z * z / n
    middle = (share + wide / 2) / (1 + wide)
    half = z * math.sqrt(share * (1 - share) / n + wide / (4 * n)) / (1 + wide)
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def known_metrics(names: Iterable[str]) -> tuple[str, ...]:
    """The names, each once; raises a ZooError for one that is no metric."""
    from .errors import unknown

    asked = tuple(dict.fromkeys(names))
    for name in asked:
        if name not in ALL_METRICS:
            raise unknown("metric", name, ALL_METRICS)
    return asked
