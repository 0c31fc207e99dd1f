"""Bootstrap intervals of every row over test images and seeds, as a sheet; and of differences between methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from debias_zoo.errors import ZooError, unknown
from debias_zoo.trial import Groups

from .bootstrap import DRAWS, RESAMPLED, Interval, bootstrap, contrasts
from .caption import conditions
from .cells import NOTHING, TITLES, percent
from .lines import pooled
from .rows import Block, Row, Table, Value
from .selection import RULES, EpochsOf
from .sheets import Cell, Column, Section, Sheet


def intervals_sheet(table: Table, epochs: EpochsOf) -> Sheet:
    """Each metric of the table that can be resampled, with its 95 % interval.

    Args:
        table: of any selection rule, whose epochs are resampled.
        epochs: of the rows' runs.

    Raises:
        ZooError: the table shows no metric that follows from what was right.
    """
    metrics = [metric for metric in table.metrics if metric in RESAMPLED]
    if not metrics:
        raise unknown("metric with an interval:", ", ".join(table.metrics), RESAMPLED)
    told: list[str] = list(table.problems)
    columns = [Column("method", "Method", text=True), *[Column(metric, TITLES[metric]) for metric in metrics]]
    sections = [
        Section(block.title if len(table.blocks) > 1 else "", tuple(_rows(block, table, epochs, metrics, told)))
        for block in table.blocks
    ]
    notes = (
        *(conditions(table.rows) if table.rows else ()),
        f"95 % percentile bootstrap over {DRAWS} draws of seeds and of test images; with one seed of images alone.",
        "Images are drawn within groups, for accuracy from the whole split; the worst group is a smallest of many, "
        "and its draws are shifted by what that makes them too small.",
        "Few seeds make an interval too narrow: S of them show (S - 1) / S of the variance between seeds.",
    )
    title = "Bootstrap intervals, in per cent"
    return Sheet("intervals", title, tuple(columns), tuple(sections), notes, tuple(dict.fromkeys(told)))


def _rows(
    block: Block, table: Table, epochs: EpochsOf, metrics: Sequence[str], told: list[str]
) -> list[tuple[Cell, ...]]:
    found = []
    for row in block.rows:
        name = Cell(row.name, {"": row.method, "setting": row.setting, "seeds": list(row.seeds)})
        try:
            seen = seen_by(row, table, epochs)
        except ZooError as error:
            told.append(f"no interval: {row.name}: {error}")
            found.append((name, *[_stored(row.values[metric]) for metric in metrics]))
            continue
        right = {row.name: np.stack(list(seen.right.values()))}
        intervals = bootstrap(right, seen.labels, seen.biases, seen.groups, metrics)[row.name]
        found.append((name, *[_cell(intervals[metric]) for metric in metrics]))
    return found


@dataclass(frozen=True)
class Seen:
    """What a row's seeds predicted right. right: seed -> bool (N,). labels, biases: (N,). groups: of the data."""

    right: dict[int, npt.NDArray[np.bool_]]
    labels: npt.NDArray[np.int16]
    biases: npt.NDArray[np.int16] | None
    groups: Groups


def seen_by(row: Row, table: Table, epochs: EpochsOf) -> Seen:
    """The predictions of the epochs that the table shows.

    Raises:
        ZooError: they cannot be read, or the seeds were not evaluated on the same images.
    """
    rule = RULES[table.selection]
    right = {}
    labels, biases, groups = None, None, None
    for result in row.results:
        found = epochs(result.identity)
        epoch, split = found.chosen(rule, row.split, table.metrics[0]), found.predictions[row.split]
        if epoch is None:
            raise ZooError(f"{rule.name} reads {rule.reads}, and there are none")
        if labels is not None and not np.array_equal(labels, split.labels):
            raise ZooError("its seeds were not evaluated on the same images")
        labels, biases, groups = split.labels, split.biases, found.groups
        right[result.trial.seed] = split.classes[epoch] == split.labels
    assert labels is not None  # a row has results
    assert groups is not None
    return Seen(right, labels, biases, groups)


def differences(table: Table, epochs: EpochsOf, reference: str, metric: str) -> dict[tuple[str, str], Interval]:
    """Intervals of the methods' differences from a reference: (title of the block, name of the line) -> interval.

    Without those whose predictions cannot be read, or of other images than the reference's.
    """
    if metric not in RESAMPLED:
        return {}
    found: dict[tuple[str, str], Interval] = {}
    lines = pooled(table.blocks)
    for place, block in enumerate(table.blocks):
        seen = {}
        for line in lines:
            try:
                seen[line.name] = seen_by(line.rows[place], table, epochs)
            except (KeyError, ZooError):  # no such row, or the table of intervals says why
                continue
        if (base := seen.get(reference)) is None:
            continue
        right = {name: one.right for name, one in seen.items() if np.array_equal(one.labels, base.labels)}
        made = contrasts(right, reference, base.labels, base.biases, base.groups, metric)
        found |= {(block.title, name): interval for name, interval in made.items()}
    return found


def _stored(value: Value | None) -> Cell:
    """The number alone, of results whose predictions cannot be resampled."""
    return Cell(NOTHING) if value is None else Cell(percent(value.mean), {"": value.mean, "low": None, "high": None})


def _cell(found: Interval | None) -> Cell:
    if found is None:
        return Cell(NOTHING)
    text = f"{percent(found.value)} [{percent(found.low)}, {percent(found.high)}]"
    return Cell(text, {"": found.value, "low": found.low, "high": found.high})
