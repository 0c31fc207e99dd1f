"""Sheets in every format: the same few lines write a cost table, a ledger or a probe."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from debias_zoo.registry import load_format

from .formats import check_can
from .markdown import escape as escape_markdown
from .records import field
from .sheets import RANKING, Cell, Sheet

_GAP = 2
"""Spaces after a column of a terminal's table, besides the one that divides columns."""

_STYLES = {1: "bold", 2: "underline", None: ""}

_MARKS = {1: "*", 2: "°", None: ""}
"""Of the ranks, where nothing can be bold or underlined."""


def render_sheets(sheets: Sequence[Sheet], form: str, standalone: bool = False) -> str:
    """The sheets one below the other, as text in the format called ``form``; ``standalone``: as a whole document.

    Raises:
        ZooError: an unknown format, or one that sheets have not.
    """
    found = load_format(form)
    check_can(found, sheets=True, standalone=standalone)
    return found().sheets(sheets, standalone)


def to_rich(sheets: Sequence[Sheet]) -> RenderableType:
    """What a rich console prints as the sheets."""
    return Group(*[_Grid(sheet) for sheet in sheets])


def records(sheet: Sheet) -> list[dict[str, Any]]:
    """One dict a row for programs: ``table``, ``section`` and the values by the columns' keys.

    A value of several parts has a key for each, as in ``val_mean`` and ``val_regret``.
    """
    found = []
    for section in sheet.sections:
        for row in section.rows:
            record: dict[str, Any] = {"table": sheet.name, "section": section.heading}
            for column, cell in zip(sheet.columns, row, strict=True):
                parts = cell.value if isinstance(cell.value, dict) else {"": cell.value}
                record |= {f"{column.key}_{part}" if part else column.key: value for part, value in parts.items()}
            found.append(record)
    return found


class _Grid:
    """A sheet in a terminal; where it is wider, its columns are dealt out to several tables with the same first one."""

    def __init__(self, sheet: Sheet) -> None:
        self.sheet, self.texts = sheet.numbered()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        sheet, plain = self.sheet, console.color_system is None
        rows = [[self._cells(row, plain) for row in section.rows] for section in sheet.sections]
        widths = self._widths(rows, options.max_width)
        yield Text(f"\n{sheet.title}", style="bold")
        for places in _dealt(widths, options.max_width):
            yield self._grid(places, rows, widths[0])
        for number, text in enumerate(self.texts, start=1):
            yield Text(f"[{number}] {text}")
        best = f"Best marked {_MARKS[1]}, second best {_MARKS[2]}." if plain else RANKING
        yield Text(" ".join([best] * sheet.ranked + [*sheet.notes]))
        if sheet.problems:
            yield Text("Not in the table:")
            yield from [Text(f"- {problem}") for problem in sheet.problems]

    def _cells(self, row: Sequence[Cell], plain: bool) -> list[Text]:
        """As they are shown; where a column has marks after its numbers, those without one leave the place empty."""
        if plain:
            ranked = [_is_ranked(self.sheet, place) for place in range(len(row))]
            marks = [(_MARKS[cell.rank] or " ") if some else "" for cell, some in zip(row, ranked, strict=True)]
            return [Text(cell.text + mark) for cell, mark in zip(row, marks, strict=True)]
        return [Text(cell.text, style=_STYLES[cell.rank]) for cell in row]

    def _widths(self, rows: Sequence[Sequence[Sequence[Text]]], room: int) -> list[int]:
        """Of the columns; the first, with its long names, takes no more than half of the room."""
        titles = [max(cell_len(line) for line in _broken(column.title)) for column in self.sheet.columns]
        cells = [row for of_section in rows for row in of_section]
        widths = [max([title, *[row[place].cell_len for row in cells]]) for place, title in enumerate(titles)]
        headings = [cell_len(section.heading) for section in self.sheet.sections]
        return [min(max(widths[0], *headings, 0), max(titles[0], room // 2)), *widths[1:]]

    def _grid(self, places: Sequence[int], rows: Sequence[Sequence[Sequence[Text]]], first: int) -> Grid:
        grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP, 0, 0))
        for place in places:
            column = self.sheet.columns[place]
            grid.add_column(
                Text("\n".join(_broken(column.title))),
                justify="left" if column.text else "right",
                overflow="fold",
                width=first if place == 0 else None,
            )
        for section, cells in zip(self.sheet.sections, rows, strict=True):
            if section.heading:
                grid.add_row(Text(section.heading, style="italic"))
            for row in cells:
                grid.add_row(*[row[place] for place in places], end_section=row is cells[-1])
        return grid


def _is_ranked(sheet: Sheet, place: int) -> bool:
    """Whether any cell of a column is among the best."""
    return any(row[place].rank for section in sheet.sections for row in section.rows)


def _broken(title: str) -> list[str]:
    """A title of several parts, a line each."""
    parts = title.split(", ")
    return [f"{part}," for part in parts[:-1]] + parts[-1:]


def _dealt(widths: Sequence[int], width: int) -> list[list[int]]:
    """Places of columns, dealt out to as few tables as fit; each begins with the first column."""
    dealt: list[list[int]] = [[0]]
    room = width - widths[0]
    for place in range(1, len(widths)):
        needed = widths[place] + _GAP + 1
        if len(dealt[-1]) > 1 and needed > room:
            dealt.append([0])
            room = width - widths[0]
        dealt[-1].append(place)
        room -= needed
    return dealt


def markdown_sheets(sheets: Sequence[Sheet]) -> str:
    """The sheets in Markdown."""
    return "\n\n".join(piece for sheet in sheets for piece in _markdown_pieces(sheet)) + "\n"


def _markdown_pieces(sheet: Sheet) -> Iterator[str]:
    sheet, texts = sheet.numbered()
    yield f"**{escape_markdown(sheet.title)}**"
    head = [escape_markdown(column.title) for column in sheet.columns]
    ruler = [":--" if column.text else "--:" for column in sheet.columns]
    for section in sheet.sections:
        if section.heading:
            yield f"*{escape_markdown(section.heading)}*"
        lines = [head, ruler, *[[_marked_markdown(cell) for cell in row] for row in section.rows]]
        yield "\n".join("| " + " | ".join(line) + " |" for line in lines)
    if texts:
        yield "<br>\n".join(
            f"{escape_markdown(f'[{number}]')} {escape_markdown(text)}" for number, text in enumerate(texts, 1)
        )
    if sheet.ranked or sheet.notes:
        yield escape_markdown(" ".join([RANKING] * sheet.ranked + [*sheet.notes]))
    if sheet.problems:
        yield "Not in the table:\n\n" + "\n".join(f"- {escape_markdown(problem)}" for problem in sheet.problems)


def _marked_markdown(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    return {1: f"**{text}**", 2: f"<u>{text}</u>", None: text}[cell.rank]


def json_sheets(sheets: Sequence[Sheet]) -> str:
    """The records of all sheets, as one list."""
    return json.dumps([record for sheet in sheets for record in records(sheet)], indent=1, ensure_ascii=False) + "\n"


def csv_sheets(sheets: Sequence[Sheet]) -> str:
    """One table with one header for all sheets: a column that a sheet has not is empty in its rows."""
    every = [record for sheet in sheets for record in records(sheet)]
    names = dict.fromkeys(name for record in every for name in record)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for record in every:
        writer.writerow([field(record.get(name)) for name in names])
    return text.getvalue()
