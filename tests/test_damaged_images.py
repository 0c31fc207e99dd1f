"""``debias-zoo run`` on images of which some cannot be decoded."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import invoke


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sixty images with a CSV in the working directory; one of them is damaged."""
    from tests.datasets.test_files import picture

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEBIAS_ZOO_CACHE", str(tmp_path / "cache"))
    lines = ["file,split,label,bias"]
    for k in range(60):
        picture(tmp_path / "images" / f"{k}.png", k)
        lines.append(f"{k}.png,{'train' if k < 40 else 'test'},{'ab'[k % 2]},{'xy'[(k + (k % 5 == 0)) % 2]}")
    (tmp_path / "images.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "images" / "7.png").write_bytes(b"no picture")
    return tmp_path


FOLDER = ["--dataset", "folder:path=images,metadata=images.csv,size=28", "--backbone", "lnl_convnet"]


def test_a_damaged_image_stops_a_run_before_it_starts(own: Path) -> None:
    ended = invoke("run", "--methods", "erm", *FOLDER, "--protocol", "quick", "--out", "runs")
    assert ended.exit_code == 2
    assert "1 of 40 images cannot be decoded: images/7.png" in ended.output
    assert "--skip-corrupt" in ended.output
    assert not list((own / "runs").rglob("config.json"))


def test_damaged_images_are_left_out_with_a_count(own: Path) -> None:
    run = ["run", "--methods", "erm,group_dro", *FOLDER, "--protocol", "quick", "--out", "runs", "--skip-corrupt"]
    ended = invoke(*run)
    assert ended.exit_code == 0, ended.output
    assert "decoding folder: 40 of 40" in ended.output
    assert "warning: folder: 1 of 40 images of 'train' cannot be decoded, left out" in ended.output
    assert "decoding" not in invoke(*run).output, "the second time nothing is left to do"
    assert (own / "cache").is_dir()
