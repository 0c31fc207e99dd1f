"""NICO: animals or vehicles, each in its contexts (He, Shen and Cui, Pattern Recognition 2021)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from debias_zoo.dataset import Card
from debias_zoo.errors import ZooError
from debias_zoo.files import FileDataset, Listing

from .photographs import Row, held_out, images_in, training

CLASSES = {
    "animal": ("bear", "bird", "cat", "cow", "dog", "elephant", "horse", "monkey", "rat", "sheep"),
    "vehicle": ("airplane", "bicycle", "boat", "bus", "car", "helicopter", "motorcycle", "train", "truck"),
}
MOST_CONTEXTS = 10

EVERY = 5
"""Every fifth image of a class in a context is for the test."""

UNSEEN = 2
"""Contexts of a class that are in no training image: those with the fewest images."""


class NICO(FileDataset):
    """Ten animals or nine vehicles, each in nine or ten contexts such as "in water" or "at night".

    NICO has no official biased split; papers made their own. Here: a class is tied to the context of most of its
    images; of its other contexts a share ``others`` is in training, but for the two with the fewest images, which are
    the split ``unseen``. Every fifth image of all other (class, context) pairs is the test, every tenth training image
    of a group is ``val``. Contexts differ from class to class, so a bias label is the context's place in its class:
    with the label it names the context, alone it says how frequent the context is.
    """

    name = "nico"
    version = 1
    title = "NICO: each kind of animal or vehicle mostly in one context in training"
    bias_attribute = "context"

    class Params(FileDataset.Params):
        """What can be chosen on the command line, as in ``nico:part=vehicle,others=0.05``."""

        part: Literal["animal", "vehicle"] = Field("animal", description="which of NICO's two halves")
        others: float = Field(0.2, ge=0, le=1, description="share of the images in other contexts that is trained on")

    @property
    def card(self) -> Card:
        """The data card; the bias is the context's place among those of its class, by the number of images."""
        size = self.params.size
        classes = CLASSES[self.params.part]
        return Card(
            title=self.title,
            about="Nearly 25,000 images of 19 classes in 188 contexts, two halves.",
            citation="He, Shen and Cui. Towards Non-I.I.D. Image Classification: A Dataset and Baselines. Pattern "
            "Recognition 2021, arXiv:1906.02899.",
            url="https://nico.thumedialab.com",
            licence="not stated",
            origin="the authors' archive",
            classes=classes,
            biases=tuple(f"context {k}" for k in range(1, MOST_CONTEXTS + 1)),
            aligned=((0,),) * len(classes),
            image_shape=(3, size, size),
            backbone="resnet18",
            normalize="imagenet",
            training=training(10),
            eval_splits=("val", "test", "unseen"),
            test_splits=("test", "unseen"),
            folder="NICO",
            get="Ask for the archive on its page and unpack it: NICO/Animal/dog/on grass/..., NICO/Vehicle/...",
        )

    def listings(self, root: Path | None) -> dict[str, Listing]:
        """Class by class; contexts by the number of their images, the largest first."""
        folder = self.folder(root) / self.params.part.capitalize()
        train: list[Row] = []
        test: list[Row] = []
        unseen: list[Row] = []
        for label, name in enumerate(CLASSES[self.params.part]):
            for place, files in enumerate(contexts := contexts_of(folder / name)):
                rows = [(file, label, place) for file in files]
                if place >= max(1, len(contexts) - UNSEEN):
                    unseen += rows
                    continue
                test += rows[::EVERY]
                left = [row for k, row in enumerate(rows) if k % EVERY]
                train += left if place == 0 else left[: round(self.params.others * len(left))]
        kept, val = held_out(train)
        found = {"train": kept, "val": val, "test": test, "unseen": unseen}
        return {split: Listing.of(rows) for split, rows in found.items()}


def contexts_of(folder: Path) -> list[list[Path]]:
    """The files of each context of a class, the largest context first."""
    found = [images_in(inner) for inner in sorted(folder.glob("*")) if inner.is_dir()]
    if not 2 <= len(found) <= MOST_CONTEXTS:
        raise ZooError(f"nico: {folder} has {len(found)} contexts; there should be 2 to {MOST_CONTEXTS}")
    return sorted(found, key=lambda files: -len(files))
