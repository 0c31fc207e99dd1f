"""CelebA with any of its forty attributes as the label and any other as the bias (Liu et al., ICCV 2015)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from debias_zoo.dataset import Card
from debias_zoo.decode import Step
from debias_zoo.errors import ZooError, unknown
from debias_zoo.files import FileDataset, Listing, read_lines

from .photographs import training

COUNTS = {
    "train": ((71629, 66874), (22880, 1387)),
    "val": ((8535, 8276), (2874, 182)),
    "test": ((9767, 7535), (2480, 180)),
}
"""Images by blond hair and male, as several public copies count them."""

SPLITS = {"train": "0", "val": "1", "test": "2"}


class CelebA(FileDataset):
    """Faces; by default the label is blond hair and the bias is sex: 1,387 of 162,770 training images are blond men."""

    name = "celeba"
    version = 1
    title = "CelebA: an attribute that goes with another, by default blond hair and sex"
    bias_attribute = "another attribute"

    class Params(FileDataset.Params):
        """What can be chosen on the command line, as in ``celeba:label=Heavy_Makeup``."""

        label: str = Field("Blond_Hair", description="the attribute to learn, as list_attr_celeba.txt spells it")
        bias: str = Field("Male", description="the attribute that is the bias")
        aligned: Literal["opposite", "same"] = Field(
            "opposite", description="whether the label goes with the absence of the bias or with the bias"
        )

    @property
    def card(self) -> Card:
        """The data card; blond hair, for instance, goes with the absence of male."""
        size, label, bias = self.params.size, self.params.label, self.params.bias
        return Card(
            title=self.title,
            about="162,770 training, 19,867 validation and 19,962 test images in the official partition.",
            citation="Liu, Luo, Wang and Tang. Deep Learning Face Attributes in the Wild. ICCV 2015.",
            url="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
            licence="non-commercial research; no part may be copied, published or distributed",
            origin="the authors' archive, in torchvision's layout",
            classes=(f"not {label}", label),
            biases=(f"not {bias}", bias),
            aligned=((1,), (0,)) if self.params.aligned == "opposite" else ((0,), (1,)),
            image_shape=(3, size, size),
            backbone="resnet18",
            normalize="imagenet",
            training=training(10, batch_size=128, weight_decay=1e-4),
            eval_splits=("val", "test"),
            folder="celeba",
            size="1.3 GB",
            digests={
                "list_attr_celeba.txt": "md5:75e246fa4810816ffd6ee81facbd244c",
                "list_eval_partition.txt": "md5:d32c9cbf5e040fd4025c592c306e6668",
            },
            counts=COUNTS if (label, bias) == ("Blond_Hair", "Male") else {},
            get="After agreeing to the terms on its page, put img_align_celeba/ (unpacked), list_attr_celeba.txt "
            "and list_eval_partition.txt into celeba/; torchvision.datasets.CelebA(root, download=True) makes the same "
            "layout.",
        )

    @property
    def steps(self) -> tuple[Step, ...]:
        """As in Group-DRO's code: the middle 178 pixels, then scaled."""
        return (("centre", 178), ("squash", self.params.size))

    def listings(self, root: Path | None) -> dict[str, Listing]:
        """The rows of the attribute file, in their order."""
        folder = self.folder(root)
        names, values = attributes(folder / "list_attr_celeba.txt")
        for wanted in (self.params.label, self.params.bias):
            if wanted not in names:
                raise unknown("attribute of celeba", wanted, names)
        label, bias = names.index(self.params.label), names.index(self.params.bias)
        parts = dict(line.split()[:2] for line in read_lines(folder / "list_eval_partition.txt") if line.strip())
        rows: dict[str, list[tuple[Path, int, int]]] = {code: [] for code in SPLITS.values()}
        for file, row in values:
            found = (folder / "img_align_celeba" / file, int(row[label] == "1"), int(row[bias] == "1"))
            rows.setdefault(parts.get(file, ""), []).append(found)
        return {split: Listing.of(rows[code]) for split, code in SPLITS.items()}


def attributes(file: Path) -> tuple[list[str], list[tuple[str, list[Any]]]]:
    """Names of the attributes, and for each image its file and a value, 1 or -1, for each of them."""
    lines = [line for line in read_lines(file) if line.strip()]
    if len(lines) < 3 or not lines[0].strip().isdecimal():
        raise ZooError(f"{file} is not CelebA's attribute list: its first line is the number of images")
    names = lines[1].split()
    rows = [(line.split()[0], line.split()[1:]) for line in lines[2:]]
    if len(rows) != int(lines[0]) or any(len(row) != len(names) for _, row in rows):
        raise ZooError(f"{file} is broken off: it announces {lines[0].strip()} images and holds {len(rows)}")
    return names, rows
