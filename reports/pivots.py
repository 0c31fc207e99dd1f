"""The table turned: methods against data sets, or against the settings of each data set, one metric a sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from debias_zoo.errors import unknown
from debias_zoo.metrics import ERRORS

from .caption import among, conditions, selection_sentence, tuning
from .cells import NOTHING, TITLES, percent, spread
from .formats import LAYOUTS
from .lines import Line, lines_of
from .ranking import ranks
from .rows import LEVELS, Block, Row, Table
from .sheets import Cell, Column, Section, Sheet


def pivot_sheets(table: Table, layout: str) -> list[Sheet]:
    """A sheet for each metric of the table and, by settings, for each data set."""
    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    if layout == "methods-by-datasets":
        return [_sheet(table, list(table.blocks), metric, "") for metric in table.metrics]
    by_dataset: dict[str, list[Block]] = {}
    for block in table.blocks:
        by_dataset.setdefault(block.rows[0].dataset, []).append(block)
    return [_sheet(table, blocks, metric, name) for metric in table.metrics for name, blocks in by_dataset.items()]


def _sheet(table: Table, blocks: Sequence[Block], metric: str, dataset: str) -> Sheet:
    lines = sorted(lines_of(blocks), key=lambda line: LEVELS.index(line.first.supervision.level))
    columns = [Column("method", "Method", text=True)]
    columns += [Column(block.title, block.title.removeprefix(f"{dataset}, ")) for block in blocks]
    cells = [[_cell(line.rows.get(place), metric) for place in range(len(blocks))] for line in lines]
    marked = _marked(cells, metric)
    sections = []
    for level in LEVELS:
        rows = [
            (Cell(line.name, {"": line.method, "setting": line.setting}), *row)
            for line, row in zip(lines, marked, strict=True)
            if line.first.supervision.level == level
        ]
        if rows:
            sections.append(Section(level, tuple(rows)))
    on = f" on {dataset}" if dataset else ""
    name = "-".join(filter(None, [metric, dataset]))
    title = f"{TITLES[metric]}{on}, in per cent"
    return Sheet(name, title, tuple(columns), tuple(sections), tuple(_notes(table, blocks, lines, metric)))


def _notes(table: Table, blocks: Sequence[Block], lines: Sequence[Line], metric: str) -> Iterator[str]:
    rows = [row for block in blocks for row in block.rows]
    if not rows:
        return
    yield from (*conditions(rows), selection_sentence(table), tuning(rows))
    if ranked := among(rows):
        yield f"Ranked are the best{ranked}."
    if metric in ERRORS:
        yield f"{TITLES[metric]}: nearest to zero is best."
    if not all(line.trained_alike for line in lines):
        yield "Epochs, batch sizes, learning rates and normalisation are the protocol's own for each data set."


def _cell(row: Row | None, metric: str) -> Cell:
    value = row.values[metric] if row else None
    if value is None:
        return Cell(NOTHING)
    seeds = len(row.seeds) if row else 0
    return Cell(f"{percent(value.mean)}{spread(value.std)}", {"": value.mean, "std": value.std, "n": seeds})


def _marked(cells: list[list[Cell]], metric: str) -> list[list[Cell]]:
    """The cells with the best and the second best of each column marked."""
    means = [[cell.value[""] if cell.value else None for cell in line] for line in cells]
    seeds = [[cell.value["n"] if cell.value else 0 for cell in line] for line in cells]
    columns = zip(zip(*means, strict=True), zip(*seeds, strict=True), strict=True)
    places = [ranks(metric, of_column, counts) for of_column, counts in columns]
    return [
        [replace(cell, rank=places[place][number]) for place, cell in enumerate(line)]
        for number, line in enumerate(cells)
    ]
