"""The table in Markdown, as GitHub shows it."""

from __future__ import annotations

import re

from debias_zoo.metrics import METRICS

from .caption import Notes, caption
from .cells import NOTHING, TITLES, percent, published_cell, whole_or_tenth
from .rows import Block, Row, Table, Value


def to_markdown(table: Table) -> str:
    """A table a block, then the caption, the legend and what is missing."""
    notes = Notes(table)
    pieces = []
    for block in table.blocks:
        if len(table.blocks) > 1:
            pieces.append(f"**{escape(block.title)}**")
        pieces.append("\n".join(_lines(block, notes, table.has_published)))
    pieces.append(escape(" ".join(caption(table))))
    legend = [f"{_raised(mark)} {escape(text)}" for mark, text in notes.legend()]
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


def _lines(block: Block, notes: Notes, published: bool) -> list[str]:
    titles = ["Method", *TITLES.values(), "Supervision", "Seconds"]
    ruler = [":--", *["--:"] * len(METRICS), ":--", "--:"]
    if published:
        titles.insert(2, "Published")
        ruler.insert(2, "--:")
    body = [_cells(row, level, notes, published) for level, rows in block.groups() for row in rows]
    return ["| " + " | ".join(cells) + " |" for cells in (titles, ruler, *body)]


def _cells(row: Row, level: str, notes: Notes, published: bool) -> list[str]:
    cells = [_name(row, notes), *[_value(row.values[metric]) for metric in METRICS], level, whole_or_tenth(row.seconds)]
    if published:
        cells.insert(2, published_cell(row.published).replace("*", r"\*"))
    return cells


def _name(row: Row, notes: Notes) -> str:
    name = notes.name(row)
    text = escape(name.method) + "".join(_raised(mark) for mark in name.marks)
    return f"{text} ({escape(name.setting)})" if name.setting else text


def _raised(mark: str) -> str:
    return f"<sup>{mark}</sup>"


def _value(value: Value | None) -> str:
    if value is None:
        return NOTHING
    mean = percent(value.mean)
    text = {1: f"**{mean}**", 2: f"<u>{mean}</u>", None: mean}[value.rank]
    return text if value.std is None else f"{text} ± {percent(value.std)}"
