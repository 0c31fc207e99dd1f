"""Accuracy of every group, and what else of a report follows from whose predictions they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import made_store
import numpy as np
import pytest
from made_results import make_trial
from made_runs import make_run

from debias_zoo.errors import ZooError
from debias_zoo.reports.figures import draw_report
from debias_zoo.reports.report import Asked, make_report, render_report
from debias_zoo.reports.sheets import Sheet
from debias_zoo.store import Run, read_runs


def only_sheet(runs: list[Run], asked: Asked) -> Sheet:
    (sheet,) = make_report(runs, [], asked).sheets
    return sheet


def test_the_groups_are_those_of_the_predictions(tmp_path: Path) -> None:
    runs = [made_store.make_run(tmp_path, "erm", seed) for seed in (0, 1)]
    sheet = only_sheet(runs, Asked(groups=True))
    records = json.loads(render_report(make_report(runs, [], Asked(groups=True)), "json"))
    groups = runs[0].result.groups
    assert groups is not None
    assert [column.title for column in sheet.columns] == ["Method", "Label", *groups.biases]
    assert len(records) == 2 * len(groups.classes)
    predictions = [run.predictions()["test"] for run in runs]
    first = predictions[0]
    assert first.biases is not None
    for place, (counted, found) in enumerate(zip(records[:2], records[2:], strict=True)):
        for code, name in enumerate(groups.biases):
            of_seed = []
            for one in predictions:
                members = (one.labels == place) & (one.biases == code)
                of_seed.append(float((one.classes[-1] == one.labels)[members].mean()))
            assert found[name] == pytest.approx(np.mean(of_seed))
            assert found[f"{name}_std"] == pytest.approx(np.std(of_seed, ddof=1))
            assert found[f"{name}_aligned"] == (code in groups.aligned[place])
            assert counted[name] == int(((first.labels == place) & (first.biases == code)).sum())


def test_another_rule_shows_its_own_epoch(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, "erm", 0)]
    last, best = (
        json.loads(render_report(make_report(runs, [], Asked(groups=True, rules=[rule])), "json"))
        for rule in ("last", "oracle")
    )
    assert last != best


def test_without_bias_labels_the_reason_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path, "erm", readable=False)
    with pytest.raises(ZooError, match=r"no row has predictions of images with bias labels.*is missing"):
        make_report([run], [], Asked(groups=True))


@pytest.mark.parametrize("asked", [Asked(rules=["last", "oracle"]), Asked(rules=["oracle"]), Asked(intervals=True)])
def test_predictions_of_another_trial_are_refused(asked: Asked, tmp_path: Path) -> None:
    erm, gray = make_run(tmp_path, "erm", skill=0.9), make_run(tmp_path, "gray", skill=0.2)
    shutil.copy(gray.path / "predictions.npz", erm.path / "predictions.npz")
    report = make_report([erm, gray], [], asked)
    assert any("other predictions than the result was made of" in problem for problem in report.problems)


def test_of_two_copies_the_first_is_shown_and_a_difference_is_told(tmp_path: Path) -> None:
    make_run(tmp_path / "a", "erm")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    runs, _ = read_runs(tmp_path)
    assert not make_report(runs, [], Asked()).problems
    path = runs[1].path / "result.json"
    changed = json.loads(path.read_text())
    changed["metrics"]["test"]["accuracy"] = 0.123
    path.write_text(json.dumps(changed))
    runs, _ = read_runs(tmp_path)
    report = make_report(runs, [], Asked())
    assert report.problems == [f"repeated, with other numbers: {runs[1].path}; shown is {runs[0].path}"]
    assert report.table.rows[0].values["accuracy"] != 0.123


@pytest.mark.parametrize("value", [1.7, -3.0, float("nan")])
def test_numbers_that_are_no_fractions_are_damage(value: float, tmp_path: Path) -> None:
    run = make_run(tmp_path, "erm")
    path = run.path / "result.json"
    changed = json.loads(path.read_text())
    changed["metrics"]["test"]["accuracy"] = value
    path.write_text(json.dumps(changed))
    runs, problems = read_runs(tmp_path)
    assert not runs
    assert "result.json cannot be read" in problems[0]


@pytest.mark.parametrize("schema", [0, -1, None])
def test_a_schema_that_there_never_was_is_refused(schema: int | None, tmp_path: Path) -> None:
    path = make_run(tmp_path, "erm").path / "result.json"
    changed = json.loads(path.read_text()) | {"schema_version": schema}
    if schema is None:
        del changed["schema_version"]
    path.write_text(json.dumps(changed))
    runs, problems = read_runs(tmp_path)
    assert not runs
    assert "schema" in problems[0]


def test_the_same_images_under_two_protocols_are_not_taken_together(tmp_path: Path) -> None:
    for protocol in ("quick", "standard"):
        for method in ("erm", "gray", "lnl"):
            for seed in range(3):
                make_run(tmp_path, method, seed, protocol=protocol)
    runs, _ = read_runs(tmp_path)
    asked = Asked(compare="erm")
    report = make_report(runs, [], asked)
    (sheet,) = report.sheets
    assert len(sheet.sections) == 2, "no section over all data"
    assert "the same images would count twice" in sheet.notes[-1]
    with pytest.raises(ZooError, match="the same images would count twice"):
        draw_report(report, asked, tmp_path / "ranks.svg")


def test_two_seeds_have_an_interval_over_their_images(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels, biases = np.arange(400) % 2, (np.arange(400) // 2) % 2
    runs = []
    for method, share in (("erm", 0.6), ("lnl", 0.8)):
        for seed in (0, 1):
            classes = np.where(random.random(400) < share, labels, 1 - labels)
            arrays = made_store.predicted([classes.tolist()], labels.tolist(), biases.tolist())
            runs.append(made_store.write_run(tmp_path, make_trial(method, seed), arrays, selectable=1))
    (row,) = json.loads(render_report(make_report(runs, [], Asked(compare="erm")), "json"))
    low, high = row["interval"]
    assert 0 < low < row["difference"] < high
    assert row["p"] is None
