"""Ledger, cost, turned and robustness tables: what stands in them, in every format, and that nothing is mixed."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from made_results import make_result, make_seeds, paper_table

from debias_zoo.errors import ZooError
from debias_zoo.reports.costs import costs_sheet
from debias_zoo.reports.formats import LAYOUTS
from debias_zoo.reports.ledger import ledger_sheet
from debias_zoo.reports.pivots import pivot_sheets
from debias_zoo.reports.render_sheets import records, render_sheets
from debias_zoo.reports.robustness import robustness_sheet
from debias_zoo.reports.selection import RULES, chosen_by
from debias_zoo.reports.sheets import Cell, Column, Section, Sheet
from debias_zoo.reports.table import build_table
from debias_zoo.trial import Result

ODD = "a_b & <c>"


def sweep() -> list[Result]:
    return [
        result
        for variance in (0.02, 0.03)
        for method, numbers in (("erm", [0.4, 0.5]), ("lnl", [0.6, 0.7]), (ODD, [0.3, 0.2]))
        for result in make_seeds(method, numbers, params={"variance": variance, "val": 6000})
    ]


def all_sheets() -> list[Sheet]:
    table = build_table(sweep(), problems=["failed: runs/x_y: no & <room>"], metrics=["accuracy"])
    return [
        ledger_sheet(table),
        costs_sheet(table),
        *[sheet for layout in LAYOUTS for sheet in pivot_sheets(table, layout)],
        robustness_sheet(table, "variance", "accuracy"),
    ]


def ledger(**changes: Any) -> list[dict[str, Any]]:
    return records(ledger_sheet(build_table(make_seeds("erm", [0.38, 0.39, 0.40], **changes))))


def test_a_number_within_two_spreads_or_two_points_matches() -> None:
    (row, *others) = ledger(protocol="paper", precision="fp32")
    assert (row["method"], row["published"], row["ours"], row["verdict"]) == ("erm", 0.4055, 0.39, "matches")
    assert row["difference"] == pytest.approx(-0.0155)
    assert row["command"].startswith("debias-zoo run --methods erm --dataset cmnist:variance=0.02,val=6000,data_seed=0")
    assert "--seed 0,1,2 --protocol paper --precision fp32" in row["command"]
    assert {other["verdict"] for other in others} == {"not run"}
    assert {"gray", "lnl", "blindeye"} <= {other["method"] for other in others}


def test_a_line_for_each_rule_and_core_hours_of_all_seeds() -> None:
    results = make_seeds("erm", [0.38, 0.40], protocol="paper")
    best = [
        chosen_by(RULES["oracle"], result, {"test": {**result.metrics["test"], "accuracy": 0.5}}) for result in results
    ]
    others = [build_table(best, selection="oracle")]
    last, oracle, *_ = records(ledger_sheet(build_table(results), others=others))
    assert [(row["selection"], row["ours"]) for row in (last, oracle)] == [("last", 0.39), ("oracle", 0.5)]
    assert last["hours"] is oracle["hours"] is None, "not noted"
    seconds = sum(result.seconds["total"] for result in results)
    for environment, cores in (({"device": "cpu", "threads": 3}, 3), ({"device": "cuda:0", "threads": 3}, 1)):
        noted = [result.model_copy(update={"environment": environment}) for result in results]
        assert records(ledger_sheet(build_table(noted)))[0]["hours"] == pytest.approx(cores * seconds / 3600)


def test_other_settings_are_called_so() -> None:
    assert ledger()[0]["verdict"] == "matches; setting differs"
    for changes in ({"precision": "bf16"}, {"precision": "fp32", "deviations": ("the last epoch",)}):
        assert ledger(protocol="paper", **changes)[0]["verdict"] == "matches; setting differs"
    far = make_seeds("erm", [0.30, 0.31], protocol="paper", precision="fp32")
    assert records(ledger_sheet(build_table(far)))[0]["verdict"] == "lower"
    assert records(ledger_sheet(build_table(make_seeds("erm", [0.9, 0.91]))))[0]["verdict"] == "higher; setting differs"


def test_what_is_not_run_has_a_command_that_is_not_refused() -> None:
    lff = {"dataset": "cmnist-lff", "params": {"conflict": 0.01, "severity": 4}, "protocol": "paper"}
    rows = records(ledger_sheet(build_table(make_seeds("erm", [0.5], **lff))))
    protocols = {row["method"]: row["command"].split("--protocol ")[1].split()[0] for row in rows}
    assert (protocols["erm"], protocols["lff"]) == ("paper", "paper")
    assert protocols["hex"] == "standard", "it has no recipe for the paper's"


def test_what_is_missing_for_another_rule_is_told() -> None:
    results = make_seeds("erm", [0.38, 0.40], protocol="paper")
    sheet = ledger_sheet(build_table(results), others=[build_table([], problems=["left out: erm"], selection="val")])
    assert sheet.problems == ("left out: erm",)
    assert not any("validation" in note for note in sheet.notes), "no line is by that rule"


def test_numbers_of_other_data_and_splits_are_not_published_ones() -> None:
    assert not records(ledger_sheet(build_table(make_seeds("erm", [0.4], params={"variance": 0.9}))))
    severe = {"dataset": "cmnist-lff", "params": {"conflict": 0.01, "severity": 1}}
    assert not records(ledger_sheet(build_table(make_seeds("erm", [0.4], **severe))))
    table = build_table([make_result("erm", 0, 0.4)], split="val")
    assert not records(ledger_sheet(table))


def test_costs_are_means_over_seeds_beside_erm() -> None:
    cost = {"parameters": 10.0, "extra_parameters": 4.0, "peak_bytes": 2.0**21, "forward_passes": 1.5}
    results = [
        *[result.model_copy(update={"cost": cost}) for result in make_seeds("erm", [0.4, 0.5], seconds=50.0)],
        *make_seeds("lnl", [0.6, 0.7], seconds=150.0),
    ]
    erm, lnl = records(costs_sheet(build_table(results)))
    assert (erm["seconds"], erm["relative"], lnl["relative"]) == (50.0, 1.0, 3.0)
    assert (erm["parameters"], erm["extra_parameters"], erm["peak"], erm["forward_passes"]) == (10, 4, 2.0**21, 1.5)
    assert lnl["parameters"] is None, "what no run noted is not made up"


def test_turned_tables_have_one_line_a_method_and_mark_the_best_of_each_column() -> None:
    table = build_table(sweep(), metrics=["accuracy", "worst_group"])
    by_data = pivot_sheets(table, "methods-by-datasets")
    assert [sheet.name for sheet in by_data] == ["accuracy", "worst_group"]
    assert [column.title for column in by_data[0].columns] == [
        "Method",
        "cmnist, variance=0.02",
        "cmnist, variance=0.03",
    ]
    (section,) = by_data[0].sections
    assert [[cell.text for cell in row] for row in section.rows][1] == ["erm", "45.00 ± 7.07", "45.00 ± 7.07"]
    assert [row[1].rank for row in section.rows] == [None, 2, 1]
    by_settings = pivot_sheets(table, "methods-by-settings")
    assert [column.title for column in by_settings[0].columns] == ["Method", "variance=0.02", "variance=0.03"]


def test_settings_of_a_method_are_lines_of_their_own() -> None:
    results = [*sweep(), *make_seeds("lnl", [0.1, 0.2], config={"scale": 3}, params={"variance": 0.02, "val": 6000})]
    (sheet,) = pivot_sheets(build_table(results, metrics=["accuracy"]), "methods-by-datasets")
    names = [row[0].text for section in sheet.sections for row in section.rows]
    assert len(names) == len(set(names)) == 4, names
    other = [make_result("erm", 0, 0.9, params={"variance": v, "val": 6000}, backbone="resnet18") for v in (0.02, 0.03)]
    robust = robustness_sheet(build_table([*sweep(), *other]), "variance", "accuracy")
    rows = [row for section in robust.sections for row in section.rows]
    assert len(rows) == 4
    assert len({row[0].text for row in rows}) == 4, [row[0].text for row in rows]


def test_robustness_needs_two_values() -> None:
    found = {row["method"]: row for row in records(robustness_sheet(build_table(sweep()), "variance", "accuracy"))}
    assert found[ODD]["variance=0.02"] == 0.25
    assert found["lnl"]["variance=0.03_std"] == pytest.approx(0.1 / 2**0.5)
    with pytest.raises(ZooError, match="no method was run at two values of 'val'"):
        robustness_sheet(build_table(sweep()), "val", "accuracy")
    with pytest.raises(ZooError, match="unknown data set parameter 'varianse'; did you mean 'variance'"):
        robustness_sheet(build_table(sweep()), "varianse", "accuracy")


def test_every_format_escapes_what_stands_in_names() -> None:
    sheets = all_sheets()
    assert r"a\_b \& $<$c$>$" in render_sheets(sheets, "latex")
    assert "a_b &amp; &lt;c&gt;" in render_sheets(sheets, "markdown")
    assert any(record["method"] == ODD for record in json.loads(render_sheets(sheets, "json")))
    rows = list(csv.DictReader(io.StringIO(render_sheets(sheets, "csv"))))
    assert any(row["method"] == ODD for row in rows)
    assert ODD in render_sheets(sheets, "rich")
    assert "no & <room>" in render_sheets(sheets, "rich")
    for form in ("latex", "markdown", "csv", "json", "rich"):
        assert render_sheets(sheets, form) == render_sheets(all_sheets(), form)
    with pytest.raises(ZooError, match="'html' holds all of a report"):
        render_sheets(sheets, "html")


def test_long_texts_stand_below_and_are_numbered() -> None:
    sheet = Sheet(
        "x",
        "X",
        (Column("a", "A"), Column("b", "B", below=True)),
        (Section("", ((Cell("1"), Cell("long")), (Cell("2"), Cell("long")), (Cell("3"), Cell("other")))),),
    )
    text = render_sheets([sheet], "rich")
    assert text.count("[1]") == 3
    assert "[1] long" in text
    assert "[2] other" in text


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a row has 1 cells for 2 columns"):
        Sheet("x", "X", (Column("a", "A"), Column("b", "B")), (Section("", ((Cell("1"),),)),))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("standalone", [True, False])
def test_latex_compiles(tmp_path: Path, standalone: bool) -> None:
    sheets = [*all_sheets(), ledger_sheet(build_table(paper_table()))]
    text = render_sheets(sheets, "latex", standalone)
    if not standalone:
        packages = r"\usepackage{booktabs}"
        text = rf"\documentclass{{article}}{packages}\begin{{document}}Text.{text}\end{{document}}"
    (tmp_path / "sheets.tex").write_text(text)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "sheets.tex"]
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, errors="replace")
        assert done.returncode == 0, done.stdout[-3000:]
    assert "undefined" not in done.stdout
