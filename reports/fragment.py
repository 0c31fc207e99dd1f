"""The table as a piece of HTML for a notebook: it fetches nothing, runs nothing, and takes the colours around it."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from .caption import Notes, caption, raised
from .cells import cells, marked, titles, whole_or_tenth
from .rows import Block, Row, Table, Value

_TABLE = "border-collapse:collapse;color:inherit;background:transparent;font-variant-numeric:tabular-nums"
_LINE = "border:0;border-bottom:1px solid #80808080"
_CELL = f"{_LINE};padding:.25em .7em;background:transparent;color:inherit;white-space:nowrap"
_SMALL = "max-width:70em;font-size:.85em;color:inherit"


def to_fragment(table: Table) -> str:
    """A ``div`` with a table a block, the caption, the legend and what is missing; all text is escaped."""
    return f'<div style="overflow-x:auto">{"".join(_pieces(table))}</div>'


def _pieces(table: Table) -> Iterator[str]:
    notes = Notes(table)
    for block in table.blocks:
        yield _block(table, block, notes, len(table.blocks) > 1)
    yield f'<p style="{_SMALL}">{escape(" ".join(caption(table)))}'
    for mark, text in notes.legend():
        yield f"<br>{raised(mark)} {escape(text)}"
    yield "</p>"
    if problems := notes.problems():
        lines = "".join(f"<li>{escape(problem)}</li>" for problem in problems)
        yield f'<p style="{_SMALL}">Not in the table:</p><ul style="{_SMALL}">{lines}</ul>'


def _block(table: Table, block: Block, notes: Notes, titled: bool) -> str:
    numbers = titles(table)
    sides = ["left", *["right"] * len(numbers), "left", "right"]
    names = zip(["Method", *numbers, "Supervision", "Seconds"], sides, strict=True)
    head = "".join(f'<th scope="col" style="{_CELL};text-align:{side}">{escape(name)}</th>' for name, side in names)
    body = "".join(_row(table, row, level, notes, sides) for level, rows in block.groups() for row in rows)
    title = f'<caption style="text-align:left;color:inherit">{escape(block.title)}</caption>' if titled else ""
    return f'<table style="{_TABLE}">{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _row(table: Table, row: Row, level: str, notes: Notes, sides: list[str]) -> str:
    found = [
        notes.name(row).raised(escape),
        *cells(table, row, _value, escape),
        escape(level),
        whole_or_tenth(row.seconds),
    ]
    shown = zip(found, sides, strict=True)
    return "<tr>" + "".join(f'<td style="{_CELL};text-align:{side}">{cell}</td>' for cell, side in shown) + "</tr>"


def _value(value: Value | None) -> str:
    return marked(value, "<b>{}</b>", "<u>{}</u>")
