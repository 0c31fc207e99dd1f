"""The committed results: readable, complete, their documents made again byte for byte, and trials of today's code."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import matplotlib
import pytest
from made_runs import make_run

from debias_zoo.grid import Request, build_grid, parse_set
from debias_zoo.reports.selection import Epochs
from debias_zoo.reports.table import build_table
from debias_zoo.store import Run, read_runs

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
FOLDERS = sorted(path.parent for path in RESULTS.glob("*/command.txt"))
METHODS = ["erm", "gray", "blindeye", "lnl", "lnl_adaptive", "rebias"]


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, RESULTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def documents() -> ModuleType:
    return program("documents")


def runs_of(folder: Path) -> list[Run]:
    found, problems = read_runs(folder)
    assert not problems
    return found


@pytest.mark.parametrize(
    "folder",
    [pytest.param(path, marks=[] if path.name == "real-standard" else [pytest.mark.slow]) for path in FOLDERS],
    ids=lambda folder: folder.name,
)
def test_every_document_is_made_again(folder: Path, documents: ModuleType) -> None:
    names = []
    for name, text in documents.documents(folder):
        names.append(name)
        pair = [(folder / name).read_text(), text]
        if matplotlib.__version__ not in pair[0]:
            pair = [without_drawings(found) for found in pair]
        assert pair[0] == pair[1], f"run `python docs/results/documents.py {folder.name}`"
    assert len(names) == 7


@pytest.mark.slow
def test_the_ledger_is_made_again(documents: ModuleType) -> None:
    assert (RESULTS / "ledger.md").read_text() == documents.paper_ledger(), "run `python docs/results/documents.py`"


def test_no_document_says_where_it_was_made() -> None:
    where = re.compile(r"(?<![\w.:/])/(?:home|Users|root|tmp|work|mnt|data|scratch)/")
    documents = [path for path in RESULTS.rglob("*") if path.suffix in {".md", ".csv", ".tex", ".html", ".json"}]
    assert not {path.relative_to(RESULTS) for path in documents if where.search(path.read_text())}


def without_drawings(page: str) -> str:
    """What does not depend on the version of matplotlib."""
    return re.sub(r"<svg.*?</svg>|figures by matplotlib [\w.]+", "", page, flags=re.S)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_numbers_follow_from_the_predictions(folder: Path) -> None:
    for run in runs_of(folder):
        epochs = Epochs(run)
        assert epochs.all_metrics(epochs.count - 1) == run.result.metrics, run.path


def test_collecting_adds_to_a_folder_and_tells_what_is_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    collect, documents = program("collect"), program("documents")
    for module in (collect, documents):
        monkeypatch.setattr(module, "HERE", tmp_path)
    erm, lnl = make_run(tmp_path / "a", "erm"), make_run(tmp_path / "b", "lnl")
    for store, command in (("a", "debias-zoo run --methods erm"), ("b", "debias-zoo run --methods lnl")):
        monkeypatch.setattr("sys.argv", ["collect.py", str(tmp_path / store), "both", "--command", command])
        assert collect.main() == 0
    found = documents.whole(tmp_path / "both")
    assert {run.result.identity for run in found} == {erm.result.identity, lnl.result.identity}
    told = (tmp_path / "both" / "command.txt").read_text()
    assert told == "debias-zoo run --methods erm\ndebias-zoo run --methods lnl\n"
    damaged = make_run(tmp_path / "b", "lnl", seed=1).path
    (damaged / "result.json").write_text("{")
    assert collect.main() == 1
    assert "not copied" in capsys.readouterr().err
    assert (tmp_path / "both" / "command.txt").read_text() == told, "a command once"
    assert len(documents.whole(tmp_path / "both")) == 2
    (tmp_path / "both" / lnl.result.trial.folder / "result.json").write_text("{")
    with pytest.raises(SystemExit, match="result"):
        documents.whole(tmp_path / "both")


def test_they_are_the_trials_of_today() -> None:
    grid = build_grid(Request(METHODS, ["cmnist"], seeds=[0, 1, 2], precision="bf16"))
    assert {run.result.identity for run in runs_of(RESULTS / "cmnist-standard")} == set(grid.trials)


def request_of(command: str) -> Request:
    """What a command line asks for, with the options that ``Trial.command`` writes."""
    words = shlex.split(command)
    assert words[:2] == ["debias-zoo", "run"]
    given: dict[str, list[str]] = {}
    for option, value in zip(words[2::2], words[3::2], strict=True):
        given.setdefault(option, []).append(value)
    assert set(given) <= {
        "--methods",
        "--dataset",
        "--seed",
        "--protocol",
        "--precision",
        "--backbone",
        "--normalize",
        "--set",
    }
    return Request(
        given["--methods"],
        given["--dataset"],
        seeds=[int(seed) for seed in given["--seed"][0].split(",")],
        protocol=given["--protocol"][0],
        precision=given["--precision"][0],
        backbone=given.get("--backbone", [None])[0],
        normalize=given.get("--normalize", [""])[0],
        sets=[parse_set(text) for text in given.get("--set", [])],
    )


@pytest.mark.parametrize(
    "folder", [path for path in FOLDERS if path.name.startswith("cmnist")], ids=lambda folder: folder.name
)
def test_the_command_of_a_row_makes_its_trials_again(folder: Path) -> None:
    for row in build_table([run.result for run in runs_of(folder)]).rows:
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
