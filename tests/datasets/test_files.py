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
from debias_zoo.datasets.backgrounds_challenge import FOLDERS, VARIANTS
from debias_zoo.datasets.imagenet9 import wnids
from debias_zoo.datasets.nico import CLASSES
from debias_zoo.errors import ZooError
from debias_zoo.files import FileDataset
from debias_zoo.grid import Request, build_grid, parse_datasets
from debias_zoo.testing import check_dataset

VEHICLES = CLASSES["vehicle"]
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
        attributes.append(f"{k:06d}.jpg  {1 if k else -1:2d} {blond:2d} {male:2d}")
        parts.append(f"{k:06d}.jpg {part}")
    (folder / "list_attr_celeba.txt").write_text("\n".join(attributes) + "\n")
    (folder / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")


def imdb_face(root: Path) -> None:
    lines = ["file,age,gender,split"]
    ages = {
        ("train", 0): [20] * 11 + [35] * 2 + [50] * 3,
        ("train", 1): [25] * 2 + [45] * 12,
        ("test", 0): [10, 33, 70],
    }
    for (split, sex), known in ages.items():
        for age in known:
            name = f"{len(lines):02d}/nm{len(lines)}_rm.jpg"
            picture(root / "imdb-face" / "imdb_crop" / name, len(lines))
            lines.append(f"{name},{age},{sex},{split}")
    (root / "imdb-face" / "faces.csv").write_text("\n".join(lines) + "\n")


def utkface(root: Path) -> None:
    for k in range(200):
        sex, race = (k // 7) % 2, k % 5
        picture(root / "UTKFace" / f"{k % 90}_{sex}_{race}_201701161745{k:05d}.jpg.chip.jpg", k)
    for name in ("39_1_20170116174525125.jpg.chip.jpg", "notes.jpg"):  # one of the three without a race
        picture(root / "UTKFace" / name, 1)


def bffhq(root: Path) -> None:
    folder = root / "bffhq"
    kinds = (("align", 0, 0, 6), ("align", 1, 1, 5), ("conflict", 0, 1, 2), ("conflict", 1, 0, 1))
    for kind, label, sex, count in kinds:
        for k in range(count):
            picture(folder / "0.5pct" / kind / str(label) / f"{kind}{label}{k}_{label}_{sex}.png", 100 * label + k)
    for part, names in (("valid", ("1_0_0", "2_1_1")), ("test", ("3_0_0", "4_0_1", "5_1_0", "6_1_1"))):
        for name in names:
            picture(folder / part / f"{name}.png", len(name))


def nico(root: Path) -> None:
    for name in VEHICLES:
        for context, count in (("on road", 20), ("at night", 10), ("in city", 3), ("on snow", 2)):
            for k in range(count):
                picture(root / "NICO" / "Vehicle" / name / context / f"{k}.jpg", k)


def imagenet9(root: Path) -> None:
    folder, lines = root / "imagenet", ["path,category,cluster1,cluster2,cluster3"]
    for k, wnid in enumerate(wnids()):
        for part, kind, count in (("train", "JPEG", 2), ("val", "JPEG", 1), ("imagenet-a", "jpg", 1)):
            for n in range(count):
                picture(folder / part / wnid / f"{wnid}_{n}.{kind}", k)
        lines.append(f"/home/someone/val/{wnid}/{wnid}_0.JPEG,{k},{k % 9},{(k + 1) % 9},{(k + 2) % 9}")
    (folder / "9class_imagenet_val.csv").write_text("\n".join(lines) + "\n")


def backgrounds(root: Path) -> None:
    for part in ("in9l/train", "in9l/val", *(f"bg_challenge/{variant}/val" for variant in VARIANTS)):
        for k, name in enumerate(FOLDERS):
            picture(root / "backgrounds_challenge" / part / name / f"{part.replace('/', '_')}.JPEG", k)


def metashift(root: Path) -> None:
    counts = {("train", "cat", "indoor"): 11, ("train", "dog", "outdoor"): 12}
    for part in ("train", "test"):
        for animal in ("cat", "dog"):
            for place in ("indoor", "outdoor"):
                folder = root / "MetaShift-Cat-Dog-indoor-outdoor" / part / animal / f"{animal}({place})"
                for k in range(counts.get((part, animal, place), 4)):
                    picture(folder / f"{part}{animal}{place}{k}.jpg", k)


EB1 = {"train": [[9, 0, 0], [0, 0, 10]], "val": [[2, 0, 0], [0, 0, 2]], "test": [[0, 0, 3], [2, 0, 0]]}

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
    "celeba:size=16,label=Male,bias=Young,aligned=same": (celeba, {"train": [[1, 1], [0, 3]]}),
    "imdb-face:size=16": (imdb_face, {**EB1, "unbiased": [[1, 1, 1], [0, 0, 0]]}),
    "imdb-face:size=16,train=eb2": (imdb_face, {"test": [[11, 0, 0], [0, 0, 12]]}),
    "imdb-face:size=16,label=age": (
        imdb_face,
        {"test": [[0, 0], [0, 0], [0, 2], [0, 0], [0, 0], [0, 0], [0, 0], [3, 0], *[[0, 0]] * 4]},
    ),
    "utkface:size=16": (utkface, {}),
    "bffhq:size=16": (bffhq, {"train": [[6, 2], [1, 5]], "val": [[1, 0], [0, 1]], "test": [[1, 1], [1, 1]]}),
    "nico:size=16,part=vehicle": (
        nico,
        {"train": [[14, 1, *[0] * 8]] * 9, "val": [[2, 1, *[0] * 8]] * 9, "test": [[4, 2, *[0] * 8]] * 9},
    ),
    "imagenet9:size=16": (imagenet9, {}),
    "backgrounds-challenge:size=16": (backgrounds, {"train": [1] * 9, "mixed_rand": [1] * 9, "test": [1] * 9}),
    "metashift:size=16,minority=3": (
        metashift,
        {"train": [[9, 2], [2, 10]], "val": [[2, 1], [1, 2]], "test": [[4, 4], [4, 4]]},
    ),
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
    failed = {verdict.name for verdict in check_dataset(found, tmp_path) if not verdict.ok}
    assert failed <= {"counts", "apart"}, "a miniature is smaller than the published set, and repeats its pictures"


def test_biased_faces_have_the_share_of_conflicting_ones_that_vb_mitigator_has(tmp_path: Path) -> None:
    utkface(tmp_path)
    found = dataset("utkface:size=16,rate=0.8")
    sizes = {split: len(found.files(tmp_path, split).files) for split in ("train", "val", "test")}
    assert sizes["test"] == 40, "a fifth of 200; the two others do not follow the rule"
    counts = np.zeros((2, 2), np.int64)
    for split in ("train", "val"):
        labels, biases = found.annotations(tmp_path, split)
        assert biases is not None
        counts += count_groups(labels, biases, 2, 2)
    assert counts[1, 0] == round(0.2 * counts[0, 0]), "of a bias, the other label over the aligned one"
    assert counts[0, 1] == round(0.2 * counts[1, 1])
    ages = dataset("utkface:size=16,bias=age").files(tmp_path, "test").files
    assert all(not 10 < int(file.name.split("_")[0]) < 20 for file in ages)
    with pytest.raises(ZooError, match="must be different"):
        dataset("utkface:label=race,bias=race")


def test_the_nine_classes_are_the_42_of_imagenet_a() -> None:
    assert len(wnids()) == 42
    assert set(wnids().values()) == set(range(9))


def test_a_face_in_the_wrong_folder_is_named(tmp_path: Path) -> None:
    bffhq(tmp_path)
    picture(tmp_path / "bffhq" / "0.5pct" / "align" / "0" / "x_1_0.png", 3)
    with pytest.raises(ZooError, match=r"x_1_0\.png does not belong into align/0"):
        dataset("bffhq").check(tmp_path)


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
        (FOLDER, (",train,", ",training,"), "write train, val or test, not 'training'"),
        (FOLDER, ("train3.png", "gone.png"), r"gone\.png cannot be read"),
        (FOLDER, (",train,", ",learn,"), "no row whose split is 'train'"),
        (FOLDER, ("train3.png", "train2.png"), r"train2\.png is twice in train"),
        (FOLDER, ("test3.png", "x/../train2.png"), r"is in two splits, train and test"),
        (FOLDER, ("train3.png,train,camel,sand", "train3.png,train,camel,sand,more"), "line 5 has 5 fields"),
        (FOLDER, ("file,split,label,bias", "file,split,label,label"), "two columns 'label'"),
        (FOLDER, ("test3.png,test,camel", "test3.png,test,horse"), "label 'horse' has no training image"),
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


@needs_real
@pytest.mark.slow
def test_a_linear_classifier_on_pixels_learns_the_fur() -> None:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression

    found = dataset("dogs-cats:size=24")
    x, y = {}, {}
    for split in ("train", "val", "test"):
        loaded = found.load(REAL, split)
        x[split], y[split] = loaded.images[:].reshape(len(loaded), -1) / 255.0, loaded.labels
    reduced = PCA(120, random_state=0).fit(x["train"])
    model = LogisticRegression(max_iter=500).fit(reduced.transform(x["train"]), y["train"])
    right = {split: float(model.score(reduced.transform(x[split]), y[split])) for split in ("val", "test")}
    assert right["val"] > 0.78, right
    assert right["test"] < 0.2, right
