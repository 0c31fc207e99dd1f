"""``debias-zoo report`` with each of its options, in narrow and in wide terminals."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from made_store import made_store
from rich.cells import cell_len

from debias_zoo.cli import cli
from debias_zoo.registry import entries, load_format

OPTIONS = {
    "table": "",
    "rules": "--select last,val,val-unbiased,val-worst-group,ac,oracle",
    "rule": "--select val-worst-group",
    "metrics": "--metrics accuracy,ece,auroc,train_weighted",
    "datasets": "--layout methods-by-datasets",
    "settings": "--layout methods-by-settings --metrics accuracy",
    "ledger": "--ledger",
    "cost": "--cost",
    "curve": "--curve conflict",
    "compare": "--compare --methods erm,lnl",
    "intervals": "--intervals --metrics accuracy",
    "split": "--split val",
    "oracle-of-val": "--split val --select oracle",
    "several": "--ledger --cost --curve conflict --metrics gap",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(made_store(tmp_path_factory.mktemp("store")))


def report(store: str, options: str = "", columns: int = 80) -> Result:
    return CliRunner().invoke(cli, ["report", store, *options.split()], env={"COLUMNS": str(columns)})


@pytest.mark.parametrize("columns", [60, 200])
@pytest.mark.parametrize("name", OPTIONS)
def test_nothing_is_wider_than_the_terminal_and_no_number_is_broken(name: str, columns: int, store: str) -> None:
    done = report(store, OPTIONS[name], columns)
    assert done.exit_code == 0, done.output
    assert max(cell_len(line) for line in done.output.splitlines()) <= columns
    assert "erm" in done.output
    assert "failed: " in done.output
    wide = report(store, OPTIONS[name], 1000)
    shown = {word for word in done.output.split() if word.count(".") == 1 and word.replace(".", "").isdigit()}
    assert shown <= set(wide.output.split()) | {"01", "05"}


@pytest.mark.parametrize("form", [form for form in entries("format") if form != "html"])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_file_holds_what_is_printed(name: str, form: str, store: str, tmp_path: Path) -> None:
    target = tmp_path / "report"
    done = report(store, f"{OPTIONS[name]} --format {form} -o {target}")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.count("not in the table: failed: ") == load_format(form).for_programs
    printed = report(store, f"{OPTIONS[name]} --format {form}", columns=1000).stdout
    assert [line.rstrip() for line in printed.splitlines()] == target.read_text().splitlines()


def test_a_whole_document_is_asked_of_latex_alone(store: str) -> None:
    assert report(store, "--cost --format latex --standalone").output.startswith(r"\documentclass")
    refused = report(store, "--cost --format csv --standalone")
    assert (refused.exit_code, refused.output) == (2, "error: --standalone goes with --format latex\n")


@pytest.mark.parametrize("form", ["rich", "html"])
@pytest.mark.parametrize("option", ["--curve conflict", "--cost", "--compare --methods erm,lnl"])
def test_a_figure_is_drawn_beside_any_format(option: str, form: str, store: str, tmp_path: Path) -> None:
    drawn, target = tmp_path / "drawn.svg", tmp_path / "report"
    done = report(store, f"{option} --format {form} --figure {drawn} -o {target}")
    assert target.exists()
    if option.startswith("--compare"):  # ranks need more data sets than there are: the table is there nevertheless
        assert done.exit_code == 2
        assert "the Friedman test is given 5 or more" in done.output
        return
    assert done.exit_code == 0, done.output
    assert drawn.read_text().count("<svg") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--select orcale", "unknown selection rule 'orcale'; did you mean 'oracle'"),
        ("--metrics acuracy", "unknown metric 'acuracy'; did you mean 'accuracy'"),
        ("--split tset", "unknown split 'tset'; did you mean 'test'"),
        ("--split tset --select oracle", "unknown split 'tset'; did you mean 'test'"),
        ("--methods ern", "unknown method 'ern'; did you mean 'erm'"),
        ("--curve conflit", "unknown data set parameter 'conflit'; did you mean 'conflict'"),
        ("--curve size", "no method was run at two values of 'size': sweep it, as in --dataset bar:size=A,B,C"),
        ("--compare ern", "unknown reference method 'ern'; did you mean 'erm'"),
        ("--intervals --select oracle", "intervals are of the last epoch: leave out --select oracle"),
        ("--intervals --metrics ece", "unknown metric with an interval: 'ece'"),
        ("--figure x.svg", "--figure draws what --curve, --cost or --compare asks for"),
        ("--cost --figure x.gif", "cannot draw x.gif: the name must end in .svg, .pdf, .png"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(options: str, said: str, store: str) -> None:
    done = report(store, options)
    assert done.exit_code == 2
    assert said in done.output
    assert done.output.startswith("error: ")
    assert done.output.count("\n") == 1
