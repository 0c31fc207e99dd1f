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

from debias_zoo.errors import ZooError, unknown

from .formats import FORMATS
from .latex_text import breakable, document, escape
from .markdown import escape as escape_markdown
from .records import field
from .sheets import Cell, Section, Sheet

_PAGE = 44
"""Lines of a LaTeX table on one page; what is longer goes on in a further float."""


_GAP = 2
"""Spaces after a column of a terminal's table."""

_STYLES = {1: "bold", 2: "underline", None: ""}


def render_sheets(sheets: Sequence[Sheet], form: str, standalone: bool = False) -> str:
    """The sheets one below the other, as text in one of ``FORMATS`` but html; ``standalone``: a LaTeX document.

    Raises:
        ZooError: an unknown format, or one that sheets have not.
    """
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    if form == "html":
        raise ZooError("a page holds all tables and figures: debias-zoo report RUNS --format html, without others")
    if form == "latex":
        fragment = "% needs \\usepackage{booktabs}\n" + "\n".join(_latex(sheet) for sheet in sheets)
        return document(fragment) if standalone else fragment
    if form == "rich":
        file = io.StringIO()
        Console(file=file, width=1000, color_system=None, force_terminal=False).print(to_rich(sheets))
        return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())
    return {"markdown": _markdown, "csv": _csv, "json": _json}[form](sheets)


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
                record |= {f"{column.key}_{part}".rstrip("_"): value for part, value in parts.items()}
            found.append(record)
    return found


class _Grid:
    """A sheet in a terminal; where it is wider, its columns are dealt out to several tables with the same first one."""

    def __init__(self, sheet: Sheet) -> None:
        self.sheet, self.texts = sheet.numbered()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        sheet = self.sheet
        yield Text(f"\n{sheet.title}", style="bold")
        for columns in self._dealt(options.max_width):
            yield self._grid(columns)
        for number, text in enumerate(self.texts, start=1):
            yield Text(f"[{number}] {text}")
        yield Text(" ".join(sheet.notes))
        if sheet.problems:
            yield Text("Not in the table:")
            yield from [Text(f"- {problem}") for problem in sheet.problems]

    def _dealt(self, width: int) -> list[list[int]]:
        rows = [row for section in self.sheet.sections for row in section.rows]
        titles = [column.title for column in self.sheet.columns]
        widths = [
            max(cell_len(text) for text in (title, *[row[k].text for row in rows])) for k, title in enumerate(titles)
        ]
        dealt: list[list[int]] = [[0]]
        room = width - widths[0]
        for column in range(1, len(widths)):
            if len(dealt[-1]) > 1 and widths[column] + _GAP > room:
                dealt.append([0])
                room = width - widths[0]
            dealt[-1].append(column)
            room -= widths[column] + _GAP
        return dealt

    def _grid(self, columns: Sequence[int]) -> Grid:
        grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP, 0, 0))
        for place in columns:
            column = self.sheet.columns[place]
            grid.add_column(Text(column.title), justify="left" if column.text else "right", overflow="fold")
        for section in self.sheet.sections:
            if section.heading:
                grid.add_row(Text(section.heading, style="italic"))
            for row in section.rows:
                cells = [Text(row[place].text, style=_STYLES[row[place].rank]) for place in columns]
                grid.add_row(*cells, end_section=row is section.rows[-1])
        return grid


def _markdown(sheets: Sequence[Sheet]) -> str:
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
    if sheet.notes:
        yield escape_markdown(" ".join(sheet.notes))
    if sheet.problems:
        yield "Not in the table:\n\n" + "\n".join(f"- {escape_markdown(problem)}" for problem in sheet.problems)


def _marked_markdown(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    return {1: f"**{text}**", 2: f"<u>{text}</u>", None: text}[cell.rank]


def _latex(sheet: Sheet) -> str:
    sheet, texts = sheet.numbered()
    floats = [_latex_float(sheet, lines, number) for number, lines in enumerate(_latex_pages(sheet))]
    below = [
        rf"\noindent {escape(f'[{number}]')} {breakable(escape(text))}\par" for number, text in enumerate(texts, 1)
    ]
    return "\n".join([*floats, *(["{\\footnotesize\\raggedright", *below, "}", ""] if below else [])])


def _latex_pages(sheet: Sheet) -> list[list[str]]:
    pages: list[list[str]] = [[]]
    for section in sheet.sections:
        for line in _latex_section(sheet, section):
            if len(pages[-1]) >= _PAGE:
                pages.append([])
            pages[-1].append(line)
    return pages


def _latex_section(sheet: Sheet, section: Section) -> Iterator[str]:
    if section.heading:
        yield rf"\midrule \multicolumn{{{len(sheet.columns)}}}{{@{{}}l}}{{\textit{{{escape(section.heading)}}}}} \\"
    for number, row in enumerate(section.rows):
        rule = "" if number or section.heading else r"\midrule "
        yield rule + " & ".join(_marked_latex(cell) for cell in row) + r" \\"


def _marked_latex(cell: Cell) -> str:
    text = escape(cell.text)
    return {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}", None: text}[cell.rank]


def _latex_float(sheet: Sheet, lines: Sequence[str], number: int) -> str:
    words = " ".join([f"{sheet.title}.", *sheet.notes, *[f"Missing: {problem}." for problem in sheet.problems[:5]]])
    label = f"tab:{sheet.name}" + (f"-{number + 1}" if number else "")
    caption = escape(words) if number == 0 else rf"Table~\ref{{tab:{sheet.name}}}, continued."
    columns = "".join("l" if column.text else "r" for column in sheet.columns)
    return "\n".join(
        [
            r"\begin{table*}[t]",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\label{{{label}}}",
            r"\par\medskip",
            r"\footnotesize\setlength{\tabcolsep}{3pt}",
            r"\makebox[\linewidth]{%",
            rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
            r"\toprule",
            " & ".join(escape(column.title) for column in sheet.columns) + r" \\",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table*}",
            "",
        ]
    )


def _json(sheets: Sequence[Sheet]) -> str:
    return json.dumps([record for sheet in sheets for record in records(sheet)], indent=1, ensure_ascii=False) + "\n"


def _csv(sheets: Sequence[Sheet]) -> str:
    """One header for all sheets: a column that a sheet has not is empty in its rows."""
    every = [record for sheet in sheets for record in records(sheet)]
    names = dict.fromkeys(name for record in every for name in record)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for record in every:
        writer.writerow([field(record.get(name)) for name in names])
    return text.getvalue()
