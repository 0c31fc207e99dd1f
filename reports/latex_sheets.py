"""Sheets in LaTeX: floats that need booktabs alone, and below them the texts that are too long for a cell."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import count

from .latex_size import PAGE, SEPARATION, broken, dealt, room_below, size_of, stacked
from .latex_text import breakable, escape, label_of
from .sheets import RANKING, Cell, Column, Section, Sheet

_CAPTION = 900
"""Signs of a caption; longer notes stand below the table with what is missing."""

_TITLE = 16
"""Signs of a line of a column's title."""


def sheet_to_latex(sheet: Sheet) -> str:
    """Floats for as many columns and lines as fit a page, then the notes."""
    sheet, texts = sheet.numbered()
    words = " ".join([f"{sheet.title}.", *[RANKING] * sheet.ranked, *sheet.notes])
    below = [f"[{number}] {text}" for number, text in enumerate(texts, start=1)]
    if len(words) > _CAPTION:
        words, below = " ".join([f"{sheet.title}.", *[RANKING] * sheet.ranked]), [*below, " ".join(sheet.notes)]
    if sheet.problems:
        below += ["Not in the table:", *sheet.problems]
    lengths = _lengths(sheet)
    tables = dealt(lengths)
    size = size_of([[lengths[place] for place in places] for places in tables])
    numbers = count(1)
    floats = [
        _float(sheet, places, lines, size, next(numbers), words)
        for places in tables
        for lines in _pages(sheet, places, len(words))
    ]
    paragraphs = [rf"\noindent {breakable(escape(text))}\par" for text in below]
    return "\n".join([*floats, *(["{\\footnotesize\\raggedright", *paragraphs, "}", ""] if below else [])])


def _lengths(sheet: Sheet) -> list[int]:
    """Signs of the longest line of each column."""
    rows = [row for section in sheet.sections for row in section.rows]
    return [
        max(len(line) for line in (*_title_lines(column), *_lines(column, rows, place)))
        for place, column in enumerate(sheet.columns)
    ]


def _lines(column: Column, rows: Sequence[Sequence[Cell]], place: int) -> Iterator[str]:
    for row in rows:
        yield from broken(row[place].text) if column.text else [row[place].text]


def _title_lines(column: Column) -> list[str]:
    """A title of several parts has them one below the other, and a long word by itself a line."""
    parts = [f"{part}," for part in column.title.split(", ")]
    parts[-1] = parts[-1].removesuffix(",")
    return [
        line for part in parts for line in textwrap.wrap(part, _TITLE, break_on_hyphens=False, break_long_words=False)
    ]


def _pages(sheet: Sheet, places: Sequence[int], caption: int) -> list[list[str]]:
    """Lines of the tables, dealt out to pages; a section that goes on says so."""
    pages: list[list[str]] = [[]]
    room = room_below(caption)
    for section in sheet.sections:
        if pages[-1] and room < 3:  # a heading is not left alone at the end
            pages.append([])
            room = PAGE
        pages[-1] += _opening(section, places, "")
        room -= 1
        for row in section.rows:
            height = max(len(broken(row[place].text)) for place in places if sheet.columns[place].text)
            if height > room:
                pages.append(_opening(section, places, " (continued)"))
                room = PAGE - 1
            pages[-1].append(_row(sheet, row, places))
            room -= height
    return pages


def _opening(section: Section, places: Sequence[int], more: str) -> list[str]:
    if not section.heading:
        return [r"\midrule"]
    text = rf"\textit{{{escape(section.heading + more)}}}"
    return [rf"\midrule \multicolumn{{{len(places)}}}{{@{{}}l}}{{{text}}} \\"]


def _row(sheet: Sheet, row: Sequence[Cell], places: Sequence[int]) -> str:
    return " & ".join(_cell(sheet.columns[place], row[place]) for place in places) + r" \\"


def _cell(column: Column, cell: Cell) -> str:
    lines = [escape(line) for line in (broken(cell.text) if column.text else [cell.text])]
    text = lines[0]
    if len(lines) > 1:
        text = stacked([text, *[rf"\quad {line}" for line in lines[1:]]], "t", "l")
    return {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}", None: text}[cell.rank]


def _title(column: Column) -> str:
    lines = [escape(line) for line in _title_lines(column)]
    return lines[0] if len(lines) == 1 else stacked(lines, "b", "l" if column.text else "r")


def _float(sheet: Sheet, places: Sequence[int], lines: Sequence[str], size: str, number: int, words: str) -> str:
    label = label_of(sheet.name)
    caption = escape(words) if number == 1 else rf"Table~\ref{{{label}}}, continued."
    sides = "".join("l" if sheet.columns[place].text else "r" for place in places)
    return "\n".join(
        [
            r"\begin{table*}[t]",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\label{{{label}{'' if number == 1 else f'-{number}'}}}",
            r"\par\medskip",
            rf"{size}\setlength{{\tabcolsep}}{{{SEPARATION}pt}}",
            r"\makebox[\linewidth]{%",
            rf"\begin{{tabular}}{{@{{}}{sides}@{{}}}}",
            r"\toprule",
            " & ".join(_title(sheet.columns[place]) for place in places) + r" \\",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table*}",
            "",
        ]
    )
