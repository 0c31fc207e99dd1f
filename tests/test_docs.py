"""Code in the docs runs, in the order of the page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.S)


def test_the_page_on_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks("data.md"):
        exec(compile(block, "data.md", "exec"), names)
    assert (tmp_path / "mine.npz").is_file()
    (mark,) = names["test_mine"].pytestmark  # type: ignore[attr-defined]
    for check in mark.args[1]:
        names["test_mine"](check)  # type: ignore[operator]


@pytest.mark.slow
def test_the_page_on_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks("api.md"):
        exec(compile(block, "api.md", "exec"), names)
    assert list(names["table"]["method"]) == ["erm", "gray"]
    assert (tmp_path / "methods.pdf").stat().st_size > 1000
    assert "Seconds" in names["costs"]
    assert names["probabilities"].shape == (5, 2)
    assert names["mine"].model.name == "smoothed"
    assert len(names["model"].classes) == 10


def test_the_page_on_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from debias_zoo.cli import cli

    monkeypatch.chdir(tmp_path)
    mine, proof = blocks("plugins.md")
    Path("mine.py").write_text(mine)
    (tmp_path / "test_mine.py").write_text(f"from mine import F, Milder\n\n{proof}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "test_mine.py"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    assert "19 passed" in ended.stdout
    run = ["run", "--plugin", "mine.py", "--methods", "milder", "--backbone", "two_layers", "--dataset", "cmnist"]
    ended = CliRunner().invoke(cli, [*run, "--protocol", "quick", "--device", "cpu"])
    assert ended.exit_code == 0, ended.output
    shown = CliRunner().invoke(cli, ["report", "runs", "--plugin", "mine.py", "--format", "lines"])
    assert shown.output.startswith("milder 0."), shown.output


def test_the_page_on_tables_defines_every_metric_and_rule() -> None:
    from debias_zoo.metrics import DEFINITIONS
    from debias_zoo.reports.formats import RULE_NAMES
    from debias_zoo.reports.selection import RULES

    page = (DOCS / "table.md").read_text()
    for metric, words in DEFINITIONS.items():
        escaped = words.replace("|", r"\|")
        assert f"| `{metric}` | {escaped} |" in page
    for rule in RULES.values():
        assert f"| `{rule.name}` | {rule.about} | {rule.reads} |" in page
    assert tuple(RULES) == RULE_NAMES
