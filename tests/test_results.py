"""The committed results: readable, complete, and what the code of today would be asked to run."""

from __future__ import annotations

from pathlib import Path

import pytest

from debias_zoo.grid import Request, build_grid
from debias_zoo.reports.report import render
from debias_zoo.reports.table import build_table
from debias_zoo.store import read_results
from debias_zoo.trial import Result

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "results" / "cmnist-standard"
METHODS = ["erm", "gray", "blindeye", "lnl", "lnl_adaptive", "rebias"]


@pytest.fixture(scope="module")
def results() -> list[Result]:
    found, problems = read_results(FOLDER)
    assert not problems
    return found


@pytest.mark.parametrize(("form", "name"), [("csv", "table.csv"), ("latex", "table.tex"), ("markdown", "table.md")])
def test_tables_are_made_again(form: str, name: str, results: list[Result]) -> None:
    made = render(build_table(results, methods=METHODS), form)
    assert (FOLDER / name).read_text().startswith(made)


def test_they_are_the_trials_of_today(results: list[Result]) -> None:
    grid = build_grid(Request(METHODS, ["cmnist"], seeds=[0, 1, 2], precision="bf16"))
    assert {result.identity for result in results} == set(grid.trials)
