"""Bootstrap intervals of every row, over test images and over seeds, as a sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from debias_zoo.errors import ZooError, unknown
from debias_zoo.store import Run

from .bootstrap import DRAWS, RESAMPLED, Interval, bootstrap
from .cells import NOTHING, TITLES, percent
from .rows import Block, Row, Table, Value
from .selection import DEFAULT
from .sheets import Cell, Column, Section, Sheet


def intervals_sheet(table: Table, runs: Mapping[str, Run]) -> Sheet:
    """Each metric of the table that can be resampled, with its 95 % interval.

    Args:
        table: of the last epochs.
        runs: by identity.

    Raises:
        ZooError: the table shows another epoch than the last, or no metric that follows from what was right.
    """
    if table.selection != DEFAULT:
        raise ZooError(f"intervals are of the last epoch: leave out --select {table.selection}")
    metrics = [metric for metric in table.metrics if metric in RESAMPLED]
    if not metrics:
        raise unknown("metric with an interval:", ", ".join(table.metrics), RESAMPLED)
    told: list[str] = list(table.problems)
    columns = [Column("method", "Method", text=True), *[Column(metric, TITLES[metric]) for metric in metrics]]
    sections = [
        Section(block.title if len(table.blocks) > 1 else "", tuple(_rows(block, runs, metrics, told)))
        for block in table.blocks
    ]
    notes = (
        f"95 % percentile bootstrap over {DRAWS} draws of seeds and of test images; with one seed of images alone.",
        "Images are drawn within groups, for accuracy from the whole split; the worst group is a smallest of many, "
        "and its draws are shifted by what that makes them too small.",
        "Few seeds make an interval too narrow: S of them show (S - 1) / S of the variance between seeds.",
    )
    title = "Bootstrap intervals, in per cent"
    return Sheet("intervals", title, tuple(columns), tuple(sections), notes, tuple(dict.fromkeys(told)))


def _rows(block: Block, runs: Mapping[str, Run], metrics: Sequence[str], told: list[str]) -> list[tuple[Cell, ...]]:
    found = []
    for row in block.rows:
        name = Cell(row.name, {"": row.method, "setting": row.setting, "seeds": list(row.seeds)})
        try:
            intervals = _intervals(row, runs, metrics)
        except ZooError as error:
            told.append(f"no interval: {row.name}: {error}")
            found.append((name, *[_stored(row.values[metric]) for metric in metrics]))
            continue
        found.append((name, *[_cell(intervals[metric]) for metric in metrics]))
    return found


def _stored(value: Value | None) -> Cell:
    """The number alone, of results whose predictions cannot be resampled."""
    return Cell(NOTHING) if value is None else Cell(percent(value.mean), {"": value.mean, "low": None, "high": None})


def _intervals(row: Row, runs: Mapping[str, Run], metrics: Sequence[str]) -> Mapping[str, Interval | None]:
    predictions = [runs[result.identity].predictions()[row.split] for result in row.results]
    groups, first = row.results[0].groups, predictions[0]
    if groups is None:
        raise ZooError("its results do not say what the groups are (schema 1)")
    if any(not np.array_equal(found.labels, first.labels) for found in predictions):
        raise ZooError("its seeds were not evaluated on the same images")
    right = np.stack([found.classes[-1] == found.labels for found in predictions])
    return bootstrap({row.name: right}, first.labels, first.biases, groups, metrics)[row.name]


def _cell(found: Interval | None) -> Cell:
    if found is None:
        return Cell(NOTHING)
    text = f"{percent(found.value)} [{percent(found.low)}, {percent(found.high)}]"
    return Cell(text, {"": found.value, "low": found.low, "high": found.high})
