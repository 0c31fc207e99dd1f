"""Names that the command line offers: the forms a report can take, and what it can show."""

from __future__ import annotations

FORMATS = ("rich", "latex", "markdown", "csv", "html", "json")

SHEET_FORMATS = tuple(form for form in FORMATS if form != "html")
"""Those of a single table."""

FOR_PROGRAMS = ("csv", "json")
"""Those that have no place for what is missing."""

LAYOUTS = ("methods-by-datasets", "methods-by-settings")

RULE_NAMES = ("last", "val", "val-unbiased", "val-worst-group", "ac", "oracle")
"""Selection rules, in the order of a table; ``selection.py`` says what they are."""
