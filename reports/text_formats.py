"""The built-in formats of a report."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .formats import Format
from .latex import to_latex
from .latex_sheets import sheet_to_latex
from .latex_text import document
from .markdown import to_markdown
from .records import to_csv, to_json
from .render_sheets import csv_sheets, json_sheets, markdown_sheets, to_rich

if TYPE_CHECKING:
    from debias_zoo.store import Run

    from .report import Asked, Report
    from .rows import Table
    from .sheets import Sheet


class Rich(Format):
    """Plain text in columns; in a terminal, bold and underlined."""

    name = "rich"

    def table(self, table: Table, standalone: bool = False) -> str:
        from .terminal import to_text

        return to_text(table)

    def sheets(self, sheets: Sequence[Sheet], standalone: bool = False) -> str:
        from rich.console import Console

        file = io.StringIO()
        Console(file=file, width=1000, color_system=None, force_terminal=False).print(to_rich(sheets))
        return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


class Latex(Format):
    """LaTeX with booktabs, as a fragment or as a whole document."""

    name = "latex"
    standalone = True

    def table(self, table: Table, standalone: bool = False) -> str:
        return to_latex(table, standalone)

    def sheets(self, sheets: Sequence[Sheet], standalone: bool = False) -> str:
        fragment = "% needs \\usepackage{booktabs}\n" + "\n".join(sheet_to_latex(sheet) for sheet in sheets)
        return document(fragment) if standalone else fragment


class Markdown(Format):
    """Markdown, as GitHub shows it."""

    name = "markdown"

    def table(self, table: Table, standalone: bool = False) -> str:
        return to_markdown(table)

    def sheets(self, sheets: Sequence[Sheet], standalone: bool = False) -> str:
        return markdown_sheets(sheets)


class Csv(Format):
    """CSV for programs: fractions and registry names, a record a row."""

    name = "csv"
    for_programs = True

    def table(self, table: Table, standalone: bool = False) -> str:
        return to_csv(table)

    def sheets(self, sheets: Sequence[Sheet], standalone: bool = False) -> str:
        return csv_sheets(sheets)


class Html(Format):
    """One page with all tables and figures, to sort and filter; it fetches nothing."""

    name = "html"
    of_sheets = False

    def report(
        self,
        made: Report,
        runs: Sequence[Run],
        problems: Sequence[str],
        asked: Asked,
        store: Path,
        standalone: bool = False,
    ) -> str:
        from .page import to_html

        return to_html(runs, problems, asked, store)


class Json(Format):
    """JSON for programs: a list of the records of the CSV."""

    name = "json"
    for_programs = True

    def table(self, table: Table, standalone: bool = False) -> str:
        return to_json(table)

    def sheets(self, sheets: Sequence[Sheet], standalone: bool = False) -> str:
        return json_sheets(sheets)
