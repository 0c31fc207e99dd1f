"""The published numbers that come with the zoo, and how they are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_results import make_result, make_seeds

from debias_zoo.errors import ZooError
from debias_zoo.reports.published import COLUMNS, find, published, read_published
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
    keys = [(p.method, p.dataset, tuple(sorted(p.setting.items())), p.metric) for p in published()]
    assert len(keys) == len(set(keys)) == 35
    assert all(entry.source for entry in published())


def test_the_table_carries_the_number_on_the_test_split_alone() -> None:
    (row,) = build_table(make_seeds("lnl", [0.5])).rows
    assert row.published is not None
    assert row.published.mean == 0.8185
    (row,) = build_table(make_seeds("lnl", [0.5]), split="val").rows
    assert row.published is None
    assert not build_table([make_result("hex")]).has_published


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
