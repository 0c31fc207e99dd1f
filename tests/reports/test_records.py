"""CSV and JSON: what programs read."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from made_results import make_result, make_seeds, paper_table

from debias_zoo.metrics import METRICS
from debias_zoo.reports.records import COLUMNS
from debias_zoo.reports.report import render
from debias_zoo.reports.table import build_table
from debias_zoo.trial import Result, Supervision


def as_json(results: list[Result]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(render(build_table(results), "json"))
    return found


def as_csv(results: list[Result]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render(build_table(results), "csv"), newline="")))


def test_one_record_a_method_data_set_and_setting() -> None:
    results = paper_table() + make_seeds("lnl", [0.5], config={"scale": 0.3}) + make_seeds("erm", [0.5], dataset="x")
    keys = [(row["dataset"], row["method"], row["setting"]) for row in as_json(results)]
    assert len(keys) == len(set(keys)) == 8
    assert [(row["dataset"], row["method"], row["setting"]) for row in as_csv(results)] == keys


def test_all_fields_of_a_record() -> None:
    tuned = Supervision(train=True, tuned_on="val_unbiased")
    results = make_seeds("lnl", [0.5, 0.6], supervision=tuned, seconds=12.5, backbone_options={"kernel": 7})
    (record,) = as_json(results)
    assert tuple(record) == COLUMNS
    assert record == {
        "method": "lnl",
        "dataset": "cmnist",
        "setting": "",
        "params": {"variance": 0.02, "val": 6000, "data_seed": 0},
        "protocol": "standard",
        "backbone": "lnl_convnet",
        "backbone_options": {"kernel": 7},
        "weights": "",
        "precision": "bf16",
        "split": "test",
        "selection": "last",
        "supervision": "bias labels to train",
        "tuned_on": "val_unbiased",
        "knows_bias_kind": False,
        "n": 2,
        "seeds": [0, 1],
        "accuracy": 0.55,
        "accuracy_std": pytest.approx(0.1 / 2**0.5),
        "unbiased": pytest.approx(0.54),
        "unbiased_std": pytest.approx(0.1 / 2**0.5),
        "aligned": 0.99,
        "aligned_std": 0.0,
        "conflicting": 0.5,
        "conflicting_std": pytest.approx(0.1 / 2**0.5),
        "worst_group": 0.275,
        "worst_group_std": pytest.approx(0.05 / 2**0.5),
        "gap": pytest.approx(0.49),
        "gap_std": pytest.approx(0.1 / 2**0.5),
        **{
            f"{name}{end}": None
            for name in ("train_weighted", "ece", "ece_worst", "auroc", "leakage")
            for end in ("", "_std")
        },
        "worst_group_low": None,
        "worst_group_high": None,
        "published": 0.8185,
        "published_metric": "accuracy",
        "published_verified": True,
        "published_source": "Kim et al., CVPR 2019 (README of feidfoe/learning-not-to-learn)",
        "seconds": 12.5,
    }


def test_csv_says_the_same_as_json() -> None:
    results = [*paper_table(), make_result("hex", 3, None)]
    for text, record in zip(as_csv(results), as_json(results), strict=True):
        assert tuple(text) == COLUMNS
        for name, value in record.items():
            if value is None:
                assert text[name] == ""
            elif isinstance(value, str):
                assert text[name] == value
            else:
                assert json.loads(text[name]) == value


def test_one_seed_leaves_the_deviations_empty() -> None:
    (text,), (record,) = as_csv([make_result(seed=4)]), as_json([make_result(seed=4)])
    assert {text[f"{metric}_std"] for metric in METRICS} == {""}
    assert {record[f"{metric}_std"] for metric in METRICS} == {None}
    assert (text["n"], text["seeds"]) == ("1", "[4]")


def test_commas_quotes_and_line_breaks_survive() -> None:
    name = 'a_b & <c>, "d"\n%é'
    assert as_csv([make_result(name)])[0]["method"] == name
    assert as_json([make_result(name)])[0]["method"] == name


def test_an_empty_table_is_a_header_or_an_empty_list() -> None:
    assert render(build_table([]), "csv") == ",".join(COLUMNS) + "\n"
    assert render(build_table([]), "json") == "[]\n"
