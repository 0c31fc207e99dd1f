from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_results import make_result

from debias_zoo.reports.heat import COLUMNS, heat_sheet
from debias_zoo.store import Run
from debias_zoo.trial import Explained

KEYS = [column.key for column in COLUMNS]


def explained(path: Path, method: str, seed: int, inside: float | None, of: str = "predicted", **changes: Any) -> Run:
    """A run whose folder holds an ``explain.json``."""
    result = make_result(method, seed, **changes)
    folder = path / result.trial.folder
    folder.mkdir(parents=True)
    found = Explained(
        identity=result.identity,
        split="test",
        count=200,
        without_heat=seed,
        explained=of,  # type: ignore[arg-type]
        layer="stages.3",
        map_size=(7, 7),
        inside=inside,
        area=0.19,
    )
    (folder / "explain.json").write_text(found.model_dump_json())
    return Run(result, folder)


def rows(sheet: Any) -> list[dict[str, Any]]:
    return [dict(zip(KEYS, row, strict=True)) for section in sheet.sections for row in section.rows]


def test_shares_are_averaged_over_seeds(tmp_path: Path) -> None:
    runs = [explained(tmp_path, "lnl", seed, value) for seed, value in ((0, 0.2), (1, 0.3), (2, 0.7))]
    runs.append(explained(tmp_path, "erm", 1, 0.25))
    sheet = heat_sheet(runs)
    erm, lnl = rows(sheet)
    assert [section.heading for section in sheet.sections] == ["cmnist, the predicted class"]
    assert (lnl["method"].text, lnl["inside"].text) == ("lnl", "40.00 ± 26.46")
    assert lnl["inside"].value == {"mean": pytest.approx(0.4), "std": pytest.approx(0.07**0.5)}
    assert (lnl["seeds"].value, lnl["without_heat"].value, lnl["area"].text) == ([0, 1, 2], 3, "19.00 ± 0.00")
    assert (erm["inside"].text, erm["inside"].value["std"]) == ("25.00", None)
    assert erm["layer"].text == "stages.3 (7 x 7)"
    assert heat_sheet(runs[::-1]) == sheet
    assert [row["method"].text for row in rows(heat_sheet(runs, ["erm"]))] == ["erm"]


def test_settings_and_classes_never_share_a_row(tmp_path: Path) -> None:
    runs = [
        explained(tmp_path, "erm", 0, 0.1),
        explained(tmp_path, "erm", 1, 0.2, of="label"),
        explained(tmp_path, "erm", 2, 0.3, backbone="resnet18"),
    ]
    sheet = heat_sheet(runs)
    assert [section.heading for section in sheet.sections] == ["cmnist, the label", "cmnist, the predicted class"]
    assert [(row["setting"].text, row["inside"].text) for row in rows(sheet)] == [
        ("", "20.00"),
        ("backbone=lnl_convnet", "10.00"),
        ("backbone=resnet18", "30.00"),
    ]


def test_a_seed_without_any_heat_leaves_no_mean(tmp_path: Path) -> None:
    runs = [explained(tmp_path, "erm", 0, 0.1), explained(tmp_path, "erm", 1, None)]
    (row,) = rows(heat_sheet(runs))
    assert (row["inside"].text, row["inside"].value) == ("–", {"mean": None, "std": None})


def test_files_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    good, broken, newer, strange, without = (explained(tmp_path, "erm", seed, 0.5) for seed in range(5))
    (broken.path / "explain.json").write_text("{")
    text = (newer.path / "explain.json").read_text()
    (newer.path / "explain.json").write_text(text.replace('"schema_version":1', '"schema_version":2'))
    (strange.path / "explain.json").write_text((good.path / "explain.json").read_text())
    (without.path / "explain.json").unlink()
    sheet = heat_sheet([good, broken, newer, strange, without])
    (row,) = rows(sheet)
    assert row["seeds"].value == [0]
    assert len(sheet.problems) == 3
    assert "JSONDecodeError" in sheet.problems[0]
    assert "of another version of debias-zoo: explain again" in sheet.problems[1]
    assert "is of another trial" in sheet.problems[2]
