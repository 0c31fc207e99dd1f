"""The committed results: readable, complete, their documents made again byte for byte, and trials of today's code."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from debias_zoo.grid import Request, build_grid
from debias_zoo.reports.selection import Epochs
from debias_zoo.store import Run, read_runs

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
FOLDERS = sorted(path.parent for path in RESULTS.glob("*/command.txt"))
METHODS = ["erm", "gray", "blindeye", "lnl", "lnl_adaptive", "rebias"]


@pytest.fixture(scope="module")
def documents() -> ModuleType:
    spec = importlib.util.spec_from_file_location("documents", RESULTS / "documents.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def runs_of(folder: Path) -> list[Run]:
    found, problems = read_runs(folder)
    assert not problems
    return found


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_document_is_made_again(folder: Path, documents: ModuleType) -> None:
    names = []
    for name, text in documents.documents(folder):
        names.append(name)
        assert (folder / name).read_text() == text, f"run `python docs/results/documents.py {folder.name}`"
    assert len(names) == 6


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_numbers_follow_from_the_predictions(folder: Path) -> None:
    for run in runs_of(folder):
        epochs = Epochs(run)
        assert epochs.all_metrics(epochs.count - 1) == run.result.metrics, run.path


def test_they_are_the_trials_of_today() -> None:
    grid = build_grid(Request(METHODS, ["cmnist"], seeds=[0, 1, 2], precision="bf16"))
    assert {run.result.identity for run in runs_of(RESULTS / "cmnist-standard")} == set(grid.trials)
