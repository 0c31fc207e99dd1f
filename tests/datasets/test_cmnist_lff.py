from __future__ import annotations

import hashlib

import numpy as np
import pytest
from pydantic import ValidationError

from debias_zoo.dataset import Split
from debias_zoo.datasets.cmnist_lff import COLOURS, STD, ColoredMNISTLfF, assign_colours, draw_colours, paint
from debias_zoo.datasets.mnist import MNIST
from debias_zoo.errors import ZooError
from debias_zoo.grid import Request, build_grid

MEANS = np.array(list(COLOURS.values()))


@pytest.fixture(scope="module")
def splits() -> dict[str, Split]:
    data = ColoredMNISTLfF()
    return {name: data.load(None, name) for name in ("train", "val", "val_unbiased", "test")}


def load(split: str, **params: float) -> Split:
    return ColoredMNISTLfF(ColoredMNISTLfF.Params.model_validate(params)).load(None, split)


def conflicting(split: Split) -> tuple[int, int, int]:
    """How many images are bias-conflicting, and the smallest and largest of the 90 conflicting groups."""
    counts = split.group_counts(10, 10)
    assert counts is not None
    off = counts[~np.eye(10, dtype=bool)]
    return int(off.sum()), int(off.min()), int(off.max())


def digests(images: np.ndarray) -> list[bytes]:
    """One an image."""
    return [hashlib.sha1(np.ascontiguousarray(image)).digest() for image in images]


@pytest.mark.parametrize(("conflict", "count"), [(0.05, 3000), (0.02, 1199), (0.01, 598), (0.005, 300)])
def test_the_papers_counts_of_conflicting_images(conflict: float, count: int) -> None:
    train = load("train", conflict=conflict, val=0)
    found, smallest, largest = conflicting(train)
    assert (len(train), found) == (60_000, count)
    assert largest - smallest <= 1 + 60_000 * conflict / 90 * 0.3, "classes differ in size by a quarter"


def slow_colours(labels: np.ndarray, conflict: float) -> list[int]:
    """Image by image, as the authors say it: a colour is done when its rounded cumulative share of the class is."""
    found, seen = [], [0] * 10
    for label in labels:
        size = int((labels == label).sum())
        done, colour = 0.0, 0
        for colour in range(10):
            done += 1 - conflict if colour == label else conflict / 9
            if seen[label] < round(size * done):
                break
        found.append(colour)
        seen[label] += 1
    return found


@pytest.mark.parametrize("conflict", [0.0, 0.005, 0.05, 0.5, 0.9])
def test_colours_go_to_the_digits_of_a_class_in_order(conflict: float) -> None:
    labels = np.random.default_rng(0).integers(0, 10, 3000)
    assert assign_colours(labels, conflict).tolist() == slow_colours(labels, conflict)


def test_sizes_and_groups(splits: dict[str, Split]) -> None:
    sizes = {name: len(split) for name, split in splits.items()}
    assert sizes == {"train": 54_000, "val": 6_000, "val_unbiased": 6_000, "test": 10_000}
    for name in ("train", "val"):
        found, smallest, largest = conflicting(splits[name])
        assert found == pytest.approx(0.01 * len(splits[name]), abs=5)
        assert largest - smallest <= 2
    for name in ("val_unbiased", "test"):
        counts = splits[name].group_counts(10, 10)
        assert counts is not None
        assert (np.ptp(counts, axis=1) <= 1).all(), "colours are not equally frequent in a class"


def test_no_digit_is_in_two_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    white = np.ones(3, np.float32)
    monkeypatch.setattr(
        "debias_zoo.datasets.cmnist_lff.draw_colours", lambda biases, *noise: np.tile(white, (len(biases), 1))
    )
    found = {name: digests(load(name).images[..., 0]) for name in ("train", "val", "val_unbiased", "test")}
    with np.load(MNIST) as file:
        train, test = (digests(file[f"{part}_images"]) for part in ("train", "test"))
    assert found["val"] == found["val_unbiased"]
    assert sorted(found["train"] + found["val"]) == sorted(train), "train and val are not a partition of the digits"
    assert sorted(found["test"]) == sorted(test)


def test_the_image_is_grey_times_one_colour(splits: dict[str, Split]) -> None:
    """Every pixel lies on the line from black to the image's brightest pixel, up to rounding down."""
    for split in splits.values():
        images = split.images[:500].astype(np.int64).reshape(500, -1, 3)
        sums = images.sum(2)
        brightest = images[np.arange(500), sums.argmax(1)]  # (500, 3)
        share = sums / brightest.sum(1)[:, None]
        assert np.abs(images - share[..., None] * brightest[:, None]).max() < 3
        assert len(np.unique(sums)) > 200, "no shades of grey are left"


@pytest.mark.parametrize("severity", [1, 4])
def test_colours_lie_within_the_noise(severity: int) -> None:
    split = load("test", severity=severity)
    peak = split.images.max((1, 2)).astype(float)  # (N, 3): the colour, where a pixel is white
    with np.load(MNIST) as file:
        white = np.sort(file["test_images"].max((1, 2)))
    assert white[len(white) // 10] >= 254, "nearly all digits have a white pixel"
    std = 255 * STD[severity - 1]
    for bias in range(10):
        off = np.median(peak[split.biases == bias], 0) - (np.clip(MEANS[bias], 0, 255) - 0.5)
        assert np.abs(off).max() < 0.6 + 0.2 * std
    middle = peak[split.biases == 2, 1]  # far from 0 and 255
    assert np.percentile(middle, [16, 84]) == pytest.approx(MEANS[2, 1] + std * np.array([-1, 1]), abs=0.7 + 0.2 * std)


def test_channels_have_their_own_clipped_noise() -> None:
    drawn = 255 * draw_colours(np.full(20_000, 6), 0.05, np.random.default_rng(0))  # mean red 6.3, std 12.75
    assert drawn.dtype == np.float32
    assert (drawn[:, 0] == 0).mean() == pytest.approx(0.31, abs=0.02)
    assert drawn[:, 1:].std(0) == pytest.approx(np.array([12.75, 12.75]), rel=0.03)
    assert abs(np.corrcoef(drawn.T)[0, 1:]).max() < 0.03


def test_painting_rounds_down() -> None:
    digits = np.array([[[0, 100], [200, 255]]], np.uint8)
    painted = paint(digits, np.array([[1.0, 0.5, 0.009]], np.float32))
    assert painted.reshape(4, 3).tolist() == [[0, 0, 0], [100, 50, 0], [200, 100, 1], [255, 127, 2]]


def test_the_first_images_stand_for_all(splits: dict[str, Split]) -> None:
    counts = splits["test"].head(1000).group_counts(10, 10)
    assert counts is not None
    assert counts.sum(0).min() > 60
    assert 8 <= conflicting(splits["train"].head(2048))[0] <= 34


def test_same_parameters_same_data_other_parameters_other_data(splits: dict[str, Split]) -> None:
    again = load("train", conflict=0.01)
    assert np.array_equal(again.images, splits["train"].images)
    assert np.array_equal(again.biases, splits["train"].biases)  # type: ignore[arg-type]
    assert not np.array_equal(load("train", data_seed=1).labels, again.labels)
    more = load("train", conflict=0.05)
    assert np.array_equal(more.labels, again.labels)
    assert conflicting(more)[0] > 4 * conflicting(again)[0]


def test_papers_train_on_everything() -> None:
    data = ColoredMNISTLfF(ColoredMNISTLfF.Params(val=0))
    assert data.card.eval_splits == ("test",)
    with pytest.raises(ZooError, match="unknown split of cmnist-lff 'val'"):
        data.load(None, "val")


@pytest.mark.parametrize(
    "params", [{"conflict": -0.01}, {"conflict": 0.95}, {"severity": 0}, {"severity": 6}, {"val": -1}, {"skew": 0.01}]
)
def test_parameters_out_of_range(params: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ColoredMNISTLfF.Params.model_validate(params)


@pytest.mark.parametrize("protocol", ["quick", "standard"])
def test_its_card_is_enough_to_run_on(protocol: str) -> None:
    request = Request(["erm"], ["cmnist-lff:conflict=0.005,0.01"], protocol=protocol)
    trials = list(build_grid(request).trials.values())
    assert [trial.params["conflict"] for trial in trials] == [0.005, 0.01]
    assert {(trial.backbone, trial.normalize) for trial in trials} == {("mlp", "none")}
