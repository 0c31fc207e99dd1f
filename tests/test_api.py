"""The Python API: it imports nothing by itself, runs from anywhere, and says what the commands say."""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from made_runs import ODD_NAME, ODD_VALUE, make_comparison
from rich.console import Console

import debias_zoo
from debias_zoo import BiasDataset, Runs, ZooError, read, run
from debias_zoo.cli import cli
from debias_zoo.driver import Comparison
from debias_zoo.grid import Request, build_grid
from debias_zoo.methods.erm import ERM
from debias_zoo.metrics import METRICS
from debias_zoo.progress import LiveView, PlainView, make_view

ROOT = Path(__file__).resolve().parent.parent


def python(code: str, cwd: Path, *how: str) -> subprocess.CompletedProcess[str]:
    """Code that another Python reads from ``-c`` or, by default, from standard input."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", *(how or ["-"])]
    given = None if how else code
    return subprocess.run(command, input=given, cwd=cwd, env=env, capture_output=True, text=True, check=False)


# --- the package


def test_the_package_imports_nothing_until_a_name_is_used(tmp_path: Path) -> None:
    code = (
        "import sys, debias_zoo\n"
        "assert set(debias_zoo.__all__) <= set(dir(debias_zoo))\n"
        "heavy = {'torch', 'numpy', 'pandas', 'pydantic', 'click', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert issubclass(debias_zoo.ZooError, Exception)\n"
        "assert 'torch' not in sys.modules\n"
    )
    ended = python(code, tmp_path, "-c", code)
    assert ended.returncode == 0, ended.stderr


def test_every_public_name_is_there_documented_and_known_to_type_checkers() -> None:
    for name in debias_zoo.__all__:
        found = getattr(debias_zoo, name)
        assert inspect.getdoc(found), name
        assert not inspect.ismodule(found), f"a module of the package is called {name}, and hides it"
    tree = ast.parse((ROOT / "debias_zoo" / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    declared = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert declared == set(debias_zoo.__all__)
    assert debias_zoo.__all__ == sorted(debias_zoo.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        debias_zoo.nonsense  # noqa: B018
    assert (ROOT / "debias_zoo" / "py.typed").is_file()


def test_options_are_those_of_the_command_line() -> None:
    spelt = {"datasets": "dataset", "backbones": "backbone", "sets": "set", "seed_list": "seed", "recipes": "recipe"}
    spelt |= {"root": "data_root", "compiling": "compile", "stack": "stack_seeds"}
    options = {spelt.get(str(option.name), str(option.name)) for option in cli.commands["run"].params}
    assert set(inspect.signature(run).parameters) - {"progress"} == options - {"grid", "dry_run", "as_json"}
    spelt = {"form": "format", "rules": "select", "runs": "", "output": ""}
    options = {spelt.get(str(option.name), str(option.name)) for option in cli.commands["report"].params}
    assert set(inspect.signature(Runs.report).parameters) - {"self"} == options - {"", "plugin"}


# --- run


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A comparison run by a script on standard input, without ``if __name__ == "__main__"``, and what it printed."""
    place = tmp_path_factory.mktemp("script")
    code = (
        "import debias_zoo\n"
        "runs = debias_zoo.run(['erm', 'gray'], 'cmnist', seed=1, protocol='quick', device='cpu', jobs=2,\n"
        "                      set={'erm.train.epochs': 1, 'gray.train.epochs': 1})\n"
        "print(repr(runs))\n"
    )
    ended = python(code, place)
    assert ended.returncode == 0, ended.stderr
    return place, ended.stdout


SAME: dict[str, Any] = {
    "seed": 1,
    "protocol": "quick",
    "device": "cpu",
    "set": {"erm.train.epochs": 1, "gray.train.epochs": 1},
}


@pytest.mark.slow
def test_a_script_runs_a_comparison(script: tuple[Path, str]) -> None:
    place, said = script
    assert "2 trials: erm, gray" in said
    assert "gray on cmnist, seed 1: done" in said
    assert said.splitlines()[-1] == "<Runs: 2 finished trials of erm, gray on cmnist>"
    assert len(list((place / "runs" / "cmnist").glob("*/*/result.json"))) == 2


def test_the_same_call_and_the_command_do_nothing_again(
    script: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(script[0])
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*") if path.is_file()}
    runs = run("gray,erm", {"name": "cmnist"}, **SAME)
    assert "trials:" not in capsys.readouterr().out
    assert [result.trial.method for result in runs.results] == ["gray", "erm"]
    assert list(runs.table()["method"]) == ["gray", "erm"], "in the order in which they were asked for"
    from debias_zoo.registry import load_dataset

    assert len(run(["erm"], load_dataset("cmnist")(), progress=False, **SAME | {"set": {"erm.train.epochs": 1}})) == 1
    command = ["run", "--methods", "erm,gray", "--dataset", "cmnist", "--seed", "1", "--protocol", "quick"]
    command += ["--device", "cpu", "--set", "erm.train.epochs=1", "--set", "gray.train.epochs=1"]
    ended = CliRunner().invoke(cli, command)
    assert ended.exit_code == 0, ended.output
    assert "trials:" not in ended.output
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*") if path.is_file()} == before


def test_failed_trials_are_problems_and_nothing_is_printed_when_quiet(
    script: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(script[0])
    sets = {"erm.train.lr": 1e20, "gray.train.epochs": 1}
    how: dict[str, Any] = {"seed": 1, "protocol": "quick", "device": "cpu", "progress": False, "out": "runs"}
    runs = run(["erm", "gray"], "cmnist", set=sets, **how)
    assert [result.trial.method for result in runs.results] == ["gray"]
    (problem,) = runs.problems
    assert "erm on cmnist, seed 1: failed: erm: a loss became NaN or infinite" in problem
    assert "1 problem" in repr(runs)
    assert "a loss became NaN" in runs._repr_html_()
    monkeypatch.setattr("debias_zoo.api.compare", lambda *given, **named: Comparison([], ["erm"], ["erm: failed: x"]))
    with pytest.raises(ZooError, match="no trial finished: erm: failed: x"):
        run(["erm"], "cmnist", **how)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("methods", "dataset", "options", "words"),
    [
        ("lnn", "cmnist", {}, "unknown method 'lnn'; did you mean 'lnl'"),
        ([ERM], "cmnist", {}, "is no name: give names"),
        ([], "cmnist", {}, "no method is named"),
        ("erm", "cmnits", {}, "unknown dataset 'cmnits'|unknown data set 'cmnits'"),
        ("erm", {"name": "cmnist", "variance": 7}, {}, "data set 'cmnist': variance=7"),
        ("erm", "cmnist", {"protocol": "fast"}, "unknown protocol 'fast'"),
        ("erm", "cmnist", {"precision": "fp8"}, "unknown precision 'fp8'"),
        ("erm", "cmnist", {"seeds": 0}, "seeds=0: how many, from 1"),
        ("erm", "cmnist", {"seeds": 2, "seed": 1}, "give one of them"),
        ("erm", "cmnist", {"seed": -1}, "seeds are whole numbers from 0"),
        ("erm", "cmnist", {"set": {"erm.x": 1}}, "unknown setting of method 'erm': 'x'"),
        ("erm", "cmnist", {"set": {"erm.x": object()}}, "must be a number, a text, a truth value or a list"),
        ("erm", "cmnist", {"device": "cuda:9"}, "device 'cuda:9' is not here"),
        ("erm", "cmnist", {"jobs": 0}, "--jobs 0: a whole number from 1"),
        ("erm", "cmnist", {"executor": "cloud"}, "cloud"),
    ],
)
def test_what_cannot_be_run_is_a_zoo_error_before_any_work(
    methods: Any, dataset: Any, options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ZooError, match=words):
        run(methods, dataset, out=tmp_path / "runs", progress=False, **{"protocol": "quick", **options})
    assert not list(tmp_path.iterdir())


def test_arrays_in_memory_are_saved_first() -> None:
    made = BiasDataset.from_arrays(np.zeros((20, 8, 8, 3), np.uint8), np.arange(20) % 2)
    with pytest.raises(ZooError, match=r"dataset=arrays\.save\('mine\.npz'\)"):
        run("erm", made)


# --- what runs show


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("api") / "runs"
    make_comparison(out)
    return out


def test_a_table_is_a_data_frame_of_fractions(store: Path) -> None:
    runs = read(store)
    frame = runs.table()
    assert len(frame) == 8
    assert list(frame.columns[:6]) == ["method", "dataset", "setting", "supervision", "n", "seeds"]
    row = frame[frame["method"] == "erm"].iloc[0]
    of_row = [result for result in runs.results if result.trial.method == "erm"]
    of_row = [result for result in of_row if result.trial.params["variance"] == row["params"]["variance"]]
    numbers = [result.metrics["test"]["accuracy"] or 0.0 for result in of_row]
    assert row["seeds"] == (0, 1, 2)
    assert row["n"] == 3
    assert row["accuracy"] == pytest.approx(np.mean(numbers))
    assert row["accuracy_std"] == pytest.approx(np.std(numbers, ddof=1))
    assert np.isnan(frame[frame["method"] == "zeta"].iloc[0]["accuracy_std"]), "one seed has no spread"
    for metric in METRICS:
        assert frame[metric].dtype == frame[f"{metric}_std"].dtype == float
    assert frame["published"].dtype == float
    few = runs.table(metrics="worst_group", split="val")
    assert {"worst_group", "worst_group_low"} <= set(few)
    assert "accuracy" not in few
    assert set(few["split"]) == {"val"}
    assert set(runs.table(select="val")["selection"]) == {"val"}
    for options, words in (
        ({"metrics": ["acc"]}, "unknown metric 'acc'"),
        ({"split": "tets"}, "unknown split 'tets'"),
        ({"select": "best"}, "unknown selection rule 'best'|'best'"),
        ({"select": "last,val"}, "a table is of one rule"),
    ):
        with pytest.raises(ZooError, match=words):
            runs.table(**options)


@pytest.mark.parametrize(
    ("options", "command"),
    [
        ({}, []),
        ({"format": "markdown"}, ["--format", "markdown"]),
        ({"format": "latex", "standalone": True}, ["--format", "latex", "--standalone"]),
        ({"format": "csv", "cost": True}, ["--format", "csv", "--cost"]),
        ({"format": "json", "select": ["last", "val"]}, ["--format", "json", "--select", "last,val"]),
        ({"format": "markdown", "curve": "variance"}, ["--format", "markdown", "--curve", "variance"]),
        (
            {"format": "csv", "compare": "erm", "methods": "erm,lnl"},
            ["--format", "csv", "--compare", "erm", "--methods", "erm,lnl"],
        ),
        ({"format": "html"}, ["--format", "html"]),
    ],
)
def test_a_report_is_what_the_command_writes(
    options: dict[str, Any], command: list[str], store: Path, tmp_path: Path
) -> None:
    file = tmp_path / "said"
    ended = CliRunner().invoke(cli, ["report", str(store), "-o", str(file), *command])
    assert ended.exit_code == 0, ended.output
    assert read(store).report(**options) == file.read_text()


def test_latex_is_that_of_the_command(store: Path) -> None:
    said = CliRunner().invoke(cli, ["report", str(store), "--format", "latex"]).output
    assert read(store).to_latex() == said
    assert read(store).to_latex(standalone=True).startswith("\\documentclass")


def test_figures(store: Path, tmp_path: Path) -> None:
    runs = read(store)
    drawn = runs.figure(metrics="accuracy,gap")
    panels = drawn.axes
    assert len(panels) == 2, "two settings of the data"
    for panel in panels:
        labels = [text.get_text() for text in panel.get_yticklabels()]
        assert len(labels) == 4
        assert len(panel.containers) == 2
        points = {round(float(x), 6) for x in panel.containers[0].lines[0].get_xdata()}
        frame = runs.table()
        assert points <= {round(100 * value, 6) for value in frame["accuracy"]}
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["Accuracy", "Gap"]
    assert drawn._repr_png_()[:4] == b"\x89PNG"  # type: ignore[attr-defined]
    drawn.savefig(tmp_path / "a.pdf")
    text = runs.report(curve="variance", figure=tmp_path / "curve.svg")
    assert (tmp_path / "curve.svg").read_text().startswith("<?xml")
    assert "variance" in text
    with pytest.raises(ZooError, match="a figure is drawn of curve, cost or compare"):
        runs.report(figure=tmp_path / "b.svg")


class Seen(HTMLParser):
    """The tags, the texts and the attributes of a piece of HTML; every tag must be closed in its order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_notebook_shows_the_table_in_its_own_colours(store: Path) -> None:
    runs = Runs(read(store).trials, [ODD_VALUE])
    html = runs._repr_html_()
    seen = Seen(html)
    assert seen.tags <= {
        "div",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "p",
        "ul",
        "li",
        "b",
        "u",
        "sup",
        "br",
    }
    assert seen.attributes == {"style", "scope"}
    assert "color:inherit" in html
    assert "://" not in html, "nothing is fetched"
    text = "".join(seen.texts)
    assert ODD_NAME in text
    assert ODD_VALUE in text
    row = runs.table().iloc[0]
    assert f"{100 * row['accuracy']:.2f}" in text
    assert "bias labels to train" in text
    assert html.count("<table") == 2


def test_a_terminal_shows_the_table(store: Path) -> None:
    runs = read(store)
    assert repr(runs).startswith("<Runs: 20 finished trials of ")
    assert str(runs) == runs.report()
    console = Console(width=200, record=True, quiet=False, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(runs)
    console.file.close()
    assert "Worst-group" in console.export_text()


def test_nothing_to_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="there is no folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(ZooError, match="no finished trial under"):
        read(tmp_path)


@pytest.mark.skipif(find_spec("IPython") is None, reason="IPython is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ipython_shows_runs_and_figures(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)  # it warns where that is not its own
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shell.run_cell(f"import debias_zoo\nruns = debias_zoo.read({str(store)!r})", store_history=False).raise_error()
    ended = shell.run_cell("runs", store_history=False)
    shown, _ = shell.display_formatter.format(ended.result)
    assert shown["text/html"] == read(store)._repr_html_()
    assert shown["text/plain"] == repr(read(store))
    figure, _ = shell.display_formatter.format(shell.run_cell("runs.figure()", store_history=False).result)
    assert figure["image/png"]


def test_progress_in_a_notebook_needs_widgets(monkeypatch: pytest.MonkeyPatch) -> None:
    (trial,) = build_grid(Request(["erm"], ["cmnist"])).trials.values()
    notebook = Console(force_jupyter=True)
    monkeypatch.setattr("debias_zoo.progress.find_spec", lambda name: None)
    assert isinstance(make_view(notebook, [trial]), PlainView)
    monkeypatch.setattr("debias_zoo.progress.find_spec", lambda name: object())
    assert isinstance(make_view(notebook, [trial]), LiveView)
    assert isinstance(make_view(Console(force_terminal=True), [trial]), LiveView)
    assert isinstance(make_view(Console(force_terminal=False), [trial]), PlainView)


def test_records_of_a_table_are_json(store: Path) -> None:
    assert len(json.loads(read(store).report("json"))) == len(read(store).table())
