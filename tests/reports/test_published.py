"""The published numbers that come with the zoo, and how they are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_results import make_result, make_seeds

from debias_zoo.errors import ZooError
from debias_zoo.registry import entries, load_dataset
from debias_zoo.reports.caption import caption
from debias_zoo.reports.published import COLUMNS, Published, find, published, read_published
from debias_zoo.reports.table import build_table

LNL_TABLE = {  # Kim et al., CVPR 2019, as printed in the authors' README; the last row from SZU-AdvTech-2022/156
    "erm": "0.4055 0.4813 0.5996 0.6626 0.7333 0.7973 0.8450",
    "blindeye": "0.6741 0.7123 0.7883 0.8203 0.8638 0.8927 0.9159",
    "gray": "0.8374 0.8751 0.8996 0.9166 0.9325 0.9472 0.9596",
    "lnl": "0.8185 0.8854 0.9137 0.9306 0.9406 0.9555 0.9618",
    "lnl_adaptive": "0.8393 0.8956 0.9197 0.9324 0.9388 0.9469 0.9512",
}
VARIANCES = (0.02, 0.025, 0.03, 0.035, 0.04, 0.045, 0.05)


@pytest.mark.parametrize("method", LNL_TABLE)
def test_the_colored_mnist_table_of_lnl(method: str) -> None:
    found = [find(method, "cmnist", {"variance": variance, "val": 6000}) for variance in VARIANCES]
    assert [entry and entry.mean for entry in found] == [float(text) for text in LNL_TABLE[method].split()]
    assert all(entry and entry.verified and entry.std is None and entry.n is None for entry in found)


@pytest.mark.parametrize(
    ("method", "dataset", "params", "metric"),
    [
        ("lnl", "cmnist", {"variance": 0.021}, "accuracy"),
        ("lnl", "cmnist", {}, "accuracy"),
        ("lnl", "cmnist", {"variance": "much"}, "accuracy"),
        ("lnl", "cmnist", {"variance": True}, "accuracy"),
        ("lnl", "cmnist", {"variance": 0.02}, "worst_group"),
        ("lnl", "corrupted", {"variance": 0.02}, "accuracy"),
        ("hex", "cmnist", {"variance": 0.02}, "accuracy"),
    ],
)
def test_nothing_is_found_where_nothing_was_published(
    method: str, dataset: str, params: dict[str, Any], metric: str
) -> None:
    assert find(method, dataset, params, metric) is None


def test_no_number_is_published_twice_for_one_setting() -> None:
    keys = [(p.method, p.dataset, tuple(sorted(p.setting.items())), p.metric, p.source) for p in published()]
    twice = {key for key in keys if keys.count(key) > 1}
    assert not twice
    assert len(keys) > 350


def test_every_number_is_a_fraction_of_a_method_of_the_zoo_with_its_source() -> None:
    for entry in published():
        assert entry.method in entries("method"), entry
        assert 0.0 <= entry.mean <= 1.0, entry
        assert entry.std is None or 0.0 <= entry.std < 0.2, entry
        assert entry.n is None or entry.n > 1, entry
        assert entry.source, entry
        told = "from memory" in entry.source or "second-hand" in entry.source
        assert entry.verified is not told, f"{entry}: verified means read in the source itself"


def test_settings_name_parameters_that_the_data_set_has() -> None:
    for entry in published():
        if entry.dataset in entries("dataset") and entry.dataset != "bar":  # published on re-splits of it
            known = load_dataset(entry.dataset).Params.model_fields
            assert set(entry.setting) <= {*known, "split"}, entry


DENETDM_TABLE = {  # Sreelatha et al., NeurIPS 2024, Table 1: unbiased accuracy at 0.5, 1, 2, 5 % conflicting images
    "group_dro": "0.5967 0.7133 0.7630 0.8440",
    "erm": "0.3534 0.5034 0.6229 0.7763",
    "jtt": "0.5303 0.6168 0.7423 0.8503",
    "lff": "0.6339 0.7401 0.8048 0.8539",
    "dfa": "0.5912 0.7104 0.8286 0.8829",
    "lc": "0.6348 0.7841 0.8363 0.8818",
    "denetdm": "0.7472 0.8522 0.8929 0.9354",
}


@pytest.mark.parametrize("method", DENETDM_TABLE)
def test_the_colored_mnist_table_of_denetdm(method: str) -> None:
    cls = load_dataset("cmnist-lff")
    for params in ({}, {"val": 0}, {"data_seed": 3, "val": 1000}):
        runs = [cls.Params.model_validate({"conflict": r, **params}) for r in (0.005, 0.01, 0.02, 0.05)]
        found = [find(method, "cmnist-lff", run.model_dump(mode="json")) for run in runs]
        assert [entry and entry.mean for entry in found] == [float(text) for text in DENETDM_TABLE[method].split()]
        assert {entry and entry.metric for entry in found} == {"unbiased"}
    assert find(method, "cmnist-lff", {"conflict": 0.03}) is None


def test_the_table_shows_it_beside_a_run() -> None:
    params = {"conflict": 0.01, "severity": 4, "val": 6000, "data_seed": 0}
    table = build_table(make_seeds("denetdm", [0.5], dataset="cmnist-lff", params=params))
    assert table.rows[0].published is not None
    assert table.rows[0].published.mean == 0.8522
    assert "DeNetDM, Table 1: unbiased accuracy" in " ".join(caption(table))


def test_accuracy_comes_before_unbiased_accuracy_and_read_before_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry(metric: str, mean: float, verified: bool) -> Published:
        return Published("erm", "x", {}, metric, mean, None, None, "s", verified)

    made = [entry("unbiased", 0.1, True), entry("accuracy", 0.2, False), entry("accuracy", 0.3, True)]
    monkeypatch.setattr("debias_zoo.reports.published.published", lambda: tuple(made))
    assert [find("erm", "x", {}, metric) for metric in (None, "accuracy", "unbiased")] == [made[2], made[2], made[0]]
    made.pop()
    assert find("erm", "x", {}) == made[1]
    made.pop()
    assert find("erm", "x", {}) == made[0]
    assert find("erm", "x", {}, "accuracy") is None


def test_on_waterbirds_the_worst_group_stands_for_a_method_and_a_weighted_average_for_no_plain_accuracy() -> None:
    for method, worst in (("erm", 0.637), ("group_dro", 0.914), ("dfr", 0.92)):
        found = find(method, "waterbirds", {})
        assert found is not None
        assert (found.metric, found.mean) == ("worst_group", worst)
    weighted = find("erm", "waterbirds", {}, "train_weighted")
    assert weighted is not None
    assert weighted.mean == 0.97
    assert find("erm", "waterbirds", {}, "accuracy") is None


def test_numbers_on_other_splits_are_not_found_for_the_test() -> None:
    found = find("learned_mixin", "biased-mnist", {"rho": 0.999}, "accuracy")
    assert found is None, "the accuracy on the biased split"
    found = find("learned_mixin", "biased-mnist", {"rho": 0.999, "split": "biased"}, "accuracy")
    assert found is not None
    assert found.mean == 0.029


def test_the_test_of_dogs_and_cats_is_the_other_training_set() -> None:
    found = [find("lnl", "dogs-cats", {"train": train, "size": 224}) for train in ("tb1", "tb2")]
    assert [entry and (entry.mean, entry.verified) for entry in found] == [(0.9029, False), (0.8726, False)]


def test_the_first_of_two_sources_stands_for_a_method() -> None:
    found = find("end", "biased-mnist", {"rho": 0.99})
    assert found is not None
    assert (found.mean, found.std, found.n) == (0.9602, 0.0008, 3)
    sources = [p.source for p in published() if (p.method, p.dataset) == ("end", "biased-mnist")]
    assert len(set(sources)) == 2, "Hong and Yang's re-run is a block of its own"


def test_the_table_carries_the_number_on_the_test_split_alone() -> None:
    (row,) = build_table(make_seeds("lnl", [0.5])).rows
    assert row.published is not None
    assert row.published.mean == 0.8185
    (row,) = build_table(make_seeds("lnl", [0.5]), split="val").rows
    assert row.published is None
    assert not build_table([make_result("hex")]).published


def write(folder: Path, line: str) -> Path:
    path = folder / "published.csv"
    path.write_text(",".join(COLUMNS) + "\n" + line + "\n")
    return path


def test_all_columns_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, 'gdro,waterbirds,"ratio=0.95,backbone=resnet50",worst_group,0.914,0.011,5,a paper,no')
    (entry,) = read_published(path)
    assert entry.setting == {"ratio": "0.95", "backbone": "resnet50"}
    assert (entry.mean, entry.std, entry.n, entry.verified) == (0.914, 0.011, 5, False)
    assert entry.belongs_to({"ratio": 0.95, "backbone": "resnet50", "more": 1})
    assert not entry.belongs_to({"ratio": 0.95})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("erm,cmnist,,accuracy,81.85,,,x,yes", "line 2: '81.85', not a fraction"),
        ("erm,cmnist,,accuracy,much,,,x,yes", "line 2: could not convert"),
        ("erm,cmnist,,accuracy,0.5,,,x,perhaps", "line 2: 'perhaps' makes no sense"),
        ("erm,cmnist,variance,accuracy,0.5,,,x,yes", "line 2: setting 'variance'"),
        ("erm,cmnist,,acuracy,0.5,,,x,yes", "did you mean 'accuracy'"),
        ("erm,cmnist", "unknown metric"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        read_published(write(tmp_path, line))


def test_other_columns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    path.write_text("method,mean\nerm,0.5\n")
    with pytest.raises(ZooError, match="must have the columns method,dataset"):
        read_published(path)
