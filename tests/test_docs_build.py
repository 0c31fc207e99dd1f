"""``make docs`` builds all pages without a warning."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import DOCS

NEEDED = ("sphinx", "myst_parser", "furo")


@pytest.mark.slow
def test_the_pages_are_built_without_a_warning(tmp_path: Path) -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: pip install 'debias-zoo[docs]'")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(tmp_path)]
    ended = subprocess.run(build, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    methods = (tmp_path / "catalogue" / "methods.html").read_text()
    assert 'href="methods/lnl.html"' in methods
    house = (tmp_path / "architecture.html").read_text()
    assert re.search(r"<svg[^>]*>.*One trial.*</svg>", house, re.S)
    assert "cmnist-standard: The table" in (tmp_path / "results" / "cmnist-standard" / "table.html").read_text()
