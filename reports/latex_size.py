"""How large a LaTeX table may be printed, and where it is broken, so that it fits the page of a paper."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

PAGE = 44
"""Lines of a table on one page; what is longer goes on in a further float."""

WIDTH = 397.0
"""Points of the text of a paper with one column, which the table should fit."""

WIDEST = 430.0
"""Points of a table that is not cut yet: half of what is more than the text stands in either margin."""

OF_PAPER = 560.0
"""Points of the widest table that a page of A4 can hold."""

LONGEST = 36
"""Signs of a text in a cell; what is longer is broken into lines."""

SEPARATION = 3
"""Points on either side of a column."""

_SIZES = ((r"\small", 4.63), (r"\footnotesize", 4.25), (r"\scriptsize", 3.98))
"""Size -> points of a digit, in Computer Modern and a 10 pt document."""


def size_of(tables: Sequence[Sequence[int]]) -> str:
    """The largest size at which tables fit, by the signs of their columns' longest cells; or the smallest."""
    for size, digit in _SIZES:
        if all(_width(columns, digit) <= WIDTH for columns in tables):
            return size
    return _SIZES[-1][0]


def dealt(columns: Sequence[int], widest: float = WIDEST) -> list[list[int]]:
    """Places of columns, dealt out to as few tables as fit in the smallest size; each begins with the first column.

    A table that is not cut has at most ``widest`` points.
    """
    tables: list[list[int]] = [[0]]
    for place in range(1, len(columns)):
        wider = [columns[k] for k in (*tables[-1], place)]
        if len(tables[-1]) > 1 and _width(wider, _SIZES[-1][1]) > widest:
            tables.append([0])
        tables[-1].append(place)
    return tables


def room_below(caption: int) -> int:
    """Lines of a table that fit a page below a caption of so many signs: 85 are a line, as high as 1.3 of a table."""
    return max(5, PAGE - round(1.3 * caption / 85))


def seen(cell: str) -> int:
    """About how many signs are seen of a cell."""
    cell = re.sub(r"\\multi\w+\{\d\}\{.\}", "", cell)
    return len(re.sub(r"\\pm|\\[a-zA-Z]+|[\\{}$]", lambda found: "+" if found[0] == r"\pm" else "", cell))


def broken(text: str) -> list[str]:
    """A text in lines of a cell; a word that is longer than a line is cut."""
    return textwrap.wrap(text, LONGEST, break_on_hyphens=False) or [""]


def stacked(lines: Sequence[str], position: str, side: str) -> str:
    """Escaped lines one below the other in a cell."""
    body = r" \\ ".join(lines)
    return rf"\begin{{tabular}}[{position}]{{@{{}}{side}@{{}}}}{body}\end{{tabular}}"


def _width(columns: Sequence[int], digit: float) -> float:
    return sum(columns) * digit + 2 * SEPARATION * (len(columns) - 1)
