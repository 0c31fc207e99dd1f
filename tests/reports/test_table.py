"""The table's rows: what is averaged, what is kept apart, what is ranked and in which order it stands."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
from typing import Any

import pytest
from made_results import SEES_BIAS, TRAINING, make_result, make_seeds, make_trial, paper_table

from debias_zoo.errors import ZooError
from debias_zoo.metrics import ALL_METRICS, LEAKAGE
from debias_zoo.protocol import Settings
from debias_zoo.reports.ranking import ranks
from debias_zoo.reports.report import render
from debias_zoo.reports.rows import LEVELS, Row, Table
from debias_zoo.reports.table import build_table
from debias_zoo.trial import Result, Supervision, Trial


def only(table: Table) -> Row:
    (row,) = table.rows
    return row


def test_mean_and_sample_deviation_over_seeds() -> None:
    row = only(build_table(make_seeds("erm", [0.40, 0.43, 0.44])))
    value = row.values["accuracy"]
    assert value is not None
    assert value.mean == pytest.approx((0.40 + 0.43 + 0.44) / 3, abs=1e-15)
    assert value.std == pytest.approx(((0.0233333**2 + 0.0066667**2 + 0.0166667**2) / 2) ** 0.5, abs=1e-6)  # ddof 1
    assert row.seeds == (0, 1, 2)


def test_one_seed_has_no_deviation() -> None:
    row = only(build_table([make_result(seed=7)]))
    assert row.seeds == (7,)
    assert all(value is None or value.std is None for value in row.values.values())


def test_seconds_are_the_mean_of_whole_trials() -> None:
    row = only(build_table([make_result(seed=0, seconds=10.0), make_result(seed=1, seconds=13.0)]))
    assert row.seconds == 11.5


def test_a_metric_that_a_seed_lacks_is_left_out_and_not_averaged_over_fewer() -> None:
    lacking = make_result(seed=1, metrics={"test": {"accuracy": 0.5, "gap": None}})
    row = only(build_table([make_result(seed=0, accuracy=0.5), lacking]))
    assert row.values["accuracy"] is not None
    assert row.values["unbiased"] is None
    assert row.values["gap"] is None


APART: dict[str, tuple[dict[str, Any], str]] = {
    "params": ({"params": {"variance": 0.03, "val": 6000, "data_seed": 0}}, "variance=0.03"),
    "config": ({"config": {"scale": 0.3, "tap": 2}}, "lnl.scale=0.3"),
    "settings": ({"settings": Settings(lr=0.1).over(TRAINING)}, "lnl.train.lr=0.1"),
    "stages": ({"stages": {"unlearn": Settings(lr=0.001)}}, "lnl.unlearn.lr=0.001"),
    "protocol": ({"protocol": "quick"}, "protocol=quick"),
    "backbone": ({"backbone": "resnet18"}, "backbone=resnet18"),
    "backbone_options": ({"backbone_options": {"kernel": 7}}, "backbone.kernel=7"),
    "weights_digest": ({"weights_digest": "12ab"}, "weights_digest=12ab"),
    "normalize": ({"normalize": "half"}, "normalize=half"),
    "precision": ({"precision": "fp32"}, "precision=fp32"),
    "method_version": ({"method_version": 2}, "lnl.version=2"),
    "dataset_version": ({"dataset_version": 2}, "cmnist.version=2"),
    "method_code": ({"method_code": "0a1b"}, "lnl.code=0a1b"),
    "dataset_code": ({"dataset_code": "0a1b"}, "cmnist.code=0a1b"),
    "backbone_code": ({"backbone_code": "0a1b"}, "backbone.code=0a1b"),
    "fingerprint": ({"fingerprint": "other"}, "fingerprint=283d23"),
    "train_limit": ({"train_limit": 2048}, "train_limit=2048"),
    "eval_limit": ({"eval_limit": 1000}, "eval_limit=1000"),
    "supervision": ({"supervision": Supervision(train=True, tuned_on="val")}, "supervision.tuned_on=val"),
    "needs": ({"needs": {"teacher": make_trial("erm", config={"width": 3})}}, "needs.teacher.config.width=3"),
}


def test_every_field_of_a_trial_is_tried_below() -> None:
    assert set(APART) == set(Trial.model_fields) - {
        *("method", "dataset", "seed", "source", "deviations", "options", "plugins", "weights")
    }


@pytest.mark.parametrize("field", APART)
def test_settings_that_differ_are_never_averaged_and_say_in_what(field: str) -> None:
    changes, text = APART[field]
    base: dict[str, Any] = {"config": {"scale": 0.1, "tap": 2}, "supervision": SEES_BIAS}
    table = build_table([make_result("lnl", 0, **base), make_result("lnl", 1, **{**base, **changes})])
    assert [row.seeds for row in table.rows] in ([(0,), (1,)], [(1,), (0,)])
    first, second = sorted(table.rows, key=lambda row: row.seeds)
    assert text in second.setting
    assert text not in first.setting
    assert first.setting != second.setting


def test_only_what_differs_is_named_and_only_where_something_does() -> None:
    sweep = [
        *make_seeds("lnl", [0.5, 0.6], config={"scale": 0.1, "tap": 2}),
        *make_seeds("lnl", [0.5, 0.6], config={"scale": 0.3, "tap": 2}),
        *make_seeds("erm", [0.4, 0.5]),
    ]
    named = {(row.method, row.setting) for row in build_table(sweep).rows}
    assert named == {("lnl", "lnl.scale=0.1"), ("lnl", "lnl.scale=0.3"), ("erm", "")}


def test_where_a_trials_settings_come_from_does_not_split_a_row() -> None:
    results = [make_result(seed=0), make_result(seed=1, source="elsewhere", deviations=("one",))]
    assert only(build_table(results)).seeds == (0, 1)


def test_the_seed_of_a_teacher_does_not_split_a_row_but_its_config_does() -> None:
    def taught(seed: int, **changes: Any) -> Result:
        return make_result("dedier", seed, needs={"teacher": make_trial("erm", seed, **changes)})

    assert only(build_table([taught(0), taught(1)])).seeds == (0, 1)
    assert len(build_table([taught(0), taught(1, config={"width": 3})]).rows) == 2


def test_a_setting_with_a_truth_value_is_not_the_one_with_a_number() -> None:
    table = build_table([make_result(seed=0, config={"x": True}), make_result(seed=1, config={"x": 1})])
    assert {row.setting for row in table.rows} == {"erm.x=true", "erm.x=1"}


def test_the_same_seed_twice_counts_once_and_is_told_if_the_numbers_differ() -> None:
    same = build_table([make_result(seed=0), make_result(seed=0, seconds=3.0)])
    assert only(same).seeds == (0,)
    assert same.problems == ()
    first = make_result(seed=0, accuracy=0.5).model_copy(update={"environment": {"commit": "a1", "date": "2026-01-02"}})
    other = build_table([first, make_result(seed=0, accuracy=0.6)])
    assert only(other).seeds == (0,)
    shown = only(other).results[0].environment["commit"]
    assert other.problems[0].startswith("repeated: erm on cmnist, seed 0: two results with different numbers; shown is")
    assert f"shown is that of commit {shown}, " in other.problems[0]
    assert "commit a1, 2026-01-02" in other.problems[0]


@pytest.mark.parametrize(
    ("metric", "means", "expected"),
    [
        ("accuracy", [0.1, 0.3, 0.2], [None, 1, 2]),
        ("accuracy", [0.3, 0.3, 0.2, 0.1], [1, 1, 2, None]),
        ("accuracy", [0.3, 0.2, 0.2], [1, 2, 2]),
        ("accuracy", [0.3, 0.3], [1, 1]),
        ("accuracy", [0.3, None, 0.2], [1, None, 2]),
        ("accuracy", [0.3], [None]),
        ("accuracy", [0.3, None], [None, None]),
        ("accuracy", [], []),
        ("accuracy", [0.12344, 0.12340], [1, 2]),  # the same when rounded
        ("accuracy", [0.1 + 0.2, 0.3, 0.2], [1, 1, 2]),  # the same but for the order of a sum
        ("gap", [-0.1, 0.2, 0.05, -0.3], [2, None, 1, None]),
        ("gap", [-0.1, 0.1, 0.2], [1, 1, 2]),
    ],
)
def test_ranks(metric: str, means: list[float | None], expected: list[int | None]) -> None:
    assert ranks(metric, means, [3] * len(means)) == expected


def test_numbers_of_fewer_seeds_are_not_ranked() -> None:
    assert ranks("accuracy", [0.4, 0.2, 0.3, None], [1, 3, 3, 5]) == [None, 2, 1, None]
    assert ranks("accuracy", [0.4, 0.2], [1, 3]) == [None, None]


def test_an_unfinished_method_does_not_hide_another_of_a_like_name() -> None:
    problems = [
        "unfinished: runs/cmnist/lnl_adaptive/0-0123456789ab",
        "failed: erm/cmnist/hex/1-0123456789ab: it is NaN",
    ]
    told = build_table([make_result("gray")], methods=["gray", "lnl", "lnl_adaptive", "erm", "hex"], problems=problems)
    assert told.problems[2:] == ("no finished result of 'lnl'", "no finished result of 'erm'")


def test_ranks_are_given_over_all_levels_of_supervision_but_within_the_data() -> None:
    table = build_table(
        [
            *make_seeds("erm", [0.4]),
            *make_seeds("lnl", [0.6], supervision=SEES_BIAS),
            *make_seeds("gray", [0.7]),
            *make_seeds("erm", [0.9], params={"variance": 0.05}),
            *make_seeds("lnl", [0.8], params={"variance": 0.05}, supervision=SEES_BIAS),
        ]
    )
    found = {(row.method, row.trial.params["variance"]): row.values["accuracy"] for row in table.rows}
    assert {key: value.rank if value else None for key, value in found.items()} == {
        ("erm", 0.02): None,
        ("lnl", 0.02): 2,
        ("gray", 0.02): 1,
        ("erm", 0.05): 1,
        ("lnl", 0.05): 2,
    }


def test_rows_stand_by_supervision_then_as_asked() -> None:
    results = [
        *make_seeds("a_train", [0.5], supervision=SEES_BIAS),
        *make_seeds("b_select", [0.5], supervision=Supervision(val=True)),
        *make_seeds("c_select", [0.5], supervision=Supervision(tuned_on="val_unbiased")),
        *make_seeds("d_none", [0.5], supervision=Supervision(tuned_on="val")),
        *make_seeds("e_none", [0.5], supervision=Supervision(knows_bias_kind=True)),
    ]
    (block,) = build_table(results).blocks
    assert [level for level, _ in block.groups()] == list(LEVELS[:3])
    assert [row.method for row in block.rows] == ["d_none", "e_none", "b_select", "c_select", "a_train"]
    (asked,) = build_table(results, methods=["a_train", "e_none", "c_select", "b_select", "d_none"]).blocks
    assert [row.method for row in asked.rows] == ["e_none", "d_none", "c_select", "b_select", "a_train"]


def test_only_methods_asked_for_are_shown_and_a_missing_one_is_told() -> None:
    table = build_table(paper_table(), methods=["lnl", "erm", "hex"])
    assert {row.method for row in table.rows} == {"lnl", "erm"}
    assert table.problems == ("no finished result of 'hex'",)
    failed = ["failed: hex on cmnist, seed 0: NaN"]
    assert list(build_table(paper_table(), methods=["lnl", "hex"], problems=failed).problems) == failed
    with pytest.raises(ZooError, match=r"unknown method 'lnn'; did you mean 'lnl'\?"):
        build_table(paper_table(), methods=["lnn"])


def test_numbers_in_settings_stand_in_their_order() -> None:
    results = [r for v in (0.1, 0.02, 0.005) for r in make_seeds("erm", [0.5], params={"variance": v})]
    results += [r for s in (10, 9.5) for r in make_seeds("lnl", [0.5], params={"variance": 0.1}, config={"scale": s})]
    table = build_table(results)
    assert [block.title for block in table.blocks] == [f"cmnist, variance={v}" for v in (0.005, 0.02, 0.1)]
    assert [row.label for row in table.blocks[-1].rows] == ["", "lnl.scale=9.5", "lnl.scale=10"]


def test_a_data_set_alone_needs_no_title_but_its_name() -> None:
    results = [*make_seeds("erm", [0.5]), *make_seeds("erm", [0.5], dataset="corrupted", params={"ratio": 0.05})]
    assert [block.title for block in build_table(results).blocks] == ["cmnist", "corrupted"]


def test_split_defaults_to_test_or_the_last_that_is_like_it() -> None:
    numbers: dict[str, float | None] = {"accuracy": 0.5}
    several = make_result("erm", metrics={"tb2": numbers, "test": numbers, "val": numbers})
    no_test = make_result("gray", metrics={"val": numbers, "eb1": numbers, "eb2": numbers, "val_unbiased": numbers})
    no_tests = make_result("lnl", metrics={"val": numbers})
    table = build_table([several, no_test, no_tests])
    assert {row.method: row.split for row in table.rows} == {"erm": "test", "gray": "eb2"}
    (problem,) = table.problems
    assert problem == "left out: lnl on cmnist, seed 0: no split 'test'; it was evaluated on: val"


def test_a_split_that_was_asked_for_must_be_there() -> None:
    table = build_table(make_seeds("erm", [0.5, 0.6]), split="val")
    value = only(table).values["accuracy"]
    assert value is not None
    assert value.mean == 0.99
    with pytest.raises(ZooError, match="unknown split 'tset'; did you mean 'test'"):
        build_table(make_seeds("erm", [0.5]), split="tset")


def test_the_order_of_the_results_changes_no_byte() -> None:
    results = paper_table() + make_seeds("lnl", [0.5, 0.6], config={"scale": 3}) + [make_result("erm", 0, 0.9)]
    shuffled = random.Random(0).sample(results, len(results))
    for form in ("rich", "latex", "markdown", "csv", "json"):
        assert render(build_table(results), form) == render(build_table(shuffled), form)


def test_problems_are_kept_in_their_order_and_told_once() -> None:
    assert build_table(paper_table(), problems=["b", "a", "b"]).problems == ("b", "a")


def test_all_metrics_are_there_whatever_a_result_holds() -> None:
    row = only(build_table([make_result(metrics={"test": {"accuracy": 0.5}})]))
    assert tuple(row.values) == (*ALL_METRICS, LEAKAGE)
    assert statistics.fmean([value.mean for value in row.values.values() if value]) == 0.5


def test_unknown_formats_and_standalone_of_others_are_refused() -> None:
    table = build_table(paper_table())
    with pytest.raises(ZooError, match="unknown format 'latx'; did you mean 'latex'"):
        render(table, "latx")
    with pytest.raises(ZooError, match="'csv' has no standalone form"):
        render(table, "csv", standalone=True)


@pytest.mark.parametrize("form", ["rich", "latex", "markdown", "csv", "json"])
def test_an_empty_table_can_be_written(form: str) -> None:
    text = render(build_table([], problems=["failed: lnl: NaN"]), form)
    assert form in {"csv", "json"} or ("No finished trial" in text and "failed: lnl: NaN" in text)


def test_tables_need_no_torch() -> None:
    code = "import sys, debias_zoo.reports.table, debias_zoo.reports.terminal; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
