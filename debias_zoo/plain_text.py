"""Plain text that fits a terminal of any width, and a log."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

LOG_WIDTH = 100
"""Columns where there is no terminal; ``$COLUMNS`` says another number."""

_LEAST_ROOM = 24
"""Columns for the last cell of a row: where it would have fewer, it goes below the first."""

_LEAST_WIDTH = 20


def width() -> int:
    """Columns of the terminal."""
    return max(shutil.get_terminal_size((LOG_WIDTH, 24)).columns, _LEAST_WIDTH)


def sizes_of(rows: Sequence[Sequence[str]]) -> list[int]:
    """Of each column, its longest cell."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def in_columns(cells: Sequence[str], sizes: Sequence[int]) -> list[str]:
    """The lines of a row of a table with columns of these sizes; the last cell is wrapped within its column.

    Where there is no room for that, all cells but the first stand indented below it.
    """
    head = "  ".join(cell.ljust(size) for cell, size in zip(cells[:-1], sizes[:-1], strict=True))
    if (room := width() - len(head) - 2) >= _LEAST_ROOM:
        first, *others = textwrap.wrap(cells[-1], room) or [""]
        return [f"{head}  {first}".rstrip(), *(" " * (len(head) + 2) + line for line in others)]
    below = [line for cell in cells[1:] for line in textwrap.wrap(cell, width() - 4)]
    return [cells[0], *(f"    {line}" for line in below)]


def wrapped(text: str, hang: int = 0) -> str:
    """Text whose lines are broken at words where they are too long; what follows is indented ``hang`` further."""
    lines = []
    for line in text.splitlines():
        indent = " " * min(len(line) - len(line.lstrip()), width() // 2)
        lines += textwrap.wrap(
            line.strip(),
            width(),
            initial_indent=indent,
            subsequent_indent=indent + " " * hang,
            break_on_hyphens=False,
            break_long_words=False,  # paths, addresses and digests are copied
        ) or [""]
    return "\n".join(lines)


def reflowed(doc: str) -> str:
    """A docstring whose paragraphs fill the width; indented lines, such as equations, stay lines."""
    lines: list[str] = []
    for line in doc.splitlines():
        prose = bool(line) and not line.startswith(" ")
        if prose and lines and lines[-1] and not lines[-1].startswith(" "):
            lines[-1] += f" {line}"
        else:
            lines.append(line)
    return wrapped("\n".join(lines))
