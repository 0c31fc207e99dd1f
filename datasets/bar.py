"""BAR: Biased Action Recognition, six actions each in one kind of place (Nam et al., NeurIPS 2020)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from debias_zoo.dataset import Card, Source
from debias_zoo.files import FileDataset, Listing

from .photographs import HELD_OUT, training

PLACES = {
    "climbing": "rock wall",
    "diving": "underwater",
    "fishing": "water surface",
    "pole vaulting": "sky",
    "racing": "paved track",
    "throwing": "playing field",
}
"""The place that an action is tied to in training."""

TRAIN = (326, 520, 163, 279, 336, 317)
TEST = (105, 159, 42, 131, 132, 85)
"""Images of the actions in the official split."""


class BAR(FileDataset):
    """Six actions; in training each is in its typical place, in the test in others.

    No image has a bias label of its own. Every training image is taken to show its action's typical place, so its bias
    label is its class; every test image shows another one, which nobody has written down, so the accuracy of the test
    is that on bias-conflicting images. Every tenth training image of a class is held out as ``val``; the official
    split has none.
    """

    name = "bar"
    version = 1
    title = "BAR: six actions, in training each in its typical place"
    bias_attribute = "place"

    @property
    def card(self) -> Card:
        """The data card."""
        size = self.params.size
        return Card(
            title=self.title,
            about="1,941 training and 654 test images; rock walls behind climbers, water round divers, and so on.",
            citation="Nam, Cha, Ahn, Lee and Shin. Learning from Failure. NeurIPS 2020, arXiv:2007.02561.",
            url="https://github.com/alinlab/BAR",
            licence="per image, in metadata.json",
            origin="the authors' archive",
            classes=tuple(PLACES),
            biases=tuple(PLACES.values()),
            aligned=tuple((k,) for k in range(len(PLACES))),
            image_shape=(3, size, size),
            backbone="resnet18",
            normalize="imagenet",
            training=training(12),
            eval_splits=("val", "test"),
            folder="bar",
            sources=(
                Source(
                    file="BAR.zip",
                    urls=("https://github.com/alinlab/BAR/archive/refs/heads/master.zip",),
                    strip=1,
                    marker="train",
                ),
            ),
            counts={"train": _diagonal(TRAIN, False), "val": _diagonal(TRAIN, True), "test": tuple((n,) for n in TEST)},
            get="Clone https://github.com/alinlab/BAR and put its train/ and test/ into bar/.",
        )

    def listings(self, root: Path | None) -> dict[str, Listing]:
        """By class, then by number: ``train/climbing_0.jpg``; a class's name may have a space."""
        folder = self.folder(root)
        rows: dict[str, list[tuple[Path, int]]] = {"train": [], "val": [], "test": []}
        for label, action in enumerate(PLACES):
            for part in ("train", "test"):
                for k, file in enumerate(sorted((folder / part).glob(f"{action}_*"), key=_number)):
                    held_out = part == "train" and k % HELD_OUT == 0
                    rows["val" if held_out else part].append((file, label))
        found: dict[str, Listing] = {}
        for split, files in rows.items():
            labels = np.array([label for _, label in files], np.int64)
            found[split] = Listing([file for file, _ in files], labels, None if split == "test" else labels)
        return found


def _diagonal(counts: tuple[int, ...], held_out: bool) -> tuple[tuple[int, ...], ...]:
    kept = [-(-n // HELD_OUT) if held_out else n - -(-n // HELD_OUT) for n in counts]
    return tuple(map(tuple, np.diag(kept).tolist()))


def _number(file: Path) -> tuple[int, str]:
    number = file.stem.rpartition("_")[2]
    return (int(number) if number.isdecimal() else -1, file.name)
