"""Dogs and Cats with bright or dark fur, the real images of Learning Not to Learn (Kim et al., CVPR 2019)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from debias_zoo.dataset import Card
from debias_zoo.files import FileDataset, Listing, read_lines

from .photographs import HELD_OUT, training

CAT, DOG = 0, 1
BRIGHT, DARK = 0, 1
LISTS = {BRIGHT: "list_bright.txt", DARK: "list_dark.txt"}

LISTED = {(CAT, BRIGHT): 3086, (DOG, BRIGHT): 5299, (CAT, DARK): 4748, (DOG, DARK): 3652}
"""Names in the two lists, by class."""

TRAINING_BIAS = {"tb1": {CAT: DARK, DOG: BRIGHT}, "tb2": {CAT: BRIGHT, DOG: DARK}}
"""The fur of each class in the training set TB1, TB2; the other set is the test."""


class DogsCats(FileDataset):
    """Train on dark cats and bright dogs (TB1), test on bright cats and dark dogs (TB2), or the other way round.

    Every training image of a class has one bias, and every test image the other one: bias-conflicting accuracy is the
    test accuracy. A tenth of the training images, every tenth of a class, is held out as ``val``. One dog is in both
    lists: dog.2027.jpg and dog.3082.jpg are the same picture.
    """

    name = "dogs-cats"
    version = 1
    title = "Dogs and Cats (LNL): in training the fur's brightness tells the class"
    bias_attribute = "fur"

    class Params(FileDataset.Params):
        """What can be chosen on the command line, as in ``dogs-cats:train=tb2,size=64``."""

        train: Literal["tb1", "tb2"] = Field("tb1", description="tb1: dark cats and bright dogs; tb2: the opposite")

    @property
    def card(self) -> Card:
        """The data card; what is aligned is what the training set shows."""
        size, fur = self.params.size, TRAINING_BIAS[self.params.train]
        return Card(
            title=self.title,
            about="16,785 of Kaggle's images in two lists, by the fur's brightness; TB1 holds 10,047, TB2 6,738.",
            citation="Kim, Kim, Kim, Kim and Kim. Learning Not to Learn. CVPR 2019, arXiv:1812.10352.",
            url="https://github.com/feidfoe/learning-not-to-learn",
            licence="not stated (Kaggle, Dogs vs. Cats; Asirra, Petfinder)",
            origin="Kaggle's Dogs vs. Cats; the authors' lists",
            classes=("cat", "dog"),
            biases=("bright", "dark"),
            aligned=((fur[CAT],), (fur[DOG],)),
            image_shape=(3, size, size),
            backbone="resnet18",
            normalize="imagenet",
            training=training(4, crop=False),
            eval_splits=("val", "test"),
            folder="dogs_cats",
            counts=self._counts(),
            copies={"test": 1},
            get="Take train.zip of https://www.kaggle.com/c/dogs-vs-cats (an account is needed), unpack it as "
            "dogs_cats/train/cat.0.jpg ..., and put list_bright.txt and list_dark.txt of "
            "https://github.com/feidfoe/learning-not-to-learn (dataset/dogs_and_cats) into dogs_cats/.",
        )

    def _counts(self) -> dict[str, tuple[tuple[int, ...], ...]]:
        """As published, a tenth of each class held out."""
        fur = TRAINING_BIAS[self.params.train]
        found = {split: np.zeros((2, 2), np.int64) for split in ("train", "val", "test")}
        for (label, bias), count in LISTED.items():
            held_out = -(-count // HELD_OUT) if bias == fur[label] else 0
            found["val"][label, bias] = held_out
            found["train" if held_out else "test"][label, bias] = count - held_out
        return {split: tuple(map(tuple, counts.tolist())) for split, counts in found.items()}

    def listings(self, root: Path | None) -> dict[str, Listing]:
        """Cats and dogs in the order of the lists."""
        folder, fur = self.folder(root), TRAINING_BIAS[self.params.train]
        lists = {bias: read_lines(folder / name) for bias, name in LISTS.items()}
        rows: dict[str, list[tuple[Path, int, int]]] = {"train": [], "val": [], "test": []}
        for label, kind in ((CAT, "cat"), (DOG, "dog")):
            for bias, names in lists.items():
                own = [(folder / "train" / name, label, bias) for name in names if name.startswith(kind)]
                if bias == fur[label]:
                    rows["val"] += own[::HELD_OUT]
                    rows["train"] += [row for k, row in enumerate(own) if k % HELD_OUT]
                else:
                    rows["test"] += own
        return {split: Listing.of(found) for split, found in rows.items()}
