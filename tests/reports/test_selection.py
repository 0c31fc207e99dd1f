"""Selection rules on predictions made by hand: which epoch each takes, and what it loses to the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_results import SEES_BIAS, make_trial
from made_store import make_run, predicted, write_run

from debias_zoo.errors import ZooError
from debias_zoo.metrics import ALL_METRICS, goodness
from debias_zoo.reports.choices import choices_sheet
from debias_zoo.reports.report import Asked, Report, make_report, selected
from debias_zoo.reports.selection import RULES, Epochs, epochs_of, known_rules, select
from debias_zoo.reports.table import build_table
from debias_zoo.store import Run, read_runs

COMMITTED = Path(__file__).resolve().parent.parent.parent / "docs" / "results"

# Four images, one a group: (cat, dark) and (dog, bright) are bias-aligned.
LABELS, BIASES = [0, 0, 1, 1], [0, 1, 0, 1]
ALL, NONE = [0, 0, 1, 1], [1, 1, 0, 0]
ALIGNED = [0, 1, 0, 1]
"""Right on the bias-aligned images alone."""
CATS = [0, 0, 0, 0]
FIRST = [0, 1, 0, 0]
"""Right on (cat, dark) alone."""


def split(name: str, *epochs: list[int], biased: bool = True) -> dict[str, npt.NDArray[Any]]:
    return predicted(epochs, LABELS, BIASES if biased else None, split=name)


def run_of(out: Path, *splits: dict[str, npt.NDArray[Any]], selectable: int = 9, **changes: Any) -> Run:
    arrays = {name: array for one in splits for name, array in one.items()}
    count = len(next(iter(arrays.values())))
    return write_run(out, make_trial(**changes), arrays, selectable=min(selectable, count))


def chosen(run: Run, rule: str, metric: str = "accuracy") -> int | None:
    return Epochs(run).chosen(RULES[rule], "test", metric)


def test_each_rule_takes_the_epoch_that_is_best_by_its_own_measure(tmp_path: Path) -> None:
    run = run_of(
        tmp_path,
        split("test", ALL, NONE, NONE, NONE, NONE),
        split("val", FIRST, ALL, FIRST, FIRST, NONE),
        split("val_unbiased", FIRST, NONE, ALL, FIRST, NONE),
    )
    assert {rule: chosen(run, rule) for rule in RULES} == {
        "last": 4,
        "val": 1,
        "val-unbiased": 2,
        "val-worst-group": 2,
        "ac": 2,
        "oracle": 0,
    }


def test_rules_differ_in_what_they_call_best(tmp_path: Path) -> None:
    labels, biases = [0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 0, 1]
    right = np.array(
        [
            [1, 1, 1, 1, 0, 0, 1],  # accuracy 5/7, unbiased .50, worst 0, ac .50
            [1, 0, 0, 0, 1, 1, 0],  # accuracy 3/7, unbiased .5625, worst 0, ac .5625
            [1, 0, 0, 0, 1, 0, 1],  # accuracy 3/7, unbiased .5625, worst 0, ac .5625, later
            [1, 0, 0, 0, 0, 0, 0],
        ]
    )
    classes = np.where(right, labels, 1 - np.array(labels)).tolist()
    run = run_of(tmp_path, split("test", *[ALL] * 4), predicted(classes, labels, biases, split="val"))
    assert [chosen(run, rule) for rule in ("val", "val-unbiased", "val-worst-group", "ac")] == [0, 2, 3, 2]


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "last"])
def test_of_epochs_that_score_alike_the_latest_is_taken(rule: str, tmp_path: Path) -> None:
    epochs = [NONE, ALL, ALL, NONE]
    assert chosen(run_of(tmp_path, split("test", *epochs), split("val", *epochs)), rule) == 2


@pytest.mark.parametrize("rule", RULES)
def test_only_the_last_epochs_are_eligible_as_many_as_the_result_says(rule: str, tmp_path: Path) -> None:
    epochs = [ALL, ALL, NONE, NONE, NONE]
    run = run_of(tmp_path, split("test", *epochs), split("val", *epochs), selectable=3)
    assert chosen(run, rule) == 4
    more = run_of(tmp_path, split("test", *epochs), split("val", *epochs), selectable=4, seed=2)
    assert chosen(more, rule) == (4 if rule == "last" else 1)
    alone = run_of(tmp_path, split("test", *epochs), split("val", *epochs), selectable=1, seed=1)  # as after `finish`
    assert chosen(alone, rule) == 4


def test_a_rule_without_its_split_or_its_labels_cannot_be_asked(tmp_path: Path) -> None:
    without = run_of(tmp_path, split("test", ALL, NONE))
    assert {rule: chosen(without, rule) for rule in RULES} == {
        **dict.fromkeys(RULES),
        "last": 1,
        "oracle": 0,
    }
    unlabelled = run_of(tmp_path, split("test", ALL, NONE), split("val", ALL, NONE, biased=False), seed=1)
    assert {rule: chosen(unlabelled, rule) for rule in RULES} == {
        **dict.fromkeys(RULES),
        "last": 1,
        "val": 0,
        "oracle": 0,
    }
    told: list[str] = []
    assert selected([without], epochs_of([without]), RULES["val-worst-group"], None, "accuracy", told) == []
    assert told == ["left out: erm on cmnist, seed 0: val-worst-group reads validation bias labels, and there are none"]


def test_the_oracle_of_a_metric_is_its_best_epoch_and_the_gap_nearest_to_zero_is_best(tmp_path: Path) -> None:
    turned = [1, 0, 1, 0]  # right on the bias-conflicting images alone: the gap is -1
    run = run_of(tmp_path, split("test", turned, CATS, ALIGNED, FIRST))
    assert chosen(run, "oracle", "gap") == 1
    assert chosen(run, "oracle", "aligned") == 2
    assert chosen(run, "oracle", "conflicting") == 0


def test_the_chosen_epoch_gives_the_metrics_of_every_split_and_says_what_was_read(tmp_path: Path) -> None:
    run = run_of(tmp_path, split("test", ALL, NONE), split("val", ALIGNED, NONE))
    result = select(Epochs(run), RULES["val-unbiased"], "test", "accuracy")
    assert result is not None
    assert (result.metrics["test"]["accuracy"], result.metrics["val"]["accuracy"]) == (1.0, 0.5)
    assert result.trial.supervision.level == "bias labels to select"
    assert result.identity == run.result.identity
    plain = select(Epochs(run), RULES["val"], "test", "accuracy")
    assert plain is not None
    assert plain.trial.supervision == run.result.trial.supervision
    taught = run_of(tmp_path, split("test", ALL), split("val", ALL), method="lnl", supervision=SEES_BIAS)
    found = select(Epochs(taught), RULES["ac"], "test", "accuracy")
    assert found is not None
    assert found.trial.supervision.level == "bias labels to train"


def test_numbers_under_last_are_the_stored_ones_to_the_last_bit() -> None:
    runs, problems = read_runs(COMMITTED / "cmnist-lff-standard")
    more, others = read_runs(COMMITTED / "real-lite0")
    assert len(runs) + len(more) == 9
    assert not problems + others
    for run in runs + more:
        result = select(Epochs(run), RULES["last"], "test", "accuracy")
        assert result is not None
        assert result.metrics == run.result.metrics
    report = make_report(runs, [], Asked(metrics=ALL_METRICS))
    for row in report.table.rows:
        for metric, value in row.values.items():
            stored = row.results[0].metrics["test"].get(metric)
            assert (value.mean if value else None) == stored


images = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 2**5 - 1)), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(images, images, st.integers(1, 5), st.sampled_from(ALL_METRICS), st.randoms(use_true_random=False))
def test_no_rule_beats_the_oracle(
    tmp_path_factory: pytest.TempPathFactory, test: Any, val: Any, selectable: int, metric: str, random: Any
) -> None:
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, rows in (("test", test), ("val", val)):
        labels, biases, bits = ([int(value) for value in column] for column in zip(*rows, strict=True))
        classes = [[code >> epoch & 1 for code in bits] for epoch in range(5)]
        odds = [[random.choice([0.0, 0.5, 3.0, 40.0]) for _ in rows] for _ in range(5)]
        arrays |= predicted(classes, labels, biases, odds, name)
    run = write_run(tmp_path_factory.mktemp("store"), make_trial(), arrays, selectable=selectable)
    epochs = Epochs(run)
    best = select(epochs, RULES["oracle"], "test", metric)
    assert (best is None) == all(epochs.metrics("test", epoch)[metric] is None for epoch in epochs.eligible)
    for rule in RULES.values():
        epoch = epochs.chosen(rule, "test", metric)
        found = select(epochs, rule, "test", metric)
        assert epoch is None or epoch in range(5 - selectable, 5)
        if best is not None and found is not None:
            top, value = best.metrics["test"][metric], found.metrics["test"][metric]
            assert top is not None
            assert value is not None
            assert goodness(metric, top) >= goodness(metric, value)


def cells_of(report: Report) -> dict[str, dict[str, Any]]:
    """Method -> column -> value, of the only sheet."""
    (sheet,) = report.sheets
    return {
        row[0].text: {column.key: cell.value for column, cell in zip(sheet.columns[1:], row[1:], strict=True)}
        for section in sheet.sections
        for row in section.rows
    }


@pytest.mark.parametrize("metric", ALL_METRICS)
def test_regret_is_what_the_oracle_has_more_and_never_negative(metric: str, tmp_path: Path) -> None:
    for seed in range(3):
        make_run(tmp_path, "erm", seed)
    runs, _ = read_runs(tmp_path)
    of_erm = cells_of(make_report(runs, [], Asked(rules=list(RULES), metrics=[metric])))["erm"]
    oracle = of_erm["oracle"]
    for rule, value in of_erm.items():
        assert value["regret"] >= 0
        assert value["regret"] <= abs(oracle["mean"]) + abs(value["mean"])
        single = make_report(runs, [], Asked(rules=[rule], metrics=[metric])).table.rows[0].values[metric]
        assert single is not None
        assert (value["mean"], value["std"]) == (pytest.approx(single.mean), pytest.approx(single.std))
    assert oracle["regret"] == 0


def test_an_old_result_is_told_and_not_mixed(tmp_path: Path) -> None:
    old = {"schema_version": 1, "groups": None, "selectable": None}
    make_run(tmp_path, "erm", 0)
    make_run(tmp_path, "erm", 1, result=old)
    make_run(tmp_path, "gray", 0)
    runs, problems = read_runs(tmp_path)
    assert not problems
    report = make_report(runs, [], Asked(rules=["last", "oracle"]))
    cells = cells_of(report)
    assert cells["erm"]["oracle"] is None
    assert cells["gray"]["oracle"] is not None
    stored = build_table([run.result for run in runs]).rows[0].values["accuracy"]
    assert stored is not None
    assert cells["erm"]["last"] == {"mean": stored.mean, "std": stored.std}
    assert "schema 1): only its last epoch can be shown" in report.sheets[0].problems[0]
    alone = make_report(runs, [], Asked(rules=["oracle"])).table
    assert [row.seeds for row in alone.rows] == [(0, 1), (0,)]
    assert alone.rows[0].values["accuracy"] is None, "the mean of one seed of two"
    assert alone.problems[0].startswith("no number: erm on cmnist, seed 1: ")
    assert "schema 1" in alone.problems[0]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda arrays: arrays | {"test.label": np.array([0, 0, 1, 2], dtype=np.int16)}, "label that is none of 2"),
        (lambda arrays: arrays | {"test.bias": np.array([0, -1, 1, 0], dtype=np.int16)}, "bias that is none of 2"),
        (lambda arrays: arrays | {"test.bias": np.array([0, 1], dtype=np.int16)}, "split 'test' has classes"),
        (lambda arrays: {name: a for name, a in arrays.items() if name[:3] == "val"}, "no predictions of split 'test'"),
        (lambda arrays: arrays | split("val", ALL), r"it has \[1, 2\] epochs"),
        (lambda arrays: {name: a for name, a in arrays.items() if name != "test.log_odds"}, "KeyError"),
        (lambda arrays: {**arrays, "test.class": np.array([[None] * 4] * 2)}, "allow_pickle"),
    ],
)
def test_predictions_that_are_not_those_of_the_result_are_refused(damage: Any, said: str, tmp_path: Path) -> None:
    run = run_of(tmp_path, split("test", ALL, NONE), split("val", ALL, NONE))
    arrays = dict(np.load(run.path / "predictions.npz"))
    np.savez(run.path / "predictions.npz", **damage(arrays))
    with pytest.raises(ZooError, match=said):
        Epochs(run)
    report = make_report([run], [], Asked(rules=["oracle"]))
    assert [row.values["accuracy"] for row in report.table.rows] == [None]
    assert "predictions.npz cannot be read" in report.table.problems[0]


def test_missing_predictions_are_said(tmp_path: Path) -> None:
    run = run_of(tmp_path, split("test", ALL))
    (run.path / "predictions.npz").unlink()
    with pytest.raises(ZooError, match="is missing: without the predictions only the last epoch is known"):
        Epochs(run)


def test_unknown_rules_are_refused_and_each_is_asked_once() -> None:
    assert [rule.name for rule in known_rules(["val", "last", "val"])] == ["val", "last"]
    with pytest.raises(ZooError, match="unknown selection rule 'orcale'; did you mean 'oracle'"):
        known_rules(["orcale"])


def test_a_sheet_can_be_made_of_no_rows() -> None:
    sheet = choices_sheet(build_table([]), lambda identity: pytest.fail(identity), list(RULES.values()), "accuracy")
    assert sheet.sections == ()
