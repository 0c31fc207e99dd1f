"""Waterbirds: birds cut out and pasted on water or land (Sagawa et al., ICLR 2020)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from debias_zoo.dataset import Card, Source
from debias_zoo.decode import Step
from debias_zoo.files import FileDataset, Listing, integers, read_table

from .photographs import training

FOLDER = "waterbird_complete95_forest2water2"
SPLITS = {"train": "0", "val": "1", "test": "2"}


class Waterbirds(FileDataset):
    """Waterbirds and landbirds; 95 % of the training images show a bird before its own background.

    Validation and test show both backgrounds equally often within a class. As published, the average accuracy weighs
    groups like the training split; here it is the plain average of the test, and worst group is as published.
    """

    name = "waterbirds"
    version = 1
    title = "Waterbirds: the background tells the bird in 95 % of the training images"
    bias_attribute = "background"

    @property
    def card(self) -> Card:
        """The data card."""
        size = self.params.size
        return Card(
            title=self.title,
            about="4,795 training, 1,199 validation and 5,794 test images; groups of the training split: landbird on "
            "land 3,498, landbird on water 184, waterbird on land 56, waterbird on water 1,057.",
            citation="Sagawa, Koh, Hashimoto and Liang. Distributionally Robust Neural Networks for Group Shifts. "
            "ICLR 2020, arXiv:1911.08731; birds: CUB-200-2011, backgrounds: Places.",
            url="https://github.com/kohpangwei/group_DRO",
            licence="non-commercial research and education",
            origin="the authors' archive",
            classes=("landbird", "waterbird"),
            biases=("land", "water"),
            aligned=((0,), (1,)),
            image_shape=(3, size, size),
            backbone="resnet18",
            normalize="imagenet",
            training=training(50, weight_decay=1e-4),
            eval_splits=("val", "test"),
            folder=FOLDER,
            size="500 MB",
            sources=(
                Source(
                    file=f"{FOLDER}.tar.gz",
                    urls=(f"https://nlp.stanford.edu/data/dro/{FOLDER}.tar.gz",),
                    strip=1,
                    marker="metadata.csv",
                ),
            ),
            counts={
                "train": ((3498, 184), (56, 1057)),
                "val": ((467, 466), (133, 133)),
                "test": ((2255, 2255), (642, 642)),
            },
            get=f"Unpack https://nlp.stanford.edu/data/dro/{FOLDER}.tar.gz below --data-root.",
        )

    @property
    def steps(self) -> tuple[Step, ...]:
        """As the authors' evaluation: to a square of 256/224 of the size, of which the middle is cut out."""
        size: int = self.params.size
        return (("squash", round(size * 256 / 224)), ("centre", size))

    def listings(self, root: Path | None) -> dict[str, Listing]:
        """The rows of ``metadata.csv``, in their order."""
        folder = self.folder(root)
        csv = folder / "metadata.csv"
        table = read_table(csv, ("img_filename", "y", "split", "place"))
        files = [folder / name for name in table["img_filename"]]
        whole = Listing(files, integers(table, "y", csv), integers(table, "place", csv))
        return {name: whole.at(np.flatnonzero(table["split"] == code)) for name, code in SPLITS.items()}
