"""What a page knows of each row: every metric of every split under every rule, and where the numbers came from."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from debias_zoo.errors import ZooError
from debias_zoo.metrics import ALL_METRICS, LEAKAGE, goodness, group_accuracies
from debias_zoo.store import Predictions, Run
from debias_zoo.trial import Groups

from .rows import Row
from .selection import DEFAULT, RULES, Epochs, Metrics, Rule

Floats = npt.NDArray[np.float64]

Numbers = dict[str, list[float | None]]
"""Metric -> [mean, sample standard deviation], per cent with two decimals."""


@dataclass(frozen=True)
class RowData:
    """A row of the page.

    Attributes:
        numbers: rule -> split -> metric -> mean and spread. regrets: rule -> metric -> points, of the shown split.
        epochs: rule -> the epochs it chose, one a seed, counted from 1; of the oracle by accuracy.
        curves: bias-aligned and bias-conflicting accuracy (seeds, epochs) as fractions, or None.
        accuracies: of the groups after the last epoch, mean over seeds, (classes, biases), or None.
        told: why something is missing, or "".
    """

    row: Row
    numbers: dict[str, dict[str, Numbers]]
    regrets: dict[str, dict[str, float]]
    epochs: dict[str, list[int]]
    curves: tuple[Floats, Floats] | None
    accuracies: Floats | None
    told: str = ""


def row_data(row: Row, runs: Mapping[str, Run]) -> RowData:
    """All about a row; what cannot be read from its predictions is left out and told."""
    try:
        epochs = [Epochs(runs[result.identity]) for result in row.results]
    except ZooError as error:
        last = {DEFAULT: _by_split([result.metrics for result in row.results])}
        return RowData(row, _with_leakage(row, last), {}, {}, None, None, str(error))
    numbers: dict[str, dict[str, Numbers]] = {}
    regrets: dict[str, dict[str, float]] = {}
    chosen: dict[str, list[int]] = {}
    for rule in RULES.values():
        picked = [found.chosen(rule, row.split, "accuracy") for found in epochs]
        known = [epoch for epoch in picked if epoch is not None]
        if len(known) < len(picked):
            continue
        pairs = list(zip(epochs, known, strict=True))
        numbers[rule.name] = _by_split([found.all_metrics(epoch) for found, epoch in pairs])
        if rule.name == "oracle":
            numbers[rule.name] |= {row.split: _of_oracle(epochs, rule, row.split)}
        chosen[rule.name] = [epoch + 1 for epoch in known]
        regrets[rule.name] = _regrets(pairs, row.split)
    return RowData(row, _with_leakage(row, numbers), regrets, chosen, _curves(epochs, row.split), _groups(row, epochs))


def _with_leakage(row: Row, numbers: dict[str, dict[str, Numbers]]) -> dict[str, dict[str, Numbers]]:
    """The same with what was probed, which belongs to the last epoch's network."""
    value = row.values[LEAKAGE]
    if value is not None and DEFAULT in numbers:
        std = None if value.std is None else round(100 * value.std, 2)
        for of_split in numbers[DEFAULT].values():
            of_split[LEAKAGE] = [round(100 * value.mean, 2), std]
    return numbers


def _by_split(found: Sequence[Mapping[str, Metrics]]) -> dict[str, Numbers]:
    splits = [name for name in found[0] if all(name in one for one in found)]
    return {split: _numbers([one[split] for one in found]) for split in splits}


def _numbers(metrics: Sequence[Metrics]) -> Numbers:
    return {metric: _mean_std([one.get(metric) for one in metrics]) for metric in ALL_METRICS}


def _mean_std(values: Sequence[float | None]) -> list[float | None]:
    known = [100 * value for value in values if value is not None]
    if len(known) < len(values):
        return [None, None]
    return [round(statistics.fmean(known), 2), round(statistics.stdev(known), 2) if len(known) > 1 else None]


def _of_oracle(epochs: Sequence[Epochs], rule: Rule, split: str) -> Numbers:
    """Each metric at its own best epoch."""
    found: Numbers = {}
    for metric in ALL_METRICS:
        picked = [(one, one.chosen(rule, split, metric)) for one in epochs]
        found[metric] = _mean_std([None if k is None else one.metrics(split, k)[metric] for one, k in picked])
    return found


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
            found[metric] = round(100 * statistics.fmean(lost), 2)
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
    found = [_accuracies(one.run.predictions()[row.split], one.groups) for one in epochs]
    known = [accuracy for accuracy in found if accuracy is not None]
    return None if len(known) < len(found) else np.mean(known, axis=0)


def _accuracies(predictions: Predictions, groups: Groups) -> Floats | None:
    if predictions.biases is None:
        return None
    last = predictions.classes[-1]
    return group_accuracies(last, predictions.labels, predictions.biases, groups.shape)[0]


def as_json(data: RowData, place: int) -> dict[str, Any]:
    """What the page's script and its dialog show of a row."""
    row = data.row
    trial = row.trial.model_dump(mode="json", exclude={"seed", "supervision"})
    return {
        "id": place,
        "method": row.method,
        "name": row.name,
        "level": row.supervision.level,
        "numbers": data.numbers,
        "regrets": data.regrets,
        "epochs": data.epochs,
        "seconds": None if row.seconds is None else round(row.seconds, 1),
        "command": row.trial.command(row.seeds),
        "config": trial,
        "seeds": [_seed(row, place) for place in range(len(row.results))],
        "told": data.told,
    }


def _seed(row: Row, place: int) -> dict[str, Any]:
    """Where the number of one seed came from."""
    result = row.results[place]
    values = result.metrics[row.split]
    return {
        "seed": result.trial.seed,
        "identity": result.identity,
        "metrics": {m: None if (v := values.get(m)) is None else round(100 * v, 2) for m in ALL_METRICS},
        "environment": result.environment,
        "notes": result.notes,
    }


def splits_of(data: Iterable[RowData]) -> list[str]:
    """Every split that some row has, in the order they are first met."""
    return list(dict.fromkeys(split for one in data for of_rule in one.numbers.values() for split in of_rule))
