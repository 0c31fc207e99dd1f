"""The README's tables say what the code says."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_tables_are_not_stale() -> None:
    text = (ROOT / "README.md").read_text()
    renewed = runpy.run_path(str(ROOT / "docs" / "readme.py"))["renewed"]
    assert renewed(text) == text, "run: python docs/readme.py"
    assert renewed(text.replace("| `lnl` |", "| `lnn` |")) == text


def test_the_check_of_the_command_line_says_so() -> None:
    check = [sys.executable, str(ROOT / "docs" / "readme.py"), "--check"]
    assert subprocess.run(check, cwd=ROOT, check=False).returncode == 0
