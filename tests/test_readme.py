"""The README's tables say what the code says."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_tables_are_not_stale() -> None:
    text = (ROOT / "README.md").read_text()
    renewed = runpy.run_path(str(ROOT / "docs" / "readme.py"))["renewed"]
    assert renewed(text) == text, "run: python docs/readme.py"
    assert renewed(text.replace("| `lnl` |", "| `lnn` |")) == text
