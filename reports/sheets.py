"""A plain table of any content: what costs, ledgers, selection rules, probes and statistics are shown as.

The results table has a form of its own (``rows.py``); everything else is a ``Sheet``, and each format writes all of
them with the same few lines (``render_sheets.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

RANKING = "Best bold, second best underlined."
"""What a format says where it marks ranks like this."""


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        key: for programs. title: for people. text: whether it stands left, as text does, or right, as numbers do.
        below: whether its texts are long and stand below the table, numbered.
    """

    key: str
    title: str
    text: bool = False
    below: bool = False


@dataclass(frozen=True)
class Cell:
    """What people read, and what programs read: a JSON value. rank: 1 best, 2 second, or None."""

    text: str
    value: Any = None
    rank: int | None = None


@dataclass(frozen=True)
class Section:
    """Rows under a heading; "" for none. Every row has a cell for every column."""

    heading: str
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        name: one word, for labels and file names. title: a line.
        notes: sentences below it, of which the first say how it was made. problems: what is missing, a line each.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def ranked(self) -> bool:
        """Whether any cell is marked as best or second best."""
        return any(cell.rank for section in self.sections for row in section.rows for cell in row)

    def numbered(self) -> tuple[Sheet, list[str]]:
        """The sheet with numbers in the place of texts that stand below it, and those texts in their order."""
        texts: dict[str, int] = {}

        def shown(column: Column, cell: Cell) -> Cell:
            if not column.below or not cell.text:
                return cell
            return replace(cell, text=f"[{texts.setdefault(cell.text, len(texts) + 1)}]")

        sections = [
            Section(
                section.heading,
                tuple(
                    tuple(shown(column, cell) for column, cell in zip(self.columns, row, strict=True))
                    for row in section.rows
                ),
            )
            for section in self.sections
        ]
        return replace(self, sections=tuple(sections)), list(texts)

    def __post_init__(self) -> None:
        for section in self.sections:
            for row in section.rows:
                if len(row) != len(self.columns):
                    raise ValueError(f"sheet {self.name!r}: a row has {len(row)} cells for {len(self.columns)} columns")
