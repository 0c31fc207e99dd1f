from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from scipy.stats import kstest, truncnorm

from debias_zoo.dataset import IGNORED, Split
from debias_zoo.datasets.cmnist import COLOURS, MNIST, MNIST_SHA256, ColoredMNIST, colour_bins, draw_colours, paint
from debias_zoo.errors import ZooError

MEANS = np.array(list(COLOURS.values()))


@pytest.fixture(scope="module")
def splits() -> dict[str, Split]:
    data = ColoredMNIST()
    return {name: data.load(None, name) for name in ("train", "val", "val_unbiased", "test")}


def flat_colours(images: np.ndarray) -> np.ndarray:
    """(N, 3): the largest value of each channel, which is the digit's colour."""
    return images.max((1, 2))


def test_bundled_digits_are_the_original_ones() -> None:
    assert hashlib.sha256(MNIST.read_bytes()).hexdigest() == MNIST_SHA256
    with np.load(MNIST, allow_pickle=False) as file:
        assert file["train_images"].shape == (60_000, 28, 28)
        assert file["test_images"].shape == (10_000, 28, 28)
        assert file["train_labels"][:5].tolist() == [5, 0, 4, 1, 9]
        # the md5 of the original idx files, remade from their format: magic number, sizes, bytes
        idx = b"\x00\x00\x08\x03" + np.array([10_000, 28, 28], ">i4").tobytes() + file["test_images"].tobytes()
        labels = (
            b"\x00\x00\x08\x01" + np.array([60_000], ">i4").tobytes() + file["train_labels"].astype(np.uint8).tobytes()
        )
    assert hashlib.md5(idx).hexdigest() == "2646ac647ad5339dbf082846283269ea"
    assert hashlib.md5(labels).hexdigest() == "a25bea736e30d166cdddb491f175f624"


def test_sizes_and_groups(splits: dict[str, Split]) -> None:
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 54_000,
        "val": 6_000,
        "val_unbiased": 6_000,
        "test": 10_000,
    }
    for name, split in splits.items():
        counts = split.group_counts(10, 10)
        assert counts is not None
        if name in ("train", "val"):
            assert counts.trace() == len(split), "a biased split has a conflicting image"
        else:
            share = counts / counts.sum(1, keepdims=True)
            assert (counts > 0).all()
            assert 0.05 < share.min() < share.max() < 0.16


def test_no_digit_is_in_two_splits(splits: dict[str, Split]) -> None:
    masks = {
        name: [hashlib.sha1(np.packbits(image)).digest() for image in split.images.any(3)]
        for name, split in splits.items()
    }
    with np.load(MNIST) as file:
        train = [hashlib.sha1(np.packbits(image > 128)).digest() for image in file["train_images"]]
    assert sorted(masks["train"] + masks["val"]) == sorted(train), "train and val are not a partition of the digits"
    assert masks["val"] == masks["val_unbiased"]


def test_one_flat_colour_on_the_thresholded_digit(splits: dict[str, Split]) -> None:
    split = splits["test"]
    with np.load(MNIST) as file:
        mask = file["test_images"] > 128
    expected = mask[..., None] * flat_colours(split.images)[:, None, None, :]
    assert np.array_equal(split.images, expected)


def test_colours_follow_a_truncated_normal() -> None:
    biases = np.repeat(np.arange(10), 4000)
    drawn = draw_colours(biases, 0.02, np.random.default_rng(0))
    assert drawn.max() < 255
    for bias, channel in ((0, 0), (1, 0), (2, 1), (5, 2), (9, 0)):
        mean = MEANS[bias, channel] / 255
        law = truncnorm((0 - mean) / 0.02**0.5, (1 - mean) / 0.02**0.5, mean, 0.02**0.5)
        values = (
            drawn[biases == bias, channel] + np.random.default_rng(1).random(4000)
        ) / 255  # int() took up to 1 off
        assert kstest(values, law.cdf).pvalue > 1e-3, (bias, channel)
    clipped = np.clip(np.random.default_rng(2).normal(MEANS[9, 1] / 255, 0.02**0.5, 4000), 0, 1)
    assert (drawn[biases == 9, 1] == 0).mean() < 0.05 < (clipped == 0).mean(), "colours pile up at 0 as if clipped"


def test_colour_depends_on_the_label_in_training_alone(splits: dict[str, Split]) -> None:
    for name in ("train", "val"):
        colours = flat_colours(splits[name].images)
        for digit in range(10):
            law = truncnorm(*((np.array([0, 1]) - MEANS[digit, 1] / 255) / 0.02**0.5), MEANS[digit, 1] / 255, 0.02**0.5)
            assert abs(colours[splits[name].labels == digit, 1].mean() / 255 - law.mean()) < 0.02
    test = splits["test"]
    assert np.corrcoef(test.labels, test.biases)[0, 1] == pytest.approx(0, abs=0.04)  # type: ignore[arg-type]


def test_dense_labels_are_pillows_nearest_pixels_in_eight_bins(splits: dict[str, Split]) -> None:
    train = splits["train"]
    assert train.bias_map is not None
    assert train.bias_map.shape == (54_000, 3, 14, 14)
    for row in range(0, 200, 10):
        small = np.asarray(Image.fromarray(train.images[row]).resize((14, 14), Image.Resampling.NEAREST))
        expected = np.where(small == 0, IGNORED, small // 32).transpose(2, 0, 1)
        assert np.array_equal(train.bias_map[row], expected)
    assert splits["test"].bias_map is None
    assert set(np.unique(train.bias_map)) == {*range(8), IGNORED}


def test_a_channel_without_colour_is_ignored_on_its_own() -> None:
    digits = np.full((1, 28, 28), 200, np.uint8)
    bins = colour_bins(paint(digits, np.array([[0, 31, 32]], np.uint8)))
    assert bins[0, :, 0, 0].tolist() == [IGNORED, 0, 1]


def test_same_parameters_same_data_other_parameters_other_data(splits: dict[str, Split]) -> None:
    again = ColoredMNIST(ColoredMNIST.Params(variance=0.02)).load(None, "train")
    assert np.array_equal(again.images, splits["train"].images)
    other = ColoredMNIST(ColoredMNIST.Params(data_seed=1)).load(None, "train")
    assert not np.array_equal(other.labels, splits["train"].labels)
    wider = ColoredMNIST(ColoredMNIST.Params(variance=0.05)).load(None, "train")
    spread = [flat_colours(split.images)[split.labels == 4].std(0) for split in (splits["train"], wider)]
    assert (spread[0] < spread[1]).all()


def test_papers_train_on_everything() -> None:
    data = ColoredMNIST(ColoredMNIST.Params(val=0))
    assert len(data.load(None, "train")) == 60_000
    assert data.card.eval_splits == ("test",)
    with pytest.raises(ZooError, match="unknown split of cmnist 'val'"):
        data.load(None, "val")


@pytest.mark.parametrize("variance", [0.01, 0.06, -1.0])
def test_variance_out_of_range(variance: float) -> None:
    with pytest.raises(ValidationError):
        ColoredMNIST.Params(variance=variance)
