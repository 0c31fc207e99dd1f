"""Fashion-MNIST in the colours of ``cmnist``: every kind of clothes has its own colour in training."""

from __future__ import annotations

import gzip
from functools import lru_cache
from pathlib import Path

import numpy as np

from debias_zoo.dataset import Card, Images, Ints, Source
from debias_zoo.errors import ZooError

from .cmnist import ColoredMNIST
from .mnist import Arrays, digits_of

CLOTHES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
FILES = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
"""The four files with their md5."""


class FashionColoredMNIST(ColoredMNIST):
    """Clothes in one flat colour on black, coloured exactly as the digits of ``cmnist`` are, with its parameters.

    The mask is the same too, pixels above 128: it keeps the shape and little of the texture.
    """

    name = "fashion-cmnist"
    version = 1
    title = "Colored Fashion-MNIST: the colour of cmnist tells the kind of clothes in training"
    bias_attribute = "colour"

    @property
    def card(self) -> Card:
        """That of ``cmnist``, with other classes and files."""
        return super().card.model_copy(
            update={
                "title": self.title,
                "about": "Fashion-MNIST with one flat colour an image, as in cmnist.",
                "citation": "Xiao, Rasul and Vollgraf. Fashion-MNIST. 2017, arXiv:1708.07747; colours: Kim et al., "
                "CVPR 2019.",
                "url": "https://github.com/zalandoresearch/fashion-mnist",
                "licence": "MIT (Fashion-MNIST, Zalando SE)",
                "origin": "the authors' archive; the colours are generated",
                "sha256": {},
                "classes": CLOTHES,
                "folder": "fashion-mnist",
                "get": f"Put {', '.join(FILES)} of {URL} there.",
                "sources": tuple(
                    Source(file=name, urls=(f"{URL}/{name}",), digest=f"md5:{md5}") for name, md5 in FILES.items()
                ),
                "size": "30 MB",
                "digests": {name: f"md5:{md5}" for name, md5 in FILES.items()},
            }
        )

    def digits(self, root: Path | None, split: str) -> tuple[Images, Ints]:
        folder = self.folder(root)
        return digits_of(self.name, split, self.params.val, self.params.data_seed, lambda: read_idx(folder))

    def check(self, root: Path | None) -> None:
        """That the four files are there."""
        folder = self.folder(root)
        if missing := [name for name in FILES if not (folder / name).is_file()]:
            raise ZooError(f"data set {self.name!r}: {folder / missing[0]} is missing. {self.card.get}")

    def fingerprint(self, root: Path | None) -> str:
        """Of the sizes of the four files; ``data verify`` compares their published checksums."""
        self.check(root)
        return ",".join(f"{name}={(self.folder(root) / name).stat().st_size}" for name in FILES)


@lru_cache(maxsize=1)
def read_idx(folder: Path) -> Arrays:
    """Images uint8 (N, 28, 28) and labels uint8 (N,) of the training and the test part."""
    found = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        for what, kind, head in (("images", "images-idx3", 16), ("labels", "labels-idx1", 8)):
            file = folder / f"{prefix}-{kind}-ubyte.gz"
            try:
                raw = np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8)[head:]
            except (OSError, EOFError) as error:
                raise ZooError(f"{file} cannot be read: {error}") from error
            if what == "images" and len(raw) % 784:
                raise ZooError(f"{file} cannot be read: it is broken off")
            found[f"{part}_{what}"] = raw.reshape(-1, 28, 28) if what == "images" else raw
        if len(found[f"{part}_images"]) != len(found[f"{part}_labels"]):
            raise ZooError(f"{folder}: as many {part} images as labels are needed; fetch the files again")
    return found
