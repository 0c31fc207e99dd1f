"""The table in a terminal, in as many columns of text as there are."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Table as Grid
from rich.text import Text

from .caption import Notes, caption
from .cells import NOTHING, WORST, cells, percent, titles, whole_or_tenth
from .rows import LEVELS, Block, Row, Table, Value

_BEST, _SECOND = "*", "°"
"""Marks where nothing can be bold or underlined."""

_STYLED = ("bold", "underlined")

_NARROW_TITLES = {
    "Accuracy": "Accu-\nracy",
    "Published": "Publ.",
    "Unbiased": "Un-\nbiased",
    "Bias-aligned": "Bias-\naligned",
    "Bias-conflicting": "Bias-\nconfl.",
    "Worst-group": "Worst-\ngroup",
    WORST: "Worst\n95 %",
    "Train-weighted": "Train-\nweigh.",
    "Worst-group ECE": "Worst\nECE",
    "Bias-leakage": "Leak-\nage",
    "Supervision": "Super-\nvision",
    "Seconds": "Sec-\nonds",
}

_NARROW_LEVELS = dict(zip(LEVELS, ("none", "select", "train", "test"), strict=True))

_DISPENSABLE = ("Seconds", WORST, "Gap", "Published", "Bias-aligned", "Unbiased", "Bias-conflicting")
"""Columns that are left out, in this order, where even the narrow form does not fit."""

_LAYOUTS = ((False, 2, 0), (True, 1, 0), *((True, 0, left_out) for left_out in range(len(_DISPENSABLE) + 1)))
"""Whether it is narrow, further spaces after a column, and columns left out: the first that fits is taken."""

_LEGIBLE = 72
"""The caption is at least so many characters wide, where there is room."""

_NO_LIMIT = 1000


class TerminalTable:
    """Prints itself wide where there is room, else with ± below the mean and titles in two lines."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._notes = Notes(table)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        plain = console.color_system is None
        for narrow, gap, count in _LAYOUTS:
            left_out = [title for title in _DISPENSABLE if title in self._titles()][:count]
            grids = [self._grid(block, plain, narrow, gap, left_out) for block in self.table.blocks]
            roomy = options.update(max_width=_NO_LIMIT)
            width = max((Measurement.get(console, roomy, grid).maximum for grid in grids), default=options.max_width)
            if width <= options.max_width:
                break
        for block, grid in zip(self.table.blocks, grids, strict=True):
            if len(grids) > 1:
                yield Text(f"\n{block.title}", style="bold")
            yield grid
        for line in ["", *self._below(plain, narrow, left_out)]:
            yield Text("\n").join(Text(line).wrap(console, min(max(width, _LEGIBLE), options.max_width)))

    def _titles(self) -> list[str]:
        return ["Method", *titles(self.table), "Supervision", "Seconds"]

    def _grid(self, block: Block, plain: bool, narrow: bool, gap: int, left_out: list[str]) -> Grid:
        grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap, 0, 0))
        kept = [title not in left_out for title in self._titles()]
        for title in itertools.compress(self._titles(), kept):
            left = title in {"Method", "Supervision"}
            text = _NARROW_TITLES.get(title, title) if narrow else title
            grid.add_column(Text(text), justify="left" if left else "right", no_wrap=not left, overflow="fold")
        for level, rows in block.groups():
            for row in rows:
                shown = itertools.compress(self._cells(row, level, plain, narrow), kept)
                grid.add_row(*shown, end_section=row is rows[-1])
        return grid

    def _cells(self, row: Row, level: str, plain: bool, narrow: bool) -> list[Text]:
        numbers = cells(self.table, row, lambda value: _value(value, plain, narrow), Text)
        return [
            self._name(row, narrow),
            *numbers,
            Text(_NARROW_LEVELS[level] if narrow else level),
            Text(whole_or_tenth(row.seconds)),
        ]

    def _name(self, row: Row, narrow: bool) -> Text:
        name = self._notes.name(row)
        text = Text(name.method)
        for mark in name.marks:
            text.append(_mark(mark))
        if name.setting:
            text.append(f"\n{name.setting}" if narrow else f" ({name.setting})", style="dim")
        return text

    def _below(self, plain: bool, narrow: bool, left_out: list[str]) -> Iterator[str]:
        yield " ".join(caption(self.table, *((f"marked {_BEST}", f"marked {_SECOND}") if plain else _STYLED)))
        if narrow and self.table.rows:
            there = [level for level in LEVELS if any(row.supervision.level == level for row in self.table.rows)]
            yield "Supervision: " + ", ".join(f"{_NARROW_LEVELS[level]} = {level}" for level in there) + "."
        if left_out:
            yield f"Left out for want of width: {', '.join(left_out)}; a wider terminal, or --format csv, has them."
        for mark, text in self._notes.legend():
            yield f"{_mark(mark)} {text}"
        problems = self._notes.problems()
        yield from ["Not in the table:", *[f"- {problem}" for problem in problems]] if problems else []


def render_rich(table: Table) -> RenderableType:
    """What a rich console prints as the table; it adapts to the console's width and to what it can show."""
    return TerminalTable(table)


def to_text(table: Table) -> str:
    """The wide form as plain text."""
    file = io.StringIO()
    Console(file=file, width=_NO_LIMIT, color_system=None, force_terminal=False).print(render_rich(table))
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def _mark(mark: str) -> str:
    return f"[{mark}]" if mark.isdigit() else mark


def _value(value: Value | None, plain: bool, narrow: bool) -> Text:
    if value is None:
        return Text(NOTHING)
    marks = {1: _BEST, 2: _SECOND, None: " "}
    styles = {1: "bold", 2: "underline", None: ""}
    text = Text(percent(value.mean), style="" if plain else styles[value.rank])
    text = Text.assemble(text, marks[value.rank] if plain else "")
    if value.std is not None:
        spread = percent(value.std)
        text.append(f"\n±{spread}{' ' if plain else ''}" if narrow else f" ± {spread}")
    return text
