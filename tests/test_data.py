"""``debias-zoo data`` and ``check_dataset``: what they say of data that are right, wrong, or not there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from debias_zoo.arrays import Arrays
from debias_zoo.cli import cli
from debias_zoo.dataset import BiasDataset, Card, Split
from debias_zoo.errors import ZooError
from debias_zoo.grid import Request, build_grid
from debias_zoo.testing import check_dataset
from tests.datasets.test_files import bar, waterbirds


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBIAS_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DEBIAS_ZOO_DATA", raising=False)


def invoke(*words: str) -> Result:
    return CliRunner().invoke(cli, ["data", *words])


# --- commands


def test_status_tells_bundled_ready_incomplete_and_missing(tmp_path: Path) -> None:
    bar(tmp_path)
    waterbirds(tmp_path)
    (tmp_path / "waterbird_complete95_forest2water2" / "metadata.csv").unlink()
    rows = {row["name"]: row for row in json.loads(invoke("status", "--data-root", str(tmp_path), "--json").stdout)}
    states = {name: rows[name]["state"] for name in ("cmnist", "bar", "waterbirds", "celeba", "folder")}
    assert states == {
        "cmnist": "bundled",
        "bar": "ready",
        "waterbirds": "incomplete",
        "celeba": "missing",
        "folder": "your own",
    }
    assert "metadata.csv cannot be read" in rows["waterbirds"]["about"]
    assert "broken" not in {row["state"] for row in rows.values()}
    assert "bar" in invoke("status", "--data-root", str(tmp_path)).stdout


def test_get_says_what_has_to_be_done_by_hand(tmp_path: Path) -> None:
    result = invoke("get", "celeba", "--data-root", str(tmp_path))
    assert result.exit_code == 2
    for words in ("by hand", "img_align_celeba", f"{tmp_path}/celeba/", "data import celeba"):
        assert words in result.stderr
    assert "nothing to fetch" in invoke("get", "cmnist").stdout
    assert "--data-root" in invoke("get", "celeba").stderr


def test_import_takes_folders_and_archives_of_the_official_layout(tmp_path: Path) -> None:
    bar(tmp_path / "download")
    archive = shutil.make_archive(str(tmp_path / "bar-master"), "zip", tmp_path / "download", "bar")
    for root, origin in ((tmp_path / "one", tmp_path / "download" / "bar"), (tmp_path / "two", Path(archive))):
        result = invoke("import", "bar", str(origin), "--data-root", str(root))
        assert result.exit_code == 0, result.output
        assert sorted(path.name for path in root.iterdir()) == ["bar"]
        assert len(list((root / "bar" / "test").iterdir())) == 12
    assert "is there already" in invoke("import", "bar", archive, "--data-root", str(root)).stderr


def test_import_of_something_else_leaves_nothing(tmp_path: Path) -> None:
    waterbirds(tmp_path / "download")
    result = invoke("import", "bar", str(tmp_path / "download"), "--data-root", str(tmp_path / "data"))
    assert result.exit_code == 2
    assert "is not bar in its official layout: data set 'bar' has no images" in result.stderr
    assert not list((tmp_path / "data").iterdir())
    assert "there is no" in invoke("import", "bar", str(tmp_path / "no"), "--data-root", str(tmp_path)).stderr


def test_verify_compares_counts_and_checksums(tmp_path: Path) -> None:
    bar(tmp_path)
    result = invoke("verify", "bar:size=16", "--data-root", str(tmp_path), "--json")
    assert result.exit_code == 1
    verdicts = {row["check"]: row for row in json.loads(result.stdout)}
    failed = [name for name, row in verdicts.items() if row["status"] != "passed"]
    assert failed == ["counts"], "the miniature is smaller than the published set"
    assert "the card says" in verdicts["counts"]["reason"]
    from tests.datasets.test_files import celeba

    celeba(tmp_path)
    result = invoke("verify", "celeba:size=16", "--data-root", str(tmp_path))
    assert "checksum of list_attr_celeba.txt" in result.stdout
    assert "not 75e246fa4810816ffd6ee81facbd244c" in " ".join(result.stdout.split())


def test_preview_is_a_picture(tmp_path: Path) -> None:
    bar(tmp_path)
    for name, split in (("bar:size=16", "train"), ("bar:size=16", "test"), ("cmnist-lff", "train")):
        file = tmp_path / "sheet.png"
        result = invoke(
            "preview", name, "--data-root", str(tmp_path), "--split", split, "-o", str(file), "--count", "2"
        )
        assert result.exit_code == 0, result.output
        with Image.open(file) as sheet:
            assert min(sheet.size) > 200
    assert "unknown split" in invoke("preview", "cmnist", "--split", "tset").stderr
    assert "cannot write" in invoke("preview", "cmnist-lff", "-o", str(tmp_path / "no" / "x.png")).stderr


# --- one's own arrays


def arrays(**change: Any) -> Arrays:
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    given = {
        "images": random.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8),
        "labels": labels,
        "biases": np.where(np.arange(60) % 5 == 0, (labels + 1) % 3, labels),
    }
    return BiasDataset.from_arrays(**{**given, **change})


def test_arrays_are_a_data_set_in_one_line() -> None:
    found = arrays(classes=["a", "b", "c"])
    card = found.card
    assert (card.classes, card.biases, card.aligned) == (("a", "b", "c"), ("0", "1", "2"), ((0,), (1,), (2,)))
    assert [len(found.load(None, name)) for name in ("train", "val", "test")] == [48, 6, 6]
    assert {verdict.name: verdict.reason for verdict in check_dataset(found) if not verdict.ok} == {}
    assert arrays(seed=1).fingerprint(None) != found.fingerprint(None)


def test_arrays_without_biases_in_grey() -> None:
    found = arrays(images=np.zeros((60, 8, 8), np.uint8), biases=None, splits=["train", "night"] * 30)
    assert found.card.image_shape == (3, 8, 8)
    assert found.card.eval_splits == found.card.test_splits == ("night",)
    assert found.load(None, "train").biases is None


def test_saved_arrays_are_there_for_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved = arrays().save("mine.npz")
    assert saved.fingerprint(None) == arrays().fingerprint(None)
    one = build_grid(Request(["erm", "group_dro"], ["arrays:file=mine.npz"], protocol="quick", backbone="lnl_convnet"))
    arrays(labels=np.arange(60) % 2).save("mine.npz")
    two = build_grid(Request(["erm", "group_dro"], ["arrays:file=mine.npz"], protocol="quick", backbone="lnl_convnet"))
    assert not set(one.asked) & set(two.asked), "other values, another identity"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": np.zeros((60, 8, 8, 3))}, "images must be uint8"),
        ({"labels": np.zeros(59, int)}, "labels must have one value for each of 60 images|splits must have"),
        ({"labels": np.full(60, 0.5)}, "labels must be whole numbers"),
        ({"labels": np.full(60, -1)}, "labels must be whole numbers from 0"),
        ({"classes": ["a", "b"]}, "labels go up to 2, but classes has 2 names"),
        ({"splits": ["train"] * 60}, "something to test on"),
        ({"labels": 3}, "labels must have one value"),
        ({"biases": None, "bias_names": ["a"]}, "bias_names without biases"),
    ],
)
def test_wrong_arrays_are_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ZooError, match=words):
        arrays(**change)


def test_a_file_that_is_no_npz_and_one_with_objects(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"no")
    np.savez(tmp_path / "objects.npz", images=np.array([{}], object))
    for name in ("bad", "objects", "gone"):
        with pytest.raises(ZooError, match=rf"{name}\.npz cannot be read"):
            Arrays(Arrays.Params(file=str(tmp_path / f"{name}.npz"))).check(None)


# --- check_dataset catches what it promises


class Wrong(BiasDataset):
    """Right, but for what a test changes."""

    name = "wrong"
    title = "wrong"
    bias_attribute = "bias"
    card_change: dict[str, Any] = {}

    @property
    def card(self) -> Card:
        given = {
            **dict.fromkeys(("title", "about", "citation", "url", "licence", "origin"), "known"),
            "classes": ("a", "b"),
            "biases": ("x", "y", "z"),
            "aligned": ((0,), (1,)),
            "image_shape": (3, 4, 4),
            "backbone": "resnet18",
            "normalize": "none",
            "training": {},
            "eval_splits": ("test",),
            "counts": {"train": ((16, 2, 2), (2, 16, 2))},
        }
        return Card(**{**given, **self.card_change})

    def load(self, root: Path | None, split: str) -> Split:
        if split not in ("train", "test"):
            raise ZooError(f"no split {split}")
        labels = np.arange(40) % 2
        biases = np.where(np.arange(40) < 32, labels, np.where(np.arange(40) < 36, 2, 1 - labels))
        images = np.random.default_rng(len(split)).integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)
        return Split(images, labels, biases)


def failing(cls: type[BiasDataset]) -> list[str]:
    return [verdict.name for verdict in check_dataset(cls()) if not verdict.ok]


def test_a_right_data_set_passes() -> None:
    assert failing(Wrong) == []


@pytest.mark.parametrize(
    ("change", "caught"),
    [
        ({"licence": " "}, "card"),
        ({"aligned": ((0,),)}, "card"),
        ({"aligned": ((0,), (3,))}, "card"),
        ({"test_splits": ("night",)}, "card"),
        ({"folder": "somewhere"}, "card"),
        ({"image_shape": (3, 4, 5)}, "splits"),
        ({"biases": ("x", "y"), "aligned": ((0,), (1,)), "counts": {}}, "splits"),
        ({"bias_map": (3, 8, 2, 2)}, "bias_map"),
        ({"counts": {"train": ((16, 2, 2), (2, 15, 3))}}, "counts"),
        ({"aligned": ((1,), (0,))}, "bias"),
    ],
)
def test_a_wrong_card_is_caught(change: dict[str, Any], caught: str) -> None:
    cls = type("Changed", (Wrong,), {"card_change": change})
    assert caught in failing(cls)


def planted(**functions: Any) -> list[str]:
    return failing(type("Planted", (Wrong,), functions))


def test_wrong_data_are_caught() -> None:
    def unseeded(self: Wrong, root: Path | None, split: str) -> Split:
        found = Wrong.load(self, root, split)
        return Split(
            np.random.default_rng().integers(0, 256, found.images.shape, dtype=np.uint8), found.labels, found.biases
        )

    def copied(self: Wrong, root: Path | None, split: str) -> Split:
        found, train = Wrong.load(self, root, split), Wrong.load(self, root, "train")
        images = np.concatenate([train.images[:1], found.images[1:]])
        return Split(images, found.labels, found.biases)

    def sorted_by_class(self: Wrong, root: Path | None, split: str) -> Split:
        found = Wrong.load(self, root, split)
        order = np.argsort(found.labels, kind="stable")
        return Split(
            found.images[order], found.labels[order], found.biases[order] if found.biases is not None else None
        )

    def any_split(self: Wrong, root: Path | None, split: str) -> Split:
        return Wrong.load(self, root, "test" if split == "test" else "train")

    def other_labels(self: Wrong, root: Path | None, split: str) -> Any:
        return np.zeros(40, np.int64), np.zeros(40, np.int64)

    assert planted(load=unseeded) == ["same_again"]
    assert planted(load=copied) == ["apart"]
    assert planted(load=sorted_by_class) == ["mixed"]
    assert planted(load=any_split) == ["refuses"]
    assert planted(annotations=other_labels) == ["counts"]
    assert planted(fingerprint=lambda self, root: str(id(self))) == ["same_again"]


def test_copies_that_the_card_counts_are_no_failure() -> None:
    def copied(self: Wrong, root: Path | None, split: str) -> Split:
        found, train = Wrong.load(self, root, split), Wrong.load(self, root, "train")
        return Split(np.concatenate([train.images[:1], found.images[1:]]), found.labels, found.biases)

    assert failing(type("Planted", (Wrong,), {"load": copied, "card_change": {"copies": {"test": 1}}})) == []
