"""Intervals of a metric over test images and seeds: how far it would move on other images and from other seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from debias_zoo.errors import ZooError, unknown
from debias_zoo.metrics import ERRORS, METRICS
from debias_zoo.trial import Groups

DRAWS = 2000
"""Resamples; the ends of a 95 % interval are then known to about 6 % of the metric's standard error."""

CONFIDENCE = 0.95

RESAMPLED = ("accuracy", "unbiased", "aligned", "conflicting", "worst_group", "gap", "train_weighted")
"""Metrics that follow from which images were predicted right."""

CELLS = 1 << 20
"""Numbers that are held at a time: resamples x images."""

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Interval:
    """A metric, as a fraction, from ``low`` to ``high``; value: of the images as they are, mean over the seeds."""

    value: float
    low: float
    high: float
    seeds: int
    images: int

    @property
    def over(self) -> str:
        """What was resampled, in words."""
        images = f"{self.images} test images"
        return f"{images} alone: there is one seed" if self.seeds == 1 else f"{images} and {self.seeds} seeds"


def bootstrap(
    right: Mapping[str, Bools],
    labels: Integers,
    biases: Integers | None,
    groups: Groups,
    metrics: Sequence[str] = METRICS,
    *,
    draws: int = DRAWS,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> dict[str, dict[str, Interval | None]]:
    """Percentile bootstrap intervals (Efron 1979) of every method's mean over seeds, on one test split.

    A draw takes as many seeds as there are, with replacement, and as many images, with replacement. All seeds of a
    method see the same images, so a draw takes the same images for all of them (the pigeonhole bootstrap, Owen, Annals
    of Applied Statistics 2007; somewhat too wide, never too narrow). For ``accuracy`` the images come from the whole
    split, for the other metrics from within each group, so that no group is ever empty. All methods are given the same
    images and, where they have equally many seeds, the same seeds; no method's interval depends on the others.

    The smallest of resampled groups is smaller than the smallest of the groups, most where many are equally bad. The
    draws of ``worst_group`` are therefore shifted by what their mean is too small: its interval is one of the number
    that test splits of this size give on average, not of the worst group's true accuracy, which is higher.

    Assumes that images are independent of each other, and seeds too. Two limits: with S seeds the bootstrap sees
    (S - 1) / S of the variance between seeds, so few seeds make it too narrow; a group that is all right or all wrong
    is so in every draw (``metrics.wilson`` says more about one tiny group).

    Args:
        right: method -> bool (seeds, N), whether an image was predicted right.
        labels: (N,).
        biases: (N,); without them only ``accuracy`` is defined.
        groups: of the data.
        metrics: some of ``RESAMPLED``.
        draws: resamples.
        confidence: of the intervals, in (0, 1).
        seed: of the draws.

    Returns:
        method -> metric -> its interval; None where no image defines the metric, as in ``group_metrics``.

    Raises:
        ZooError: for a metric that needs more than right or wrong, and for seeds that saw other images.
    """
    _check(right, labels, metrics)
    if not right:
        return {}
    found = _resampled(right, labels, biases, groups, metrics, draws, seed)
    intervals: dict[str, dict[str, Interval | None]] = {}
    ends = np.cumsum([len(one) for one in right.values()])
    for (method, one), end in zip(right.items(), ends, strict=True):
        own = slice(end - len(one), end)
        picks = np.random.default_rng([seed, 2]).integers(len(one), size=(draws, len(one)))
        intervals[method] = {
            metric: _interval(found[metric][:, own], picks, confidence, len(labels), metric)
            if metric in found
            else None
            for metric in metrics
        }
    return intervals


def contrasts(
    right: Mapping[str, Mapping[int, Bools]],
    reference: str,
    labels: Integers,
    biases: Integers | None,
    groups: Groups,
    metric: str,
    *,
    draws: int = DRAWS,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> dict[str, Interval]:
    """Intervals of every method's difference from a reference, on one test split, by the draws of ``bootstrap``.

    A draw takes the same seeds and the same images for both, so what both share does not widen the interval. Of
    metrics in ``ERRORS`` absolute values are compared, as in ``statistics.paired_difference``.

    Args:
        right: method -> seed -> bool (N,), whether an image was predicted right.
        reference: one of the methods; it is not in the answer.
        labels: (N,).
        biases: as in ``bootstrap``.
        groups: of the data.
        metric: one of ``RESAMPLED``.
        draws: resamples.
        confidence: of the intervals.
        seed: of the draws.

    Returns:
        method -> interval; without those that share no seed with the reference, or whose metric no image defines.
    """
    stacked = {method: np.stack(list(of_seed.values())) for method, of_seed in right.items() if of_seed}
    _check(stacked, labels, [metric])
    if reference not in stacked:
        return {}
    found = _resampled(stacked, labels, biases, groups, [metric], draws, seed).get(metric)
    if found is None:
        return {}
    if metric in ERRORS:
        found = np.abs(found)
    ends = np.cumsum([len(one) for one in stacked.values()])
    places = {
        method: dict(zip(right[method], range(end - len(one), end), strict=True))
        for (method, one), end in zip(stacked.items(), ends, strict=True)
    }
    intervals = {}
    for method in stacked:
        shared = [number for number in places[method] if number in places[reference]]
        if method == reference or not shared:
            continue
        own, other = ([places[name][number] for number in shared] for name in (method, reference))
        picks = np.random.default_rng([seed, 2]).integers(len(shared), size=(draws, len(shared)))
        difference = found[:, own] - found[:, other]
        intervals[method] = _interval(difference, picks, confidence, len(labels), metric, (-1.0, 1.0))
    return intervals


def _resampled(
    right: Mapping[str, Bools],
    labels: Integers,
    biases: Integers | None,
    groups: Groups,
    metrics: Sequence[str],
    draws: int,
    seed: int,
) -> dict[str, Floats]:
    """Metric -> (1 + draws, seeds of all methods), like ``_shares``; without those that no image defines."""
    columns = np.concatenate([np.asarray(one, dtype=np.float32) for one in right.values()])  # (methods' seeds, N)
    found: dict[str, Floats] = {}
    if "accuracy" in metrics and len(labels):
        found["accuracy"] = _shares(columns, draws, np.random.default_rng([seed, 0]))
    if biases is not None and len(labels) and set(metrics) - {"accuracy"}:
        codes = labels.astype(np.int64) * groups.shape[1] + biases
        found |= _of_groups(columns, codes, groups, draws, np.random.default_rng([seed, 1]))
    return found


def _check(right: Mapping[str, Bools], labels: Integers, metrics: Sequence[str]) -> None:
    for metric in metrics:
        if metric not in RESAMPLED:
            raise unknown("metric", metric, RESAMPLED, "these follow from which images were predicted right")
    for method, one in right.items():
        if one.ndim != 2 or not len(one) or one.shape[1] != len(labels):
            raise ZooError(
                f"bootstrap of {method!r}: given right of shape {one.shape} for {len(labels)} labels; allowed is "
                f"(seeds, {len(labels)}) with at least one seed: test all seeds on the same images"
            )


def _of_groups(
    columns: npt.NDArray[np.float32], codes: Integers, groups: Groups, draws: int, random: np.random.Generator
) -> dict[str, Floats]:
    """Metric -> (1 + draws, columns), like ``_shares``; without those that no group defines."""
    present = np.unique(codes)
    weights = _weights(present, groups)
    sums = {metric: np.zeros((1 + draws, len(columns))) for metric in weights}
    worst = np.full((1 + draws, len(columns)), np.inf)
    for place, code in enumerate(present):
        shares = _shares(columns[:, codes == code], draws, random)
        np.minimum(worst, shares, out=worst)
        for metric, weight in weights.items():
            if weight[place]:
                sums[metric] += weight[place] * shares
    return {**sums, "worst_group": worst}


def _weights(present: Integers, groups: Groups) -> dict[str, Floats]:
    """Metric -> (groups present,): how it weighs the groups' accuracies; as ``group_metrics`` has it."""
    ties = np.array([code % groups.shape[1] in groups.aligned[code // groups.shape[1]] for code in present])
    found = {"unbiased": np.full(len(present), 1 / len(present))}
    if ties.any():
        found["aligned"] = ties / ties.sum()
    if not ties.all():
        found["conflicting"] = ~ties / (~ties).sum()
    if ties.any() and not ties.all():
        found["gap"] = found["aligned"] - found["conflicting"]
    if groups.train is not None:
        train = np.asarray(groups.train, dtype=np.float64).ravel()[present]
        if train.sum() > 0:
            found["train_weighted"] = train / train.sum()
    return found


def _shares(columns: npt.NDArray[np.float32], draws: int, random: np.random.Generator) -> Floats:
    """Share of images that are right: row 0 of the images as they are, then of each resample of them.

    columns: (C, n) of zeros and ones, whose sums float32 holds exactly. Returns (1 + draws, C).
    """
    size = columns.shape[1]
    found = np.empty((1 + draws, len(columns)))
    found[0] = columns.sum(axis=1)
    step = max(1, CELLS // size)
    for start in range(1, 1 + draws, step):
        rows = min(step, 1 + draws - start)
        picks = random.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
        times = np.bincount(picks.ravel(), minlength=rows * size).reshape(rows, size)  # how often each image is drawn
        found[start : start + rows] = times.astype(np.float32) @ columns.T
    found /= size
    return found


def _interval(
    values: Floats,
    picks: Integers,
    confidence: float,
    images: int,
    metric: str,
    ends: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """values: (1 + draws, seeds), row 0 of the images as they are. picks: (draws, seeds), the seeds of each draw."""
    means = np.take_along_axis(values[1:], picks, axis=1).mean(axis=1)
    value = float(values[0].mean())
    if metric == "worst_group":
        means = np.clip(means + (value - means.mean()), *ends)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high), values.shape[1], images)
