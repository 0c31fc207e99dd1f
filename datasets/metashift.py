"""MetaShift's cats and dogs, indoor and outdoor (Liang and Zou, ICLR 2022)."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from debias_zoo.dataset import Card
from debias_zoo.files import FileDataset, Listing

from .photographs import Row, held_out, images_in, training

ANIMALS, PLACES = ("cat", "dog"), ("indoor", "outdoor")


class MetaShift(FileDataset):
    """Photographs of cats and dogs; in training most cats are indoor and most dogs outdoor.

    Read from the unmixed folders that MetaShift's script writes, ``train/cat/cat(indoor)`` and so on. Of the
    conflicting training images, cats outdoor and dogs indoor, ``minority`` each are used, by name; the test is the
    folder ``test``. Every tenth training image of a group is ``val``.
    """

    name = "metashift"
    version = 1
    title = "MetaShift: cats mostly indoor, dogs mostly outdoor in training"
    bias_attribute = "place"

    class Params(FileDataset.Params):
        """What can be chosen on the command line, as in ``metashift:minority=50``."""

        minority: int = Field(100, ge=0, description="training images in each conflicting group; authors: 10 to 150")

    @property
    def card(self) -> Card:
        """The data card."""
        size = self.params.size
        return Card(
            title=self.title,
            about="Cats and dogs of Visual Genome by where they are.",
            citation="Liang and Zou. MetaShift: A Dataset of Datasets for Evaluating Contextual Distribution Shifts. "
            "ICLR 2022, arXiv:2202.06523.",
            url="https://github.com/Weixin-Liang/MetaShift",
            licence="code MIT; images Visual Genome and GQA, CC BY 4.0",
            origin="Visual Genome, sorted by the authors' script",
            classes=ANIMALS,
            biases=PLACES,
            aligned=((0,), (1,)),
            image_shape=(3, size, size),
            backbone="resnet18",
            normalize="imagenet",
            training=training(20),
            eval_splits=("val", "test"),
            folder="MetaShift-Cat-Dog-indoor-outdoor",
            get="Fetch GQA's images (about 20 GB) and run the subpopulation-shift script of its page; it writes "
            "MetaShift-Cat-Dog-indoor-outdoor/{train,test}/cat/cat(indoor)/ and so on.",
        )

    def listings(self, root: Path | None) -> dict[str, Listing]:
        """Group by group, files by name."""
        folder = self.folder(root)
        rows: dict[str, list[Row]] = {"train": [], "test": []}
        for part, found in rows.items():
            for label, animal in enumerate(ANIMALS):
                for bias, place in enumerate(PLACES):
                    files = images_in(folder / part / animal / f"{animal}({place})")
                    if part == "train" and label != bias:
                        files = files[: self.params.minority]
                    found += [(file, label, bias) for file in files]
        kept, val = held_out(rows["train"])
        return {"train": Listing.of(kept), "val": Listing.of(val), "test": Listing.of(rows["test"])}
