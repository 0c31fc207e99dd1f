"""What a page knows of each row: every metric of every split under every rule, and where the numbers came from."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from debias_zoo.errors import ZooError
from debias_zoo.metrics import ALL_METRICS, goodness, group_accuracies
from debias_zoo.store import Predictions, Run
from debias_zoo.trial import Groups

from .rows import Row
from .selection import DEFAULT, RULES, Epochs, EpochsOf, Metrics, Rule, read_by, select

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """What a rule reports of a row.

    Attributes:
        metrics: split -> the metrics of each seed, as fractions.
        epochs: that it chose, one a seed, counted from 1; empty where only the results are known.
        regrets: metric -> points that the best eligible epoch has more, mean over seeds, on the row's split.
    """

    metrics: dict[str, list[Metrics]]
    epochs: tuple[int, ...] = ()
    regrets: Mapping[str, float] | None = None


@dataclass(frozen=True)
class RowData:
    """A row of the page.

    Attributes:
        choices: by the name of the rule; without those that cannot be asked of each seed.
        levels: of supervision, by the name of the rule, with what the rule reads.
        curves: bias-aligned and bias-conflicting accuracy (seeds, epochs) as fractions, or None.
        accuracies: of the groups after the last epoch, mean over seeds, (classes, biases), or None.
        told: why something is missing, or "".
    """

    row: Row
    choices: dict[str, Choice]
    levels: dict[str, str]
    curves: tuple[Floats, Floats] | None = None
    accuracies: Floats | None = None
    told: str = ""


def row_data(row: Row, runs: Mapping[str, Run], epochs: EpochsOf, metric: str = "accuracy") -> RowData:
    """All about a row; what cannot be read from its predictions is left out and told.

    Args:
        row: of the table; which rule chose its numbers does not matter.
        runs: by identity.
        epochs: of these runs.
        metric: of the oracle.
    """
    own = [runs[result.identity] for result in row.results]
    supervision = own[0].result.trial.supervision
    levels = {rule.name: read_by(rule, supervision).level for rule in RULES.values()}
    try:
        found = [epochs(run.result.identity) for run in own]
    except ZooError as error:
        metrics = _by_split([run.result.metrics for run in own])
        return RowData(row, {DEFAULT: Choice(metrics)}, levels, told=str(error))
    every = {rule.name: _choice(found, rule, row.split, metric) for rule in RULES.values()}
    choices = {name: choice for name, choice in every.items() if choice is not None}
    return RowData(row, choices, levels, _curves(found, row.split), _groups(row, found))


def splits_of(data: Iterable[RowData]) -> list[str]:
    """Every split that some row has, in the order they are first met."""
    return list(dict.fromkeys(split for one in data for choice in one.choices.values() for split in choice.metrics))


def _choice(epochs: Sequence[Epochs], rule: Rule, split: str, metric: str) -> Choice | None:
    """What the rule reports, as ``report.selected`` does: of the last epoch, what the trial itself noted."""
    chosen = [found.chosen(rule, split, metric) for found in epochs]
    results = [found.run.result if rule.name == DEFAULT else select(found, rule, split, metric) for found in epochs]
    known = [epoch for epoch in chosen if epoch is not None]
    there = [result for result in results if result is not None]
    if len(known) < len(epochs):
        return None
    return Choice(
        _by_split([result.metrics for result in there]),
        tuple(epoch + 1 for epoch in known),
        _regrets(list(zip(epochs, known, strict=True)), split),
    )


def _by_split(found: Sequence[Mapping[str, Metrics]]) -> dict[str, list[Metrics]]:
    """Split -> metrics of each seed, of the splits that all seeds have."""
    splits = [name for name in found[0] if all(name in one for one in found)]
    return {split: [one[split] for one in found] for split in splits}


def _regrets(pairs: Sequence[tuple[Epochs, int]], split: str) -> dict[str, float]:
    found = {}
    for metric in ALL_METRICS:
        lost = []
        for one, epoch in pairs:
            best, value = one.chosen(RULES["oracle"], split, metric), one.metrics(split, epoch)[metric]
            top = None if best is None else one.metrics(split, best)[metric]
            if top is not None and value is not None:
                lost.append(goodness(metric, top) - goodness(metric, value))
        if len(lost) == len(pairs):
            found[metric] = 100 * statistics.fmean(lost)
    return found


def _curves(epochs: Sequence[Epochs], split: str) -> tuple[Floats, Floats] | None:
    """Accuracies after every epoch of all stages; seeds that stopped at other epochs are cut to the shortest."""
    count = min(found.count for found in epochs)
    pair = []
    for metric in ("aligned", "conflicting"):
        values = [[found.metrics(split, epoch)[metric] for epoch in range(count)] for found in epochs]
        if any(value is None for of_seed in values for value in of_seed):
            return None
        pair.append(np.array(values, dtype=np.float64))
    return pair[0], pair[1]


def _groups(row: Row, epochs: Sequence[Epochs]) -> Floats | None:
    found = [_accuracies(one.predictions[row.split], one.groups) for one in epochs]
    known = [accuracy for accuracy in found if accuracy is not None]
    return None if len(known) < len(found) else np.mean(known, axis=0)


def _accuracies(predictions: Predictions, groups: Groups) -> Floats | None:
    if predictions.biases is None:
        return None
    last = predictions.classes[-1]
    return group_accuracies(last, predictions.labels, predictions.biases, groups.shape)[0]
