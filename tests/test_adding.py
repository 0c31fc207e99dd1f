"""A method is added with its file, its test and one entry-point line; everything else follows from these."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINE = 'erm = "debias_zoo.methods.erm:ERM"\n'

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with one method more: a new file, its test and a line, and nothing else touched."""
    home = tmp_path_factory.mktemp("checkout") / "zoo"
    ignored = shutil.ignore_patterns(".git", "results", "_build", "__pycache__", "*.egg-info", ".*_cache", "runs")
    shutil.copytree(ROOT, home, symlinks=True, ignore=ignored)
    written = zoo(home, "new", "method", "added", cwd=home.parent)
    assert "wrote added.py" in written
    shutil.move(home.parent / "added.py", home / "methods" / "added.py")
    test = (
        (home.parent / "test_added.py").read_text().replace("from added import", "from debias_zoo.methods.added import")
    )
    (home / "tests" / "methods" / "test_added.py").write_text(test)
    project = home / "pyproject.toml"
    assert project.read_text().count(LINE) == 1
    project.write_text(project.read_text().replace(LINE, f'{LINE}added = "debias_zoo.methods.added:Added"\n'))
    return home


def python(home: Path, *command: str, cwd: Path) -> str:
    env = {**os.environ, "PYTHONPATH": str(home)}
    ended = subprocess.run([sys.executable, *command], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def zoo(home: Path, *command: str, cwd: Path) -> str:
    return python(home, "-m", "debias_zoo", *command, cwd=cwd)


def test_it_is_listed_and_shown(checkout: Path, tmp_path: Path) -> None:
    rows = {row["name"]: row["origin"] for row in json.loads(zoo(checkout, "list", "methods", "--json", cwd=tmp_path))}
    assert rows["added"] == "debias-zoo"
    assert "balance = 0.5" in zoo(checkout, "show", "added", cwd=tmp_path)


def test_it_passes_its_test_and_the_contract(checkout: Path) -> None:
    assert "20 of 20 checks hold" in zoo(checkout, "check", "added", cwd=checkout.parent)
    suite = ["tests/methods/test_added.py", "tests/test_architecture.py", "-k", "added or know or core or trainer"]
    assert "passed" in python(checkout, "-m", "pytest", "-q", "-n", "0", *suite, cwd=checkout)


def test_it_is_run_and_reported(checkout: Path, tmp_path: Path) -> None:
    run = ["run", "--methods", "added", "--dataset", "cmnist", "--protocol", "quick", "--device", "cpu"]
    assert "added on cmnist, seed 0: done" in zoo(checkout, *run, cwd=tmp_path)
    assert "added" in zoo(checkout, "report", "runs", "--format", "markdown", cwd=tmp_path)


def test_it_is_in_the_readme(checkout: Path) -> None:
    before = (checkout / "README.md").read_text()
    (checkout / "docs" / "results").mkdir(exist_ok=True)
    shutil.copy(ROOT / "docs" / "results" / "ledger.md", checkout / "docs" / "results")
    python(checkout, "docs/readme.py", cwd=checkout)
    more = set((checkout / "README.md").read_text().splitlines()) - set(before.splitlines())
    assert more == {f"| `added` | bias labels to train | yours, Its title, or Added, unpublished {_year()} |"}


def test_it_has_a_page(checkout: Path) -> None:
    shutil.copytree(ROOT / "docs" / "results", checkout / "docs" / "results", dirs_exist_ok=True)
    printed = "import catalogue; print(dict(catalogue.pages())['methods/added.md'])"
    text = python(checkout, "-c", f"import sys; sys.path.insert(0, 'docs'); {printed}", cwd=checkout)
    assert "# added" in text
    assert "balance" in text


def _year() -> str:
    from datetime import UTC, datetime

    return str(datetime.now(UTC).year)
