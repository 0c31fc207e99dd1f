"""ImageNet-9 of the Backgrounds Challenge (Xiao, Engstrom, Ilyas and Madry, ICLR 2021)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from debias_zoo.dataset import Card, Source
from debias_zoo.decode import Step
from debias_zoo.files import FileDataset, Listing

from .photographs import images_in, training

FOLDERS = (
    "00_dog",
    "01_bird",
    "02_wheeled vehicle",
    "03_reptile",
    "04_carnivore",
    "05_insect",
    "06_musical instrument",
    "07_primate",
    "08_fish",
)
VARIANTS = ("original", "mixed_same", "mixed_rand", "mixed_next", "only_fg", "no_fg", "only_bg_b", "only_bg_t")


class BackgroundsChallenge(FileDataset):
    """Nine classes of ImageNet, tested on eight variants of the same images with other backgrounds or none.

    There are no bias labels: the bias is told by the difference between two test splits, the paper's BG-gap being the
    accuracy on ``mixed_same`` less that on ``mixed_rand``. It trains on IN-9L. The split ``test`` is the variant
    ``original``.
    """

    name = "backgrounds-challenge"
    version = 1
    title = "ImageNet-9 (Backgrounds Challenge): backgrounds go with the class"
    bias_attribute = "background"

    @property
    def card(self) -> Card:
        """The data card."""
        size = self.params.size
        others = VARIANTS[1:]
        return Card(
            title=self.title,
            about="Nine classes; 450 images a class in each of eight variants of the test.",
            citation="Xiao, Engstrom, Ilyas and Madry. Noise or Signal: The Role of Image Backgrounds in Object "
            "Recognition. ICLR 2021, arXiv:2006.09994.",
            url="https://github.com/MadryLab/backgrounds_challenge",
            licence="ImageNet's terms: non-commercial research",
            origin="the authors' archives",
            classes=tuple(name[3:] for name in FOLDERS),
            biases=(),
            aligned=((),) * len(FOLDERS),
            image_shape=(3, size, size),
            backbone="resnet18",
            normalize="imagenet",
            training=training(10, batch_size=128),
            eval_splits=("val", "test", *others),
            test_splits=("test", *others),
            folder="backgrounds_challenge",
            get="backgrounds_challenge_data.tar.gz of the releases of its page is bg_challenge/ there; in9l/, "
            "with train/ and val/, is linked in its README (Dropbox).",
            sources=(
                Source(
                    file="backgrounds_challenge_data.tar.gz",
                    urls=(
                        "https://github.com/MadryLab/backgrounds_challenge/releases/download/data/"
                        "backgrounds_challenge_data.tar.gz",
                    ),
                    marker="bg_challenge",
                ),
            ),
        )

    @property
    def steps(self) -> tuple[Step, ...]:
        """The shorter side to the size, of which the middle is cut out."""
        return (("short", self.params.size), ("centre", self.params.size))

    def listings(self, root: Path | None) -> dict[str, Listing]:
        """Class by class, files by name."""
        folder = self.folder(root)
        found = {"train": _read(folder / "in9l" / "train"), "val": _read(folder / "in9l" / "val")}
        for variant in VARIANTS:
            found["test" if variant == "original" else variant] = _read(folder / "bg_challenge" / variant / "val")
        return found


def _read(folder: Path) -> Listing:
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(FOLDERS):
        own = images_in(folder / name)
        files += own
        labels += [label] * len(own)
    return Listing(files, np.array(labels, np.int64))
