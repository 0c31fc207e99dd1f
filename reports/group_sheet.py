"""The accuracy of every group, by label and bias, as a sheet: where a method fails."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from debias_zoo.errors import ZooError
from debias_zoo.metrics import group_accuracies

from .caption import conditions
from .cells import NOTHING, percent, spread
from .intervals import Seen, seen_by
from .rows import Block, Row, Table, Value, over_seeds
from .selection import EpochsOf
from .sheets import Cell, Column, Section, Sheet

_IMAGES = "images"
"""Where a method would stand: how many images a group has."""


def groups_sheet(table: Table, epochs: EpochsOf) -> Sheet:
    """A row a method and label, a column a bias; above them the groups' images.

    Args:
        table: of any selection rule.
        epochs: of the rows' runs.

    Raises:
        ZooError: no row has predictions with bias labels.
    """
    told = list(table.problems)
    sections: list[Section] = []
    columns: dict[str, None] = {}
    found = [(block, _seen(block, table, epochs, told)) for block in table.blocks]
    for _, seen in found:
        columns |= dict.fromkeys(name for one in seen.values() for name in one.groups.biases)
    if not columns:
        reason = f": {told[-1]}" if told else ""
        raise ZooError(f"no row has predictions of images with bias labels, so there are no groups{reason}")
    for block, seen in found:
        rows = [
            cells for row in block.rows if row.name in seen for cells in _of_row(row, seen[row.name], list(columns))
        ]
        if seen:
            rows = [*_counts(next(iter(seen.values())), list(columns)), *rows]
        sections.append(Section(block.title if len(table.blocks) > 1 else "", tuple(rows)))
    head = (Column("method", "Method", text=True), Column("label", "Label", text=True))
    notes = (
        *conditions(table.rows),
        "Accuracy of the images of one label and one bias; = marks bias-aligned groups, "
        f"{NOTHING} those without images.",
    )
    return Sheet(
        "groups",
        "Accuracy of every group, in per cent",
        (*head, *[Column(name, name) for name in columns]),
        tuple(section for section in sections if section.rows),
        notes,
        tuple(dict.fromkeys(told)),
    )


def _seen(block: Block, table: Table, epochs: EpochsOf, told: list[str]) -> dict[str, Seen]:
    """By the row's name; without rows whose predictions cannot be read or have no bias labels."""
    found = {}
    for row in block.rows:
        try:
            seen = seen_by(row, table, epochs)
        except ZooError as error:
            told.append(f"no groups: {row.name}: {error}")
            continue
        if seen.biases is None:
            told.append(f"no groups: {row.name} on {row.dataset}: split {row.split!r} has no bias labels")
            continue
        found[row.name] = seen
    return found


def _counts(seen: Seen, columns: list[str]) -> list[tuple[Cell, ...]]:
    """How many images each group has, a row a label."""
    _, counts = _accuracies(np.ones(len(seen.labels), dtype=bool), seen)
    rows = []
    for label, name in enumerate(seen.groups.classes):
        numbers = dict(zip(seen.groups.biases, counts[label].tolist(), strict=True))
        cells = [Cell(str(numbers.get(bias, NOTHING)), numbers.get(bias)) for bias in columns]
        rows.append((Cell(_IMAGES if label == 0 else "", _IMAGES), Cell(name, name), *cells))
    return rows


def _of_row(row: Row, seen: Seen, columns: list[str]) -> list[tuple[Cell, ...]]:
    """A row a label, mean and spread over seeds."""
    tables = [_accuracies(right, seen)[0] for right in seen.right.values()]
    rows = []
    for label, name in enumerate(seen.groups.classes):
        cells = {}
        for bias, title in enumerate(seen.groups.biases):
            numbers = [float(table[label, bias]) for table in tables]
            cells[title] = _cell(over_seeds(numbers), bias in seen.groups.aligned[label])
        method = Cell(row.name if label == 0 else "", {"": row.method, "setting": row.setting})
        rows.append((method, Cell(name, name), *[cells.get(title, Cell(NOTHING)) for title in columns]))
    return rows


def _accuracies(right: npt.NDArray[np.bool_], seen: Seen) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Accuracy and number of images, (classes, biases)."""
    assert seen.biases is not None  # rows without are told
    predicted = np.where(right, seen.labels, -1)
    return group_accuracies(predicted, seen.labels, seen.biases, seen.groups.shape)


def _cell(value: Value | None, aligned: bool) -> Cell:
    if value is None:
        return Cell(NOTHING)
    text = f"{percent(value.mean)}{spread(value.std)}{' =' if aligned else ''}"
    return Cell(text, {"": value.mean, "std": value.std, "aligned": aligned})
