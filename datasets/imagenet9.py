"""Nine classes of ImageNet with texture clusters and ImageNet-A, as in ReBias (Bahng et al., ICML 2020)."""

from __future__ import annotations

from importlib.resources import files as package_files
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from debias_zoo.dataset import Card, Source
from debias_zoo.decode import Step
from debias_zoo.files import FileDataset, Listing, integers, read_table

from .photographs import images_in, training

KINDS: dict[str, tuple[int, ...]] = {
    "dog": (151, 207, 234, 235, 254),
    "cat": (281, 282, 283, 284, 285),
    "frog": (30, 31, 32),
    "turtle": (33, 34, 35, 36, 37),
    "bird": (89, 90, 94, 96, 97),
    "monkey": (372, 373, 374, 375, 378),
    "fish": (393, 394, 395, 396, 397),
    "crab": (118, 119, 120, 121),
    "insect": (306, 307, 308, 309, 310),
}
"""Which of ImageNet's 1,000 classes make up each of the nine: 42."""

CLUSTERS = 9
TABLE = "9class_imagenet_val.csv"


class ImageNet9(FileDataset):
    """42 of ImageNet's classes, in nine kinds of animals.

    The bias label of a validation image is the cluster of its texture, in one of the authors' three clusterings
    (``clustering``); the paper's unbiased accuracy is the mean of the three. Training images have none, and every
    hundredth is ``val``. The test is ImageNet's validation split as the authors list it, a further one is
    ``imagenet-a``.

    Differs from the paper: a cluster is called aligned with no class, since none is by itself.
    """

    name = "imagenet9"
    version = 1
    title = "9-class ImageNet (ReBias): textures that go with the class, and ImageNet-A"
    bias_attribute = "texture cluster"

    class Params(FileDataset.Params):
        """What can be chosen on the command line, as in ``imagenet9:clustering=2``."""

        clustering: Literal["1", "2", "3"] = Field("1", description="which of the authors' texture clusterings")

    @property
    def card(self) -> Card:
        """The data card."""
        size = self.params.size
        return Card(
            title=self.title,
            about="42 of ImageNet's classes in nine kinds; 2,100 validation images.",
            citation="Bahng, Chun, Yun, Choo and Oh. Learning De-biased Representations with Biased Representations. "
            "ICML 2020, arXiv:1910.02806; images: Russakovsky et al., ImageNet; Hendrycks et al., ImageNet-A.",
            url="https://github.com/clovaai/rebias",
            licence="ImageNet's terms: non-commercial research",
            origin="ImageNet (ILSVRC 2012), ImageNet-A, the authors' clusters",
            classes=tuple(KINDS),
            biases=tuple(f"cluster {k}" for k in range(CLUSTERS)),
            aligned=((),) * len(KINDS),
            image_shape=(3, size, size),
            backbone="resnet18",
            normalize="imagenet",
            training=training(10, batch_size=128),
            eval_splits=("val", "test", "imagenet-a"),
            test_splits=("test", "imagenet-a"),
            folder="imagenet",
            get="After agreeing to ImageNet's terms (https://image-net.org) lay it out as imagenet/train/n02085620/... "
            "and imagenet/val/n02085620/..., unpack https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar there "
            f"as imagenet-a/, and put clusters/{TABLE} of https://github.com/clovaai/rebias there.",
            sources=(
                Source(
                    file="imagenet-a.tar",
                    urls=("https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar",),
                    marker="imagenet-a",
                ),
            ),
        )

    @property
    def steps(self) -> tuple[Step, ...]:
        """As the authors' evaluation: the shorter side to 256/224 of the size, of which the middle is cut out."""
        size: int = self.params.size
        return (("short", round(size * 256 / 224)), ("centre", size))

    def listings(self, root: Path | None) -> dict[str, Listing]:
        """Class by class; the test as the authors' table lists it."""
        folder = self.folder(root)
        kinds = wnids()
        train: list[tuple[Path, int]] = []
        hard: list[tuple[Path, int]] = []
        for wnid, label in kinds.items():
            train += [(file, label) for file in images_in(folder / "train" / wnid)]
            if (inner := folder / "imagenet-a" / wnid).is_dir():  # it has half of them
                hard += [(file, label) for file in images_in(inner)]
        csv = folder / TABLE
        table = read_table(csv, ("path", "category", f"cluster{self.params.clustering}"))
        paths = [folder / "val" / Path(path).parent.name / Path(path).name for path in table["path"]]
        labels = np.array([kinds.get(path.parent.name, -1) for path in paths], np.int64)
        test = Listing(paths, labels, integers(table, f"cluster{self.params.clustering}", csv))
        return {
            "train": _unbiased([row for k, row in enumerate(train) if k % 100]),
            "val": _unbiased(train[::100]),
            "test": test,
            "imagenet-a": _unbiased(hard),
        }


def wnids() -> dict[str, int]:
    """WordNet id -> class, of the 42 ImageNet classes; timm ships ImageNet's list."""
    every = (package_files("timm") / "data" / "_info" / "imagenet_synsets.txt").read_text().split()
    return {every[index]: label for label, indices in enumerate(KINDS.values()) for index in indices}


def _unbiased(rows: list[tuple[Path, int]]) -> Listing:
    return Listing([file for file, _ in rows], np.array([label for _, label in rows], np.int64))
