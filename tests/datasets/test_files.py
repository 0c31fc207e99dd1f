"""Data sets of files, each on a miniature in its official layout; real files where they are at hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from debias_zoo.dataset import count_groups
from debias_zoo.errors import ZooError
from debias_zoo.files import FileDataset
from debias_zoo.grid import Request, build_grid, parse_datasets

REAL = Path(os.environ.get("DEBIAS_ZOO_DATA", "../shared/data"))
needs_real = pytest.mark.skipif(not (REAL / "dogs_cats").is_dir(), reason="needs dogs_cats/ below $DEBIAS_ZOO_DATA")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBIAS_ZOO_CACHE", str(tmp_path / "cache"))


def picture(path: Path, seed: int, size: tuple[int, int] = (20, 16)) -> None:
    """A random image in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path, quality=95)


def dataset(text: str) -> FileDataset:
    (found,) = parse_datasets(text)
    assert isinstance(found, FileDataset)
    return found


def dogs_cats(root: Path) -> None:
    lists: dict[str, list[str]] = {"bright": [], "dark": []}
    counts = {("cat", "bright"): 11, ("cat", "dark"): 21, ("dog", "bright"): 31, ("dog", "dark"): 12}
    for (kind, fur), count in counts.items():
        for _ in range(count):
            name = f"{kind}.{sum(map(len, lists.values()))}.jpg"
            lists[fur].append(name)
            picture(root / "dogs_cats" / "train" / name, len(name))
    for fur, names in lists.items():
        (root / "dogs_cats" / f"list_{fur}.txt").write_text("\n".join(names) + "\n")


def bar(root: Path) -> None:
    for label, action in enumerate(("climbing", "diving", "fishing", "pole vaulting", "racing", "throwing")):
        for k in range(11 + label):
            picture(root / "bar" / "train" / f"{action}_{k}.jpg", k)
        for k in range(2):
            picture(root / "bar" / "test" / f"{action}_{k}.jpg", 100 + k)
    (root / "bar" / "metadata.json").write_text("{}")


def waterbirds(root: Path) -> None:
    folder = root / "waterbird_complete95_forest2water2"
    lines = ["img_id,img_filename,y,split,place,place_filename"]
    groups = {0: ((0, 0, 7), (0, 1, 2), (1, 0, 1), (1, 1, 4)), 1: ((0, 0, 1), (1, 1, 2)), 2: ((0, 1, 3), (1, 0, 2))}
    for split, cells in groups.items():
        for y, place, count in cells:
            for _ in range(count):
                name = f"{len(lines):03d}.Bird/{len(lines)}.jpg"
                picture(folder / name, len(lines), (40, 30))
                lines.append(f"{len(lines)},{name},{y},{split},{place},somewhere.jpg")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")


def celeba(root: Path) -> None:
    folder = root / "celeba"
    rows = [(1, -1, 0), (-1, 1, 0), (-1, -1, 0), (1, 1, 0), (-1, 1, 0), (1, -1, 1), (-1, 1, 2), (1, 1, 2)]
    attributes, parts = [str(len(rows)), "Young Blond_Hair Male "], []
    for k, (blond, male, part) in enumerate(rows):
        picture(folder / "img_align_celeba" / f"{k:06d}.jpg", k, (218, 178))
        attributes.append(f"{k:06d}.jpg  1 {blond:2d} {male:2d}")
        parts.append(f"{k:06d}.jpg {part}")
    (folder / "list_attr_celeba.txt").write_text("\n".join(attributes) + "\n")
    (folder / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")


MINIATURES: dict[str, tuple[Callable[[Path], None], dict[str, Any]]] = {
    "dogs-cats:size=16": (
        dogs_cats,
        {"train": [[0, 18], [27, 0]], "val": [[0, 3], [4, 0]], "test": [[11, 0], [0, 12]]},
    ),
    "dogs-cats:size=16,train=tb2": (
        dogs_cats,
        {"train": [[9, 0], [0, 10]], "val": [[2, 0], [0, 2]], "test": [[0, 21], [31, 0]]},
    ),
    "bar:size=16": (
        bar,
        {
            "train": np.diag([9, 10, 11, 12, 13, 14]).tolist(),
            "val": np.diag([2, 2, 2, 2, 2, 2]).tolist(),
            "test": [2] * 6,
        },
    ),
    "waterbirds:size=28": (waterbirds, {"train": [[7, 2], [1, 4]], "val": [[1, 0], [0, 2]], "test": [[0, 3], [2, 0]]}),
    "celeba:size=16": (celeba, {"train": [[1, 2], [1, 1]], "val": [[0, 0], [1, 0]], "test": [[0, 1], [0, 1]]}),
    "celeba:size=16,label=Male,bias=Young": (celeba, {"train": [[0, 2], [0, 3]]}),
}


@pytest.mark.parametrize("text", MINIATURES)
def test_splits_and_groups_of_the_official_layout(text: str, tmp_path: Path) -> None:
    write, groups = MINIATURES[text]
    write(tmp_path)
    found = dataset(text)
    card = found.card
    found.check(tmp_path)
    seen: set[bytes] = set()
    for split, expected in groups.items():
        loaded = found.load(tmp_path, split)
        assert loaded.images.shape[1:] == (*card.image_shape[1:], 3)
        counts = loaded.group_counts(len(card.classes), len(card.biases))
        assert (np.bincount(loaded.labels) if counts is None else counts).tolist() == expected
        files = {str(file).encode() for file in found.files(tmp_path, split).files}
        assert not seen & files, "an image is in two splits"
        seen |= files
    again = dataset(text).load(tmp_path, "train")
    assert np.array_equal(again.images[:], found.load(tmp_path, "train").images[:])
    labels, biases = found.annotations(tmp_path, "train")
    assert biases is not None
    assert count_groups(labels, biases, len(card.classes), len(card.biases)).tolist() == groups["train"]


@pytest.mark.parametrize("text", [text for text in MINIATURES if "," not in text])
def test_what_is_missing_is_said_with_where_it_comes_from(text: str, tmp_path: Path) -> None:
    found = dataset(text)
    for root, words in ((None, "needs its files"), (tmp_path, f"is not in {tmp_path}")):
        with pytest.raises(ZooError, match=words) as error:
            build_grid(Request(["erm"], [text], protocol="quick", root=root))
        assert f"{found.card.folder}/ below --data-root" in str(error.value)
        assert found.card.get in str(error.value)


def test_a_trial_changes_its_identity_with_its_files(tmp_path: Path) -> None:
    dogs_cats(tmp_path)
    request = Request(["erm"], ["dogs-cats:size=32"], protocol="quick", root=tmp_path)
    before = build_grid(request).asked
    os.utime(tmp_path / "dogs_cats" / "train" / "cat.0.jpg", ns=(1, 1))
    assert build_grid(request).asked != before


def test_group_methods_are_refused_where_groups_are_empty(tmp_path: Path) -> None:
    dogs_cats(tmp_path)
    for method in ("group_dro", "upweight", "subsample"):
        with pytest.raises(ZooError, match="every training image of a class has one bias"):
            build_grid(Request([method], ["dogs-cats:size=32"], protocol="quick", root=tmp_path))


def test_damaged_images_stop_the_run_before_training_or_are_left_out(tmp_path: Path) -> None:
    dogs_cats(tmp_path)
    (tmp_path / "dogs_cats" / "train" / "cat.12.jpg").write_text("no picture")
    with pytest.raises(ZooError, match=r"1 of 45 images cannot be decoded: .*cat\.12\.jpg"):
        dataset("dogs-cats:size=16").prepare(tmp_path)
    assert len(dataset("dogs-cats:size=16,skip_corrupt=true").load(tmp_path, "train")) == 44


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("img_filename", "file"), "has no column 'img_filename'"),
        (("y,split", "y,part"), "has no column 'split'"),
        (("1.jpg,0,0,0", "1.jpg,7,0,0"), "label 7 of .* is not on its card"),
        (("1.jpg,0,0,0", "1.jpg,,0,0"), "column 'y' is empty in line 2"),
    ],
)
def test_wrong_metadata_is_named(change: tuple[str, str], words: str, tmp_path: Path) -> None:
    waterbirds(tmp_path)
    csv = tmp_path / "waterbird_complete95_forest2water2" / "metadata.csv"
    csv.write_text(csv.read_text().replace(*change, 1))
    with pytest.raises(ZooError, match=words):
        dataset("waterbirds").check(tmp_path)


def test_a_broken_attribute_list(tmp_path: Path) -> None:
    celeba(tmp_path)
    file = tmp_path / "celeba" / "list_attr_celeba.txt"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:-2]))
    with pytest.raises(ZooError, match="announces 8 images and holds 6"):
        dataset("celeba").check(tmp_path)
    file.write_text("\n".join(lines))
    with pytest.raises(ZooError, match="did you mean 'Blond_Hair'"):
        dataset("celeba:label=Blond_Hiar").check(tmp_path)


# --- one's own data


def own(root: Path, header: str = "file,split,label,bias") -> None:
    lines = [header]
    for split, count in (("train", 20), ("val", 4), ("test", 8), ("night", 4)):
        for k in range(count):
            name = f"{split}{k}.png"
            picture(root / "images" / name, k)
            label, bias = ("cow", "camel")[k % 2], ("grass", "sand")[(k + (k % 5 == 0)) % 2]
            lines.append(f"{name},{split},{label},{bias}" + (f",{k % 3}" if "bias_" in header else ""))
    (root / "images.csv").write_text("\n".join(lines) + "\n")


FOLDER = "folder:path=images,metadata=images.csv,size=32"


def test_ones_own_images_by_a_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own(tmp_path)
    card = dataset(FOLDER).card
    assert (card.classes, card.biases) == (("camel", "cow"), ("grass", "sand"))
    assert card.aligned == ((1,), (0,)), "most camels are on sand"
    assert (card.eval_splits, card.test_splits) == (("val", "test", "night"), ("test", "night"))
    train = dataset(FOLDER).load(None, "train")
    assert train.images.shape == (20, 32, 32, 3)
    counts = train.group_counts(2, 2)
    assert counts is not None
    assert counts.tolist() == [[2, 8], [8, 2]]
    assert build_grid(Request(["erm", "group_dro"], [FOLDER], protocol="quick")).trials


def test_several_biases_are_one_product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own(tmp_path, "file,split,label,bias_place,bias_time")
    card = dataset(FOLDER).card
    assert card.bias_parts == (2, 3)
    assert card.biases == tuple(f"{place} / {time}" for place in ("grass", "sand") for time in "012")


@pytest.mark.parametrize(
    ("text", "change", "words"),
    [
        ("folder", ("", ""), "needs both: folder:path=DIR,metadata=FILE.csv"),
        ("folder:path=nowhere,metadata=images.csv", ("", ""), "there is no folder nowhere"),
        ("folder:path=images,metadata=no.csv", ("", ""), r"no\.csv cannot be read"),
        (FOLDER, ("label", "class"), "has no column 'label'"),
        (FOLDER, (",train,", ",training,"), "no row whose split is 'train'"),
        (FOLDER, ("train3.png", "gone.png"), r"gone\.png cannot be read"),
    ],
)
def test_a_wrong_csv_is_said_to_be(
    text: str, change: tuple[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own(tmp_path)
    csv = tmp_path / "images.csv"
    csv.write_text(csv.read_text().replace(*change) if change[0] else csv.read_text())
    with pytest.raises(ZooError, match=words):
        build_grid(Request(["erm"], [text], protocol="quick"))


# --- real files


@needs_real
@pytest.mark.slow
def test_the_real_files_have_the_published_counts() -> None:
    for train, total, other in (("tb1", 10_047, 6_738), ("tb2", 6_738, 10_047)):
        found = dataset(f"dogs-cats:train={train},size=16")
        sizes = {split: len(found.files(REAL, split).files) for split in ("train", "val", "test")}
        assert sizes["train"] + sizes["val"] == total
        assert sizes["test"] == other
    bar_counts = np.bincount(dataset("bar").files(REAL, "test").labels)
    assert bar_counts.tolist() == [105, 159, 42, 131, 132, 85]
