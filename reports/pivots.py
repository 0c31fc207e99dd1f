"""The table turned: methods against data sets, or against the settings of each data set, one metric a sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from debias_zoo.errors import unknown

from .caption import caption
from .cells import NOTHING, TITLES, percent, spread
from .formats import LAYOUTS
from .ranking import ranks
from .rows import LEVELS, Block, Row, Table
from .settings import data_of, key_of
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
    lines: dict[tuple[str, str], dict[int, Row]] = {}
    for place, block in enumerate(blocks):
        for row in block.rows:
            lines.setdefault(_key(row), {})[place] = row
    ordered = sorted(lines.values(), key=lambda line: LEVELS.index(_first(line).supervision.level))
    columns = [Column("method", "Method", text=True)]
    columns += [Column(block.title, block.title.removeprefix(f"{dataset}, ")) for block in blocks]
    named = _named(ordered)
    cells = [[_cell(line.get(place), metric) for place in range(len(blocks))] for line in ordered]
    marked = _marked(cells, metric)
    sections = []
    for level in LEVELS:
        rows = [
            (Cell(name, _first(line).method), *row)
            for name, line, row in zip(named, ordered, marked, strict=True)
            if _first(line).supervision.level == level
        ]
        if rows:
            sections.append(Section(level, tuple(rows)))
    on = f" on {dataset}" if dataset else ""
    notes = tuple(caption(table))
    name = "-".join(filter(None, [metric, dataset]))
    return Sheet(name, f"{TITLES[metric]}{on}, in per cent", tuple(columns), tuple(sections), notes, table.problems)


def _key(row: Row) -> tuple[str, str]:
    """What makes a line: the method and all its settings but those of the data."""
    data = data_of(row.fields)
    return row.method, key_of({path: text for path, text in row.fields.items() if path not in data})


def _first(line: dict[int, Row]) -> Row:
    return line[min(line)]


def _named(lines: Sequence[dict[int, Row]]) -> list[str]:
    """The lines' names; of a method with several, with the setting that tells them apart."""
    methods = [_first(line).method for line in lines]
    return [
        _first(line).method if methods.count(_first(line).method) == 1 else f"{_first(line).method} ({_setting(line)})"
        for line in lines
    ]


def _setting(line: dict[int, Row]) -> str:
    row = _first(line)
    return row.label or row.setting or row.dataset


def _cell(row: Row | None, metric: str) -> Cell:
    value = row.values[metric] if row else None
    if value is None:
        return Cell(NOTHING)
    seeds = len(row.seeds) if row else 0
    return Cell(f"{percent(value.mean)}{spread(value.std)}", {"": value.mean, "std": value.std, "n": seeds})


def _marked(cells: list[list[Cell]], metric: str) -> list[list[Cell]]:
    """The cells with the best and the second best of each column marked."""
    means = [[cell.value[""] if cell.value else None for cell in line] for line in cells]
    places = [ranks(metric, list(column)) for column in zip(*means, strict=True)]
    return [
        [replace(cell, rank=places[place][number]) for place, cell in enumerate(line)]
        for number, line in enumerate(cells)
    ]
