"""Images decoded once: the pixels, resumed and shared building, damaged files, full disks, rows read from a file."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from debias_zoo import decode as module
from debias_zoo.decode import Decoded, RowFile, Step, cache_folder, decode, decoded, fingerprint
from debias_zoo.errors import ZooError

STEPS: tuple[Step, ...] = (("squash", 8),)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEBIAS_ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    random = np.random.default_rng(0)
    found = []
    for k in range(150):  # several chunks
        path = tmp_path / f"{k}.png"
        Image.fromarray(random.integers(0, 256, (10, 12, 3), np.uint8)).save(path)
        found.append(path)
    return found


def built(folder: Path) -> Path:
    (one,) = folder.glob("*")
    return one


def test_rows_are_the_decoded_files_and_are_decoded_once(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    told: list[tuple[int, int]] = []
    first = decoded(files, STEPS, report=lambda done, count: told.append((done, count)))
    assert first.images.shape == (150, 8, 8, 3)
    for k in (0, 77, 149):
        assert np.array_equal(first.images[k : k + 1][0], decode(files[k], STEPS))
    assert told[-1] == (150, 150)
    assert sorted(path.name for path in built(cache).glob("*")) == [".lock", "done.json", "images.u8"]
    monkeypatch.setattr(module, "decode", lambda *_: pytest.fail("decoded again"))
    assert np.array_equal(decoded(files, STEPS).images[:], first.images[:])


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((("squash", 8),), (slice(None), slice(None))),
        ((("centre", 6),), (slice(2, 8), slice(3, 9))),
    ],
)
def test_steps(files: list[Path], steps: tuple[Step, ...], expected: Any) -> None:
    picture = Image.open(files[3])
    whole = np.asarray(picture.resize((8, 8), Image.Resampling.BILINEAR) if steps[0][0] == "squash" else picture)
    assert np.array_equal(decode(files[3], steps), whole[expected])


def test_the_shorter_side_is_scaled(files: list[Path]) -> None:
    assert decode(files[0], (("short", 20),)).shape == (20, 24, 3)
    assert decode(files[0], (("short", 20), ("centre", 16))).shape == (16, 16, 3)


def test_another_file_or_another_step_is_another_cache(files: list[Path]) -> None:
    before = fingerprint(files, STEPS)
    assert fingerprint(files, (("squash", 9),)) != before
    assert fingerprint(files[1:], STEPS) != before
    os.utime(files[5], ns=(1, 1))
    assert fingerprint(files, STEPS) != before


def test_damaged_files_are_named_before_anything_runs_or_left_out(files: list[Path]) -> None:
    files[7].write_bytes(files[7].read_bytes()[:40])  # broken off
    files[140].write_text("no picture")
    with pytest.raises(ZooError, match=r"2 of 150 images cannot be decoded: .*7\.png, .*140\.png\. Replace them, or"):
        decoded(files, STEPS)
    kept = decoded(files, STEPS, skip_corrupt=True)
    assert len(kept.images) == len(kept.kept) == 148
    assert not {7, 140} & set(kept.kept.tolist())
    assert np.array_equal(kept.images[7:8][0], decode(files[8], STEPS))


def test_no_picture_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(ZooError, match="none of 1 images can be decoded"):
        decoded([tmp_path / "a.png"], STEPS)
    with pytest.raises(ZooError, match=r"b\.png cannot be read: No such file"):
        decoded([tmp_path / "b.png"], STEPS)
    assert len(decoded([], STEPS).images) == 0


def test_an_interrupted_cache_is_gone_on_with(files: list[Path], monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    opened: list[Path] = []

    def failing(file: Path, steps: Any) -> Any:
        if len(opened) > 100:
            os.kill(os.getpid(), 9)
        opened.append(file)
        return decode(file, steps)

    def child() -> None:
        monkeypatch.setattr(module, "decode", failing)
        decoded(files, STEPS)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == -9
    assert not (built(cache) / "done.json").exists()
    again: list[Path] = []
    monkeypatch.setattr(module, "decode", lambda file, steps: (again.append(file), decode(file, steps))[1])
    whole = decoded(files, STEPS)
    assert 40 < len(again) < 60, "what was decoded before is kept"
    for k in (0, 50, 149):
        assert np.array_equal(whole.images[k : k + 1][0], decode(files[k], STEPS))


def test_a_full_disk_leaves_nothing_half_written_in_use(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        with pytest.raises(ZooError, match="no space left to write"):
            decoded(files, STEPS)
    assert not (built(cache) / "done.json").exists()
    assert len(decoded(files, STEPS).images) == 150


def test_two_at_once_build_one_cache(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    count: list[Path] = []
    monkeypatch.setattr(module, "decode", lambda file, steps: (count.append(file), decode(file, steps))[1])
    found: list[Decoded] = []
    threads = [threading.Thread(target=lambda: found.append(decoded(files, STEPS))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(count) == 151, "each file once, and the first for its shape"
    assert np.array_equal(found[0].images[:], found[1].images[:])


@pytest.fixture
def in_rows(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(module, "MAPPED_BYTES", 0)


def test_large_caches_are_read_row_by_row(files: list[Path], in_rows: Callable[[], None], cache: Path) -> None:
    mapped = decoded(files, STEPS).images[:]
    in_rows()
    rows = decoded(files, STEPS).images
    assert isinstance(rows, RowFile)
    assert (rows.shape, len(rows), rows.ndim, rows.dtype) == ((150, 8, 8, 3), 150, 4, np.uint8)
    assert np.array_equal(rows[np.array([5, 149, 5])], mapped[[5, 149, 5]])
    assert np.array_equal(rows[3:9], mapped[3:9])
    with (built(cache) / "images.u8").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ZooError, match="shorter than it should be"):
        rows[140:]


def test_rows_of_damaged_files_are_left_out_of_large_caches_too(files: list[Path], in_rows: Callable[[], None]) -> None:
    files[7].write_text("no picture")
    in_rows()
    rows = decoded(files, STEPS, skip_corrupt=True).images
    assert len(rows) == 149
    assert np.array_equal(rows[7:8][0], decode(files[8], STEPS))


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("DEBIAS_ZOO_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "debias-zoo"


def test_done_is_written_last(files: list[Path], cache: Path) -> None:
    decoded(files, STEPS)
    known = json.loads((built(cache) / "done.json").read_text())
    assert known == {"shape": [8, 8, 3], "corrupt": []}


def test_a_cache_that_was_stopped_before_it_was_called_done_is_made_again(files: list[Path], cache: Path) -> None:
    before = decoded(files, STEPS).images[:].copy()
    folder = built(cache)
    (folder / "done.json").unlink()
    (folder / "state.part").write_bytes(b"\1" * 150)  # as after the pixels were moved to their place
    assert np.array_equal(decoded(files, STEPS).images[:], before)


def test_sixteen_bits_keep_their_shades_and_unbounded_ones_are_refused(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    assert np.array_equal(decode(tmp_path / "deep.png", ())[..., 0], ramp >> 8)
    Image.fromarray((ramp / 65535).astype(np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(ValueError, match="mode F"):
        decode(tmp_path / "float.tiff", ())


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="is no file"):
        decoded([tmp_path], STEPS)


@pytest.mark.parametrize("damage", ["done.json", "images.u8"])
def test_a_damaged_cache_is_made_again(damage: str, files: list[Path], cache: Path) -> None:
    before = decoded(files, STEPS).images[:].copy()
    (built(cache) / damage).write_bytes(b"{}")
    assert np.array_equal(decoded(files, STEPS).images[:], before)


def test_the_same_names_elsewhere_are_other_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for k, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        Image.new("RGB", (8, 8), (k, k, k)).save("x.bmp")
        os.utime("x.bmp", ns=(0, 0))
        found.append(decoded([Path("x.bmp")], STEPS).images[0, 0, 0, 0])
    assert found == [0, 1]


def test_a_file_that_cannot_be_opened_is_not_called_damaged(
    files: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.decode

    def refused(file: Path, steps: Any) -> Any:
        if file.name == "9.png":
            raise PermissionError(13, "Permission denied")
        return real(file, steps)

    monkeypatch.setattr(module, "decode", refused)
    with pytest.raises(ZooError, match=r"9\.png cannot be read"):
        decoded(files, STEPS, skip_corrupt=True)
    monkeypatch.setattr(module, "decode", real)
    assert len(decoded(files, STEPS).kept) == 150
