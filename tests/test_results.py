"""The committed results: readable, complete, and what the code of today would be asked to run."""

from __future__ import annotations

import csv
import shlex
from functools import lru_cache
from pathlib import Path

import pytest

from debias_zoo.grid import Request, build_grid, parse_set
from debias_zoo.reports.report import render
from debias_zoo.reports.table import build_table
from debias_zoo.store import read_results
from debias_zoo.trial import Result

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "results"
NAMES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
METHODS = ["erm", "gray", "blindeye", "lnl", "lnl_adaptive", "rebias"]


@lru_cache
def results_of(name: str) -> list[Result]:
    found, problems = read_results(FOLDER / name)
    assert not problems
    return found


@pytest.mark.parametrize(("form", "file"), [("csv", "table.csv"), ("latex", "table.tex"), ("markdown", "table.md")])
@pytest.mark.parametrize("name", NAMES)
def test_tables_are_made_again(name: str, form: str, file: str) -> None:
    with (FOLDER / name / "table.csv").open(newline="") as lines:
        methods = list(dict.fromkeys(record["method"] for record in csv.DictReader(lines)))
    made = render(build_table(results_of(name), methods=methods), form)
    assert (FOLDER / name / file).read_text().startswith(made)


def test_they_are_the_trials_of_today() -> None:
    grid = build_grid(Request(METHODS, ["cmnist"], seeds=[0, 1, 2], precision="bf16"))
    assert {result.identity for result in results_of("cmnist-standard")} == set(grid.trials)


def request_of(command: str) -> Request:
    """What a command line asks for, with the options that ``Trial.command`` writes."""
    words = shlex.split(command)
    assert words[:2] == ["debias-zoo", "run"]
    given: dict[str, list[str]] = {}
    for option, value in zip(words[2::2], words[3::2], strict=True):
        given.setdefault(option, []).append(value)
    assert set(given) <= {"--methods", "--dataset", "--seed", "--protocol", "--precision", "--backbone", "--set"}
    return Request(
        given["--methods"],
        given["--dataset"],
        seeds=[int(seed) for seed in given["--seed"][0].split(",")],
        protocol=given["--protocol"][0],
        precision=given["--precision"][0],
        backbone=given.get("--backbone", [None])[0],
        sets=[parse_set(text) for text in given.get("--set", [])],
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("cmnist")])
def test_the_command_of_a_row_makes_its_trials_again(name: str) -> None:
    for row in build_table(results_of(name)).rows:
        grid = build_grid(request_of(row.trial.command(row.seeds)))
        assert set(grid.asked) == {result.identity for result in row.results}


@pytest.mark.parametrize("sets", [["lnl.train.lr=0.02"], ["lnl.scale=0.3", 'lnl.reversal="fixed"'], []])
@pytest.mark.parametrize("backbone", [None, "resnet18"])
def test_the_command_says_what_was_changed_by_hand(sets: list[str], backbone: str | None) -> None:
    asked = Request(
        ["lnl"],
        ["cmnist:variance=0.03,val=1000"],
        seeds=[4],
        backbone=backbone,
        sets=[parse_set(text) for text in sets],
    )
    (trial,) = build_grid(asked).trials.values()
    assert list(build_grid(request_of(trial.command())).trials) == [trial.identity]


def test_the_command_of_a_taught_method_trains_its_teacher_alike() -> None:
    sets = [parse_set(text) for text in ("erm.train.lr=0.02", "dedier.train.epochs=2")]
    grid = build_grid(Request(["dedier"], ["cmnist"], sets=sets))
    (identity,) = grid.asked
    assert build_grid(request_of(grid.trials[identity].command())).asked == grid.asked
