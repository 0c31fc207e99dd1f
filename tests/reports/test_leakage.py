from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_results import SEES_BIAS, make_result

from debias_zoo.errors import ZooError
from debias_zoo.reports.leakage import build_leakage, layers_in, leaks_of
from debias_zoo.reports.leakage_figure import draw_leakage, leakage_svg
from debias_zoo.reports.render_sheets import render_sheets
from debias_zoo.store import Run
from debias_zoo.trial import Probe, ProbedLayer, Readout

LAYERS = ("tap0", "tap1", "embedding")


def probed(
    out: Path, method: str, seed: int = 0, bias: float = 0.5, layers: tuple[str, ...] = LAYERS, **changes: Any
) -> Run:
    """A run whose probes read the bias at ``bias`` + 0.1 x place over chance, and the label at 0.3."""
    limit, notes = changes.pop("limit", 2000), changes.pop("notes", ())
    result = make_result(method, seed, **changes)
    run = Run(result, out / result.trial.folder)
    run.path.mkdir(parents=True)
    found = [
        ProbedLayer(
            name=name,
            dim=8,
            bias=Readout(accuracy=0.1 + bias + 0.1 * place, std=0.01, chance=0.1),
            label=Readout(accuracy=0.4, std=0.01, chance=0.1) if name != "tap1" else None,
        )
        for place, name in enumerate(layers)
    ]
    run.save(
        Probe(
            identity=result.identity,
            split="val_unbiased",
            limit=limit,
            images=limit,
            folds=5,
            dependence=0.0,
            layers=tuple(found),
            notes=notes,
        )
    )
    return run


def test_a_row_a_method_with_mean_and_spread_over_seeds(tmp_path: Path) -> None:
    runs = [probed(tmp_path, "erm", seed, 0.5 + 0.1 * seed) for seed in range(3)]
    runs.append(probed(tmp_path, "lnl", supervision=SEES_BIAS))
    sheet = build_leakage(runs)
    assert [column.key for column in sheet.columns] == [
        "method",
        "supervision",
        *("bias_tap0", "bias_tap1", "bias_embedding"),
        *("label_tap0", "label_tap1", "label_embedding"),
    ]
    (section,) = sheet.sections
    assert section.heading == ""
    erm, lnl = [[cell.text for cell in row] for row in section.rows]
    assert erm[:2] == ["erm", "no bias labels"]
    assert erm[2:] == ["60.00 ± 10.00", "70.00 ± 10.00", "80.00 ± 10.00", "30.00 ± 0.00", "–", "30.00 ± 0.00"]
    assert lnl[:3] == ["lnl", "bias labels to train", "50.00"]
    assert section.rows[0][2].value == {"": pytest.approx(0.6), "std": pytest.approx(0.1)}
    notes = " ".join(sheet.notes)
    assert "cmnist: 2000 images of val_unbiased; at most 90.00 for the bias and 90.00 for the label." in notes
    assert "over 1 or 3 seeds" in notes
    assert build_leakage(runs[::-1]) == sheet


def test_settings_never_share_a_row(tmp_path: Path) -> None:
    runs = [
        probed(tmp_path, "lnl", 0, config={"scale": 0.1}),
        probed(tmp_path, "lnl", 1, config={"scale": 0.3}),
        probed(tmp_path, "erm"),
        probed(tmp_path, "erm", 1, limit=500, notes=("part of the one is the other",)),
        probed(tmp_path, "erm", 2, params={"variance": 0.05, "val": 6000, "data_seed": 0}),
    ]
    sheet = build_leakage(runs)
    assert [section.heading for section in sheet.sections] == ["cmnist, variance=0.02", "cmnist, variance=0.05"]
    rows = [[cell.text for cell in row[:2]] for section in sheet.sections for row in section.rows]
    assert rows == [
        ["erm", "probe.limit=500"],
        ["erm", "probe.limit=2000"],
        ["lnl", "lnl.scale=0.1"],
        ["lnl", "lnl.scale=0.3"],
        ["erm", ""],
    ]
    assert "erm (probe.limit=500) on cmnist: part of the one is the other." in sheet.notes


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    result = make_result("gray")
    unprobed = Run(result, tmp_path / result.trial.folder)
    damaged = probed(tmp_path, "erm")
    (damaged.path / "probe.json").write_text("{}")
    sheet = build_leakage([unprobed, damaged], ["unfinished: somewhere"])
    assert sheet.sections == ()
    assert sheet.notes == ("No probed trial.",)
    assert [problem.split(":")[0] for problem in sheet.problems] == ["unfinished", "not read", "not probed"]
    assert sheet.problems[-1] == f"not probed: {result.trial.label} ({result.trial.folder})", "as in every store"
    with pytest.raises(ZooError, match="no run has been probed"):
        leakage_svg([unprobed])


def test_networks_of_different_depth_share_a_sheet(tmp_path: Path) -> None:
    taps = tuple(f"tap{k}" for k in range(12))
    runs = [probed(tmp_path, "erm", layers=(*taps, "embedding"), bias=-0.5), probed(tmp_path, "lnl")]
    assert layers_in(leak for _, members in leaks_of(runs)[0] for leak in members) == [*taps, "embedding"]
    row = json.loads(render_sheets([build_leakage(runs)], "json"))[1]
    assert row["bias_tap11"] is None
    assert row["bias_embedding"] is not None


def test_the_figure_is_the_same_bytes_and_tells_no_time(tmp_path: Path) -> None:
    runs = [probed(tmp_path, name, seed, 0.2 + 0.1 * seed) for name in ("erm", "lnl") for seed in range(2)]
    svg = leakage_svg(runs)
    assert svg == leakage_svg(runs[::-1])
    for text in ("erm", "lnl", "tap0", "embedding", ">Bias<", ">Label<", "over chance"):
        assert text in svg, f"{text} is not there as text"
    assert "dc:date" not in svg
    for kind, start in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        one, other = tmp_path / f"one.{kind}", tmp_path / f"other.{kind}"
        draw_leakage(runs, one)
        draw_leakage(runs[::-1], other)
        assert one.read_bytes().startswith(start)
        assert one.read_bytes() == other.read_bytes()


def test_drawing_leaves_the_settings_of_matplotlib(tmp_path: Path) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    leakage_svg([probed(tmp_path, "erm")])
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("form", ["rich", "latex", "markdown", "csv", "json"])
def test_it_is_written_in_every_format(form: str, tmp_path: Path) -> None:
    sheet = build_leakage([probed(tmp_path, "lnl_adaptive")])
    text = render_sheets([sheet], form)
    assert text == render_sheets([sheet], form)
    for word in ("adaptive", "tap1"):
        assert word in text
