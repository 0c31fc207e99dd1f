"""The table in Markdown, as GitHub shows it."""

from __future__ import annotations

import re

from .caption import Notes, caption, raised
from .cells import cells, marked, titles, whole_or_tenth
from .rows import Block, Row, Table, Value


def to_markdown(table: Table) -> str:
    """A table a block, then the caption, the legend and what is missing."""
    notes = Notes(table)
    pieces = []
    for block in table.blocks:
        if len(table.blocks) > 1:
            pieces.append(f"**{escape(block.title)}**")
        pieces.append("\n".join(_lines(table, block, notes)))
    pieces.append(escape(" ".join(caption(table))))
    legend = [f"{raised(mark)} {escape(text)}" for mark, text in notes.legend()]
    if legend:
        pieces.append("<br>\n".join(legend))
    problems = [f"- {escape(problem)}" for problem in notes.problems()]
    if problems:
        pieces.append("Not in the table:\n\n" + "\n".join(problems))
    return "\n\n".join(pieces) + "\n"


def escape(text: str) -> str:
    """Text that Markdown shows as it is, also in a cell; an underscore within a word needs no mark."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]{}#$|~])", r"\\\1", text)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def _lines(table: Table, block: Block, notes: Notes) -> list[str]:
    numbers = titles(table)
    head = ["Method", *numbers, "Supervision", "Seconds"]
    ruler = [":--", *["--:"] * len(numbers), ":--", "--:"]
    body = [_cells(table, row, level, notes) for level, rows in block.groups() for row in rows]
    return ["| " + " | ".join(line) + " |" for line in (head, ruler, *body)]


def _cells(table: Table, row: Row, level: str, notes: Notes) -> list[str]:
    return [notes.name(row).raised(escape), *cells(table, row, _value, escape), level, whole_or_tenth(row.seconds)]


def _value(value: Value | None) -> str:
    return marked(value, "**{}**", "<u>{}</u>")
