"""Sphinx: ``make docs`` builds these pages; warnings are errors."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from debias_zoo import __version__  # noqa: E402

project = "debias-zoo"
author = "the debias-zoo authors"
project_copyright = "2026, the debias-zoo authors"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "debias-zoo"
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_show_sourcelink = False
exclude_patterns = ["_build", "catalogue/checks.md", "catalogue/files.md", "catalogue/reading.md"]  # parts of pages
myst_heading_anchors = 3
smartquotes = False  # two dashes begin an option of a command
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_ivar = True  # attributes in one list; their types stand in the signature

SHEETS = {
    "table": "The table",
    "selection": "Which epoch each rule would have chosen",
    "ledger": "Published numbers and ours",
    "cost": "What it cost",
}
"""Documents of a folder of results, which have no heading of their own."""


def setup(app: Any) -> None:
    """Generate pages and drawings before Sphinx looks for pages."""
    app.connect("builder-inited", _generate)
    app.connect("source-read", _headed)
    app.connect("autodoc-process-docstring", _named_together, priority=400)  # before napoleon, at 500


def _generate(app: Any) -> None:
    from catalogue import write

    write()


def _headed(app: Any, name: str, source: list[str]) -> None:
    """Give a sheet of results its heading; it is found from the page on results, not from the menu."""
    path = Path(name)
    if path.parts[0] == "results" and path.name in SHEETS:
        of = f"{path.parts[1]}: " if len(path.parts) > 2 else ""
        source[0] = f"---\norphan: true\n---\n\n# {of}{SHEETS[path.name]}\n\n{source[0]}"


def _named_together(app: Any, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Keep ``epoch, epochs: ...`` one entry of a list of attributes: Sphinx takes the first word for a type."""
    if "Attributes:" not in lines:
        return
    start = lines.index("Attributes:") + 1
    for k, line in enumerate(lines[start:], start):
        names = re.match(r"    (\w+(?:, \w+)+): ", line)
        if names:
            lines[k] = f"    {names[1].replace(', ', ',')}: {line[names.end() :]}"
