"""Never a wrong table: what was run in two ways stands in two lines of every sheet, under two names."""

from __future__ import annotations

import csv
import io
import itertools
from pathlib import Path
from typing import Any

import pytest
from made_results import SEES_BIAS, TRAINING, make_result, make_seeds, make_trial
from made_store import ODD, make_run

from debias_zoo.errors import ZooError
from debias_zoo.protocol import Settings
from debias_zoo.reports.costs import costs_sheet
from debias_zoo.reports.ledger import ledger_sheet
from debias_zoo.reports.lines import lines_of
from debias_zoo.reports.markdown import to_markdown
from debias_zoo.reports.pivots import pivot_sheets
from debias_zoo.reports.render_sheets import render_sheets
from debias_zoo.reports.report import Asked, make_report, render_report
from debias_zoo.reports.robustness import lines, robustness_sheet
from debias_zoo.reports.sheets import Sheet
from debias_zoo.reports.table import build_table
from debias_zoo.store import read_runs
from debias_zoo.trial import Result, Supervision

WAYS: dict[str, dict[str, Any]] = {
    "protocol": {"protocol": "quick"},
    "backbone": {"backbone": "resnet18"},
    "backbone_options": {"backbone_options": {"kernel": 7}},
    "weights": {"weights_digest": "12ab"},
    "precision": {"precision": "fp32"},
    "method_version": {"method_version": 2},
    "dataset_version": {"dataset_version": 2},
    "fingerprint": {"fingerprint": "other"},
    "config": {"config": {"scale": 0.3}},
    "settings": {"settings": Settings(lr=0.1).over(TRAINING)},
    "stages": {"stages": {"unlearn": Settings(lr=0.001)}},
    "normalize": {"normalize": "half"},
    "train_limit": {"train_limit": 2048},
    "eval_limit": {"eval_limit": 1000},
    "supervision": {"supervision": Supervision(train=True, tuned_on="val")},
    "needs": {"needs": {"teacher": make_trial("erm", config={"width": 3})}},
}

SHEETS = {
    "selection": Asked(rules=["last", "oracle"]),
    "methods-by-datasets": Asked(layout="methods-by-datasets", metrics=["accuracy"]),
    "methods-by-settings": Asked(layout="methods-by-settings", metrics=["accuracy"]),
    "robustness": Asked(curve="variance"),
    "cost": Asked(cost=True),
    "intervals": Asked(intervals=True, metrics=["accuracy"]),
    "comparison": Asked(compare="erm"),
}


def params(variance: float, **more: Any) -> dict[str, Any]:
    return {"variance": variance, "val": 6000, **more}


@pytest.mark.parametrize("sheet", SHEETS)
@pytest.mark.parametrize("way", WAYS)
def test_two_ways_never_share_a_number_nor_a_name(way: str, sheet: str, tmp_path: Path) -> None:
    base: dict[str, Any] = {"config": {"scale": 0.1}, "supervision": SEES_BIAS}
    for variance in (0.02, 0.05):
        make_run(tmp_path, "erm", 0, splits=("test",), params=params(variance))
        make_run(tmp_path, "lnl", 0, splits=("test",), params=params(variance), **base)
        make_run(tmp_path, "lnl", 1, splits=("test",), params=params(variance), **{**base, **WAYS[way]})
    runs, problems = read_runs(tmp_path)
    assert (len(runs), problems) == (6, [])
    for made in make_report(runs, [], SHEETS[sheet]).sheets:
        assert_apart(made)
        if sheet != "comparison":  # pairs of equal seeds: there may be none
            of_lnl = [(cell, row[0]) for section in made.sections for row in section.rows for cell in numbers(row)]
            assert all(seeds_in(cell, row) <= 1 for cell, row in of_lnl)
    table = make_report(runs, [], SHEETS[sheet]).table
    assert all(len(row.seeds) == 1 for row in table.rows)
    assert len(table.rows) == 6


def numbers(row: Any) -> list[Any]:
    return [cell.value for cell in row[1:] if cell.value is not None]


def seeds_in(value: Any, name: Any) -> int:
    """How many seeds a cell says that it averages, by what it gives programs."""
    if isinstance(value, dict) and "n" in value:
        return int(value["n"])
    found = name.value.get("seeds") if isinstance(name.value, dict) else None
    return 1 if found is None else len(found)


def assert_apart(sheet: Sheet) -> None:
    """Within a section, every line has a name of its own, for people and for programs."""
    for section in sheet.sections:
        texts = [row[0].text for row in section.rows]
        assert len(set(texts)) == len(texts), (sheet.name, section.heading, texts)
    headings = [section.heading for section in sheet.sections]
    assert len(set(headings)) == len(headings), (sheet.name, headings)
    assert len({column.key for column in sheet.columns}) == len(sheet.columns)
    assert len({column.title for column in sheet.columns}) == len(sheet.columns)


def test_every_pair_of_ways_is_told_apart() -> None:
    """Also rows that differ in two fields, one of which another row shares."""
    results = [make_result("lnl", 0, **{"supervision": SEES_BIAS, **way}) for way in [{}, *WAYS.values()]]
    results += [
        make_result("lnl", 0, **{"supervision": SEES_BIAS, **a, **b})
        for a, b in itertools.combinations(WAYS.values(), 2)
    ]
    table = build_table(results)
    assert len(table.rows) == len(results)
    assert len({row.setting for row in table.rows}) == len(results)
    for layout in ("methods-by-datasets", "methods-by-settings"):
        for sheet in pivot_sheets(table, layout):
            assert_apart(sheet)
    found = [row for line in lines_of(table.blocks) for row in line.rows.values()]
    assert len(found) == len(results)


def test_what_a_stage_leaves_to_all_stages_is_not_told() -> None:
    ways = [{"stages": {"train": Settings(lr=0.01)}}, {"settings": Settings(epochs=200).over(TRAINING)}]
    rows = build_table([make_result("erm", **way) for way in ways]).rows
    own = f"erm.train.epochs={TRAINING.epochs}, erm.train.lr=0.01"
    assert {row.label for row in rows} == {"erm.train.epochs=200", own}


def sweep(method: str, **changes: Any) -> list[Result]:
    return [
        make_result(method, 0, accuracy, **{"fingerprint": f"of {value}", "params": params(value), **changes})
        for value, accuracy in ((0.02, 0.4), (0.05, 0.6))
    ]


def test_a_line_goes_on_where_only_the_data_differ() -> None:
    table = build_table([*sweep("erm"), *sweep("lnl", config={"scale": 0.1}), *sweep("lnl", config={"scale": 0.3})])
    (group,) = lines(table, "variance", "accuracy").values()
    found = {line.name: [value.mean for value in line.values.values()] for line in group}
    assert found == {"erm": [0.4, 0.6], "lnl (lnl.scale=0.1)": [0.4, 0.6], "lnl (lnl.scale=0.3)": [0.4, 0.6]}
    (sheet,) = pivot_sheets(table, "methods-by-settings")[:1]
    assert [row[0].text for row in sheet.sections[0].rows] == list(found)
    assert all(cell.value for row in sheet.sections[0].rows for cell in row)


def test_a_method_with_a_teacher_has_one_line_over_its_data() -> None:
    taught = []
    for value in (0.02, 0.05):
        data = {"params": params(value), "fingerprint": f"of {value}"}
        taught.append(make_result("dedier", needs={"teacher": make_trial("erm", **data)}, **data))
    table = build_table(taught)
    (group,) = lines(table, "variance", "accuracy").values()
    assert [(line.name, list(line.values)) for line in group] == [("dedier", [0.02, 0.05])]
    assert [line.name for line in lines_of(table.blocks)] == ["dedier"]


def test_own_data_that_changed_are_no_further_point_of_a_line() -> None:
    table = build_table([*sweep("erm"), *sweep("erm", fingerprint="edited")])
    groups = lines(table, "variance", "accuracy")
    assert sum(len(line.values) for group in groups.values() for line in group) == 4
    assert_apart(robustness_sheet(table, "variance", "accuracy"))


def test_groups_of_lines_are_told_apart() -> None:
    more = [r for val in (0, 6000) for v in (0.02, 0.05) for r in [make_result(params={"variance": v, "val": val})]]
    sheet = robustness_sheet(build_table(more), "variance", "accuracy")
    assert [section.heading for section in sheet.sections] == ["cmnist, val=0", "cmnist, val=6000"]


def test_a_curve_of_an_unknown_or_a_constant_parameter_is_refused() -> None:
    table = build_table([*sweep("erm"), make_result(dataset="a", params={"size": 64})])
    with pytest.raises(ZooError, match="unknown data set parameter 'varianc'; did you mean 'variance'"):
        lines(table, "varianc", "accuracy")
    with pytest.raises(ZooError, match="two values of 'val': sweep it, as in --dataset cmnist:val=A,B,C"):
        lines(table, "val", "accuracy")


def test_what_the_protocol_takes_for_each_data_set_does_not_cut_a_line_but_what_was_set_by_hand_does() -> None:
    longer = Settings(epochs=12).over(TRAINING)
    here = {"dataset": "bar", "params": {"size": 64}, "settings": longer}
    table = build_table([make_result("erm"), make_result("erm", **here)])
    (line,) = lines_of(table.blocks)
    assert (line.name, len(line.rows), line.trained_alike) == ("erm", 2, False)
    (sheet,) = pivot_sheets(table, "methods-by-datasets")[:1]
    assert "the protocol's own for each data set" in sheet.notes[-1]
    by_hand = build_table([make_result("erm"), make_result("erm", options=("--set erm.train.epochs=12",), **here)])
    assert [line.name for line in lines_of(by_hand.blocks)] == [
        "erm (training=erm.train.epochs=12)",
        "erm (training=as the protocol has it)",
    ]
    twice = build_table([make_result("erm"), make_result("erm", settings=longer), make_result("erm", **here)])
    assert sorted(line.name for line in lines_of(twice.blocks)) == [
        "erm (erm.train.epochs=12)",
        "erm (erm.train.epochs=5)",
    ]


def test_statistics_pool_a_method_as_the_protocol_has_it_and_nothing_that_was_set_by_hand() -> None:
    here = {"dataset": "bar", "params": {"size": 64}, "backbone": "resnet18"}
    by_hand = {"config": {"scale": 0.7}, "options": ("--set lnl.scale=0.7",)}
    table = build_table(
        [
            *[make_result("erm", 0, 0.4), make_result("lnl", 0, 0.5, config={"scale": 0.3})],
            *[make_result("erm", 0, 0.6, **here), make_result("lnl", 0, 0.7, config={"scale": 0.1}, **here)],
            *[make_result("gray", 0, 0.8), make_result("lnl", 1, 0.9, **{**here, **by_hand})],
        ]
    )
    assert table.scores("accuracy") == {
        "erm": {("cmnist", 0): 0.4, ("bar", 0): 0.6},
        "lnl": {("cmnist", 0): 0.5, ("bar", 0): 0.7},
        "lnl (set=lnl.scale=0.7)": {("bar", 1): 0.9},
        "gray": {("cmnist", 0): 0.8},
    }


def test_statistics_keep_two_rows_of_one_block_apart_in_every_block() -> None:
    here = {"dataset": "bar", "params": {"size": 64}}
    results = [make_result("lnl", 0, 0.5, config={"scale": scale}) for scale in (0.1, 0.3)]
    table = build_table([*results, make_result("lnl", 0, 0.6, config={"scale": 0.3}, **here)])
    assert table.scores("accuracy") == {
        "lnl (lnl.scale=0.1)": {("cmnist", 0): 0.5},
        "lnl (lnl.scale=0.3)": {("cmnist", 0): 0.5, ("bar", 0): 0.6},
    }
    versions = build_table([make_result("erm", 0), make_result("erm", 0, method_version=2, **here)])
    assert list(versions.scores("accuracy")) == ["erm (erm.version=2)", "erm (erm.version=1)"]


def test_costs_are_measured_by_the_erm_that_is_like_it() -> None:
    def ran(method: str, seconds: float, backbone: str, threads: int = 1) -> Result:
        result = make_result(method, seconds=seconds, backbone=backbone)
        return result.model_copy(update={"environment": {"threads": threads}})

    results = [ran("erm", 10, "mlp"), ran("erm", 40, "resnet18"), ran("lnl", 20, "mlp"), ran("lnl", 60, "resnet18")]
    rows = costs_sheet(build_table(results)).sections[0].rows
    found = {row[0].text: row[3].value for row in rows}
    assert found == {
        "erm (backbone=mlp)": 1,
        "erm (backbone=resnet18)": 1,
        "lnl (backbone=mlp)": 2,
        "lnl (backbone=resnet18)": 1.5,
    }
    elsewhere = costs_sheet(build_table([ran("erm", 10, "mlp"), ran("lnl", 20, "mlp", threads=2)]))
    assert [row[3].value for row in elsewhere.sections[0].rows] == [1, None]
    assert any("1 thread; " in note for note in elsewhere.notes)
    alone = costs_sheet(build_table([ran("erm", 10, "mlp"), ran("lnl", 20, "resnet18")]))
    assert [row[3].value for row in alone.sections[0].rows] == [1, 2]
    assert "Backbone: mlp for erm; resnet18 for lnl." in alone.notes


def test_an_open_number_is_listed_once_and_not_where_its_method_was_not_asked_for() -> None:
    def data(**changes: Any) -> dict[str, Any]:
        return {
            "dataset": "cmnist-lff",
            "params": {"conflict": 0.01, "severity": 4, "val": 0, "data_seed": 0},
            **changes,
        }

    results = [make_result("erm", **data()), make_result("lff", **data(protocol="paper"))]
    table = build_table(results)
    assert len(table.blocks) == 2
    verdicts = [(row[0].text, row[7].text) for section in ledger_sheet(table).sections for row in section.rows]
    assert len(set(verdicts)) == len(verdicts)
    assert not {"erm", "lff"} & {name for name, verdict in verdicts if verdict == "not run"}
    assert {"denetdm", "jtt"} <= {name for name, verdict in verdicts if verdict == "not run"}
    asked = ledger_sheet(build_table(results, methods=["erm", "jtt"]), ["erm", "jtt"])
    assert {row[0].text for section in asked.sections for row in section.rows} == {"erm", "jtt"}


@pytest.mark.parametrize("form", ["markdown", "csv", "latex", "json", "rich"])
def test_odd_names_stand_in_every_format(form: str) -> None:
    table = build_table([*make_seeds(ODD, [0.5, 0.6]), *make_seeds("erm", [0.4, 0.5])])
    sheets = [costs_sheet(table), *pivot_sheets(table, "methods-by-datasets")[:1]]
    text = render_sheets(sheets, form)
    shown = {"markdown": "| a_b &amp; &lt;c&gt; |", "latex": r"a\_b \& $<$c$>$ &", "json": f'"{ODD}"'}
    assert shown.get(form, ODD) in text


def test_csv_of_several_sheets_keeps_their_numbers_apart(tmp_path: Path) -> None:
    for seed in range(2):
        make_run(tmp_path, "erm", seed)
        make_run(tmp_path, "lnl", seed, config={"scale": 0.1})
    make_run(tmp_path, "lnl", 0, config={"scale": 0.3})
    runs, _ = read_runs(tmp_path)
    asked = Asked(rules=["last", "oracle"], metrics=["accuracy", "ece"], layout="methods-by-datasets", cost=True)
    rows = list(csv.DictReader(io.StringIO(render_report(make_report(runs, [], asked), "csv"))))
    keys = [(row["table"], row["section"], row["method"], row["method_setting"]) for row in rows]
    assert len(set(keys)) == len(keys) == 15
    assert {row["table"] for row in rows} == {"selection-accuracy", "selection-ece", "accuracy", "ece", "cost"}


@pytest.mark.parametrize("asked", [asked for name, asked in SHEETS.items() if name != "comparison"], ids=lambda a: "")
def test_what_is_missing_is_told_below_every_sheet(asked: Asked, tmp_path: Path) -> None:
    for variance in (0.02, 0.05):
        make_run(tmp_path, "erm", 0, params=params(variance))
    runs, _ = read_runs(tmp_path)
    for sheet in make_report(runs, ["failed: lnl: NaN"], asked).sheets:
        assert sheet.problems[0] == "failed: lnl: NaN"


@pytest.mark.parametrize("asked", [Asked(curve="variance"), Asked(cost=True), Asked(compare="erm"), Asked(ledger=True)])
def test_the_oracle_is_only_shown_under_its_name(asked: Asked, tmp_path: Path) -> None:
    for variance, method in itertools.product((0.02, 0.05), ("erm", "lnl")):
        make_run(tmp_path, method, 0, params=params(variance))
    runs, _ = read_runs(tmp_path)
    chosen = Asked(**{**vars(asked), "rules": ["oracle"]})
    for sheet in make_report(runs, [], chosen).sheets:
        assert sum("best on the test split itself" in note for note in sheet.notes) == 1


def test_a_rule_is_asked_of_the_methods_that_are_shown_alone(tmp_path: Path) -> None:
    make_run(tmp_path, "erm", 0, splits=("test",))
    make_run(tmp_path, "lnl", 0)
    runs, _ = read_runs(tmp_path)
    shown = make_report(runs, [], Asked(rules=["val"], methods=["erm"])).table
    assert shown.rows == []
    assert shown.problems == ("left out: erm on cmnist, seed 0: val reads validation labels, and there are none",)
    with pytest.raises(ZooError, match="unknown method 'ern'; did you mean 'erm'"):
        make_report(runs, [], Asked(rules=["val"], methods=["ern"]))
    with pytest.raises(ZooError, match="unknown split 'tset'; did you mean 'test'"):
        make_report(runs, [], Asked(rules=["oracle"], split="tset"))
    on_val = make_report(runs, [], Asked(rules=["oracle"], split="val")).table
    assert [row.method for row in on_val.rows] == ["lnl"]
    assert on_val.problems == ("left out: erm on cmnist, seed 0: no split 'val'; it was evaluated on: test",)


def test_published_numbers_stand_beside_the_metric_that_they_are_of() -> None:
    lff = {"dataset": "cmnist-lff", "params": {"conflict": 0.01, "severity": 4, "val": 0, "data_seed": 0}}
    results = [make_result("erm", **lff), make_result("erm", params=params(0.02))]

    def head(metrics: list[str]) -> str:
        return to_markdown(build_table(results, metrics=metrics)).split("\n")[2]

    assert head(["ece", "unbiased", "gap"]).startswith("| Method | ECE | Unbiased | Published | Gap |")
    assert head(["accuracy", "unbiased"]).startswith("| Method | Accuracy | Published | Unbiased |")
    assert "Published" not in head(["ece", "gap"])
