"""Data sets that are made: Biased-MNIST, Fashion-MNIST in colours, Corrupted CIFAR-10."""

from __future__ import annotations

import gzip
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from debias_zoo.dataset import BiasDataset
from debias_zoo.datasets import corrupted_cifar10, fashion_cmnist
from debias_zoo.datasets.biased_mnist import COLOURS, assign_colours, paint
from debias_zoo.errors import ZooError
from debias_zoo.grid import parse_datasets
from debias_zoo.testing import check_dataset

REAL = Path(os.environ.get("DEBIAS_ZOO_DATA", "../shared/data"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBIAS_ZOO_CACHE", str(tmp_path / "cache"))
    corrupted_cifar10.from_npz.cache_clear()
    corrupted_cifar10.from_binary.cache_clear()
    fashion_cmnist.read_idx.cache_clear()


def dataset(text: str) -> BiasDataset:
    (found,) = parse_datasets(text)
    return found


def failed(found: BiasDataset, root: Path | None = None) -> dict[str, str]:
    return {verdict.name: verdict.reason for verdict in check_dataset(found, root) if not verdict.ok}


# --- Biased-MNIST


def test_biased_mnist_keeps_the_contract() -> None:
    assert failed(dataset("biased-mnist:rho=0.99")) == {}


@pytest.mark.parametrize("rho", [0.999, 0.997, 0.995, 0.99])
def test_as_many_digits_are_aligned_as_in_the_authors_code(rho: float) -> None:
    train = dataset(f"biased-mnist:rho={rho},val=0").load(None, "train")
    counts = train.group_counts(10, 10)
    assert counts is not None
    sizes = counts.sum(1)
    assert np.diag(counts).tolist() == [int(size * rho) for size in sizes]
    others = counts[~np.eye(10, dtype=bool)].reshape(10, 9)
    assert (others.max(1) - others.min(1)).max() <= 1, "the nine other colours are equally frequent"


def test_the_test_is_unbiased_and_pixels_are_as_published() -> None:
    counts = dataset("biased-mnist").load(None, "test").group_counts(10, 10)
    assert counts is not None
    assert (counts.max(1) - counts.min(1)).max() <= 1
    digit = np.array([[[0, 1], [255, 0]]], np.uint8)
    painted = paint(digit, np.array([6]))
    assert painted[0].tolist() == [[[255, 128, 0], [255] * 3], [[255] * 3, [255, 128, 0]]]
    assert list(COLOURS.values())[3] == (225, 225, 0)


def test_without_a_rest_every_digit_has_its_colour() -> None:
    labels = np.array([3, 1, 3, 2])
    assert assign_colours(labels, 1.0).tolist() == labels.tolist()


# --- Fashion-MNIST


def idx(folder: Path, counts: dict[str, int]) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for prefix, count in counts.items():
        images = random.integers(0, 256, (count, 28, 28), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        head = b"\0\0\x08\x03" + b"".join(int(n).to_bytes(4, "big") for n in images.shape)
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + images.tobytes()))
        head = b"\0\0\x08\x01" + count.to_bytes(4, "big")
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(head + labels.tobytes()))


def test_fashion_in_the_official_files(tmp_path: Path) -> None:
    idx(tmp_path / "fashion-mnist", {"train": 600, "t10k": 100})
    found = dataset("fashion-cmnist:val=100")
    assert failed(found, tmp_path) == {}
    assert [len(found.load(tmp_path, split)) for split in ("train", "val", "test")] == [500, 100, 100]
    assert found.card.classes[0] == "t-shirt"


def test_missing_and_broken_fashion_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="needs its files"):
        dataset("fashion-cmnist").check(None)
    idx(tmp_path / "fashion-mnist", {"train": 20, "t10k": 10})
    (tmp_path / "fashion-mnist" / "t10k-labels-idx1-ubyte.gz").write_bytes(b"no")
    with pytest.raises(ZooError, match=r"t10k-labels-idx1-ubyte\.gz cannot be read"):
        dataset("fashion-cmnist:val=0").load(tmp_path, "test")
    (tmp_path / "fashion-mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ZooError, match="is missing"):
        dataset("fashion-cmnist").check(tmp_path)


# --- Corrupted CIFAR-10


def npz(path: Path, train: int = 400, test: int = 100, **change: Any) -> str:
    random = np.random.default_rng(1)
    arrays = {
        "x_train": random.integers(0, 256, (train, 32, 32, 3), np.uint8),
        "y_train": (np.arange(train) % 10).astype(np.uint8),
        "x_test": random.integers(0, 256, (test, 32, 32, 3), np.uint8),
        "y_test": (np.arange(test) % 10).astype(np.uint8)[:, None],  # as Keras has them
    }
    np.savez(path, **{**arrays, **change})
    return f"npz={path}"


@pytest.mark.parametrize("kind", [0, 1])
def test_corrupted_cifar_keeps_the_contract(kind: int, tmp_path: Path) -> None:
    found = dataset(f"corrupted-cifar10:type={kind},conflict=0.1,val=100,{npz(tmp_path / 'c.npz')}")
    assert failed(found) == {}
    counts = found.load(None, "test").group_counts(10, 10)
    assert counts is not None
    assert counts.tolist() == [[1] * 10] * 10
    assert found.card.biases[:2] == (("snow", "frost"), ("gaussian noise", "shot noise"))[kind]


def test_corruptions_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"corrupted-cifar10:val=0,{npz(tmp_path / 'c.npz', 50, 20)}"
    first = dataset(text).load(None, "test").images[:]
    monkeypatch.setattr(corrupted_cifar10, "corrupt", lambda *given: pytest.fail("computed again"))
    assert np.array_equal(dataset(text).load(None, "test").images[:], first)


def test_the_published_numbers_of_conflicts() -> None:
    labels = np.repeat(np.arange(10), 5000)
    for conflict, count in ((0.05, 2500), (0.02, 1000), (0.01, 500), (0.005, 250)):
        assert (corrupted_cifar10.assign_colours(labels, conflict) != labels).sum() == count


def test_the_binary_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrupted_cifar10, "ROWS", 4)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    random = np.random.default_rng(2)
    images = random.integers(0, 256, (24, 32, 32, 3), np.uint8)
    names = [*corrupted_cifar10.BATCHES, "test_batch.bin"]
    for k, name in enumerate(names):
        rows = [bytes([n % 10]) + images[n].transpose(2, 0, 1).tobytes() for n in range(4 * k, 4 * k + 4)]
        (folder / name).write_bytes(b"".join(rows))
    found = corrupted_cifar10.from_binary(folder)
    assert np.array_equal(found["train_images"], images[:20])
    assert found["test_labels"].tolist() == [0, 1, 2, 3]
    corrupted_cifar10.from_binary.cache_clear()
    (folder / names[0]).write_bytes(b"short")
    with pytest.raises(ZooError, match="are broken off"):
        dataset("corrupted-cifar10").check(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x_train": np.zeros((400, 28, 28, 3), np.uint8)}, r"not uint8 \(N, 32, 32, 3\)"),
        ({"y_train": np.full(400, 10, np.uint8)}, "beyond the ten classes"),
        ({"y_test": np.array([{}], object)}, "cannot be read"),
    ],
)
def test_wrong_arrays_are_named(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=words):
        dataset(f"corrupted-cifar10:{npz(tmp_path / 'c.npz', **change)}").check(None)


@pytest.mark.skipif(not (REAL / "cifar10_10k.npz").is_file(), reason="needs cifar10_10k.npz below $DEBIAS_ZOO_DATA")
@pytest.mark.slow
@pytest.mark.parametrize("kind", [0, 1])
def test_real_images(kind: int) -> None:
    found = dataset(f"corrupted-cifar10:type={kind},val=800,npz={REAL / 'cifar10_10k.npz'}")
    assert failed(found) == {}


@pytest.mark.parametrize("text", ["cmnist", "cmnist-lff", "biased-mnist"])
@pytest.mark.parametrize("split", ["train", "val_unbiased", "test"])
def test_labels_are_known_without_painting(text: str, split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = dataset(text)
    whole = found.load(None, split)
    module = sys.modules[type(found).__module__]
    monkeypatch.setattr(module, "paint", lambda *given: pytest.fail("images were painted"))
    labels, biases = found.annotations(None, split)
    np.testing.assert_array_equal(labels, whole.labels)
    np.testing.assert_array_equal(np.asarray(biases), np.asarray(whole.biases))
