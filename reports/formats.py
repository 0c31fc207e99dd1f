"""The forms a table can take."""

from __future__ import annotations

FORMATS = ("rich", "latex", "markdown", "csv", "json")
