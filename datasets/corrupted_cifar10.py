"""Corrupted CIFAR-10 as in Learning from Failure (Nam et al., NeurIPS 2020): each class has its own corruption."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field

from debias_zoo.cache import made_once
from debias_zoo.dataset import BiasDataset, Card, Images, Ints, Source, Split
from debias_zoo.errors import ZooError
from debias_zoo.files import read_npz
from debias_zoo.protocol import Augment, Settings
from debias_zoo.seeds import seed_for

from .cmnist_lff import UNBIASED, assign_colours
from .corruptions import CORRUPTIONS, corrupt, frost_pictures
from .mnist import Arrays, digits_of, eval_splits

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = tuple(f"data_batch_{k}.bin" for k in range(1, 6))
ROWS, ROW = 10_000, 1 + 3072
"""Images of one file of the binary archive, and bytes of each: a label, then red, green and blue, row by row."""

FROST_MADE = np.array([1.0])
"""Version of the frost that is made here."""

STRENGTHS = 4
"""LfF's severity s is level s + 1 of the corruptions."""


class CorruptedCIFAR10(BiasDataset):
    """CIFAR-10 with one of ten corruptions an image, two sets of them.

    A share ``conflict`` of the training images of a class has one of the other nine corruptions, each equally often,
    the rest the class's own; in the test all ten are equally frequent. Which images get which follows the order of the
    archive, as in LfF's code; the noise is drawn by ``data_seed``.

    Type 0: snow, frost, fog, brightness, contrast, spatter, elastic, jpeg, pixelate, saturate. Type 1: noises
    (gaussian, shot, impulse, speckle), blurs (gaussian, defocus, glass, motion, zoom), original. Snow, motion blur and
    the water of spatter are written from the definitions of ImageMagick and OpenCV and not computed by them; the frost
    of type 0 is made here unless ``frost_dir`` holds the authors' pictures. Rows are shuffled and validation images
    held out.
    """

    name = "corrupted-cifar10"
    version = 2
    title = "Corrupted CIFAR-10 (LfF): each class has its own corruption in training"
    bias_attribute = "corruption"

    class Params(BiasDataset.Params):
        """What can be chosen on the command line, as in ``corrupted-cifar10:type=1,conflict=0.05``."""

        type: int = Field(0, ge=0, le=1, description="which ten corruptions: 0 weather and digital, 1 noise and blur")
        conflict: float = Field(
            0.01, ge=0, le=UNBIASED, description="share of bias-conflicting training images; papers: .005 ... .05"
        )
        severity: int = Field(4, ge=1, le=STRENGTHS, description="of the corruptions; papers: 4")
        val: int = Field(5000, ge=0, le=25_000, description="training images held out for validation; 0 as in papers")
        data_seed: int = Field(0, ge=0, description="of the noise, the rows' order and the held-out images")
        npz: str = Field("", description="file with x_train, y_train, x_test, y_test instead of the official archive")
        frost_dir: str = Field("", description="folder of the authors' frost1.png ... frost5.jpg; empty: made here")

    params: Params

    @property
    def corruptions(self) -> tuple[str, ...]:
        """Of this type, in the order of the classes."""
        names = tuple(CORRUPTIONS)
        return names[10:] if self.params.type else names[:10]

    @property
    def card(self) -> Card:
        """The data card; the validation splits are there unless ``val`` is 0."""
        return Card(
            title=self.title,
            about="CIFAR-10 with one corruption an image: the class's in all but a few images of train and val, each "
            "of the ten equally often in val_unbiased and test.",
            citation="Nam, Cha, Ahn, Lee and Shin. Learning from Failure. NeurIPS 2020, arXiv:2007.02561; corruptions: "
            "Hendrycks and Dietterich, ICLR 2019; images: Krizhevsky, CIFAR-10.",
            url="https://github.com/alinlab/LfF",
            licence="not stated (CIFAR-10)",
            origin="the official binary archive, or an .npz; the corruptions are computed",
            classes=CLASSES,
            biases=self.corruptions,
            aligned=tuple((k,) for k in range(10)),
            image_shape=(3, 32, 32),
            backbone="resnet20",
            normalize="cifar",
            training={"quick": QUICK, "standard": STANDARD},
            eval_splits=eval_splits(self.params.val),
            paper_params={"val": 0},
            folder="" if self.params.npz else "cifar-10-batches-bin",
            get="Unpack https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz there; or name an .npz file: "
            "corrupted-cifar10:npz=FILE.",
            size="170 MB",
            sources=(
                Source(
                    file="cifar-10-binary.tar.gz",
                    urls=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
                    strip=1,
                    marker=BATCHES[0],
                ),
            ),
        )

    def load(self, root: Path | None, split: str) -> Split:
        """``train``, ``val`` (biased like train), ``val_unbiased`` (the same images as val) or ``test``."""
        images, labels, biases = self._clean(root, split)
        key = f"{self.name}-{self.version}-{self.params.model_dump_json()}-{self.fingerprint(root)}-{split}"
        name = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
        rows = self._order(len(labels))
        made = made_once(name, lambda: {"images": self._corrupted(images, biases, split)[rows]})
        return Split(made["images"], labels[rows], biases[rows])

    def annotations(self, root: Path | None, split: str) -> tuple[Ints, Ints]:
        """Those of ``load``; nothing is corrupted."""
        _, labels, biases = self._clean(root, split)
        rows = self._order(len(labels))
        return labels[rows], biases[rows]

    def _clean(self, root: Path | None, split: str) -> tuple[Images, Ints, Ints]:
        """Clean images, labels and the corruptions they are to have."""
        images, labels = self.load_digits(root, split)
        return images, labels, assign_colours(labels, self.params.conflict if split in ("train", "val") else UNBIASED)

    def _order(self, count: int) -> Ints:
        """int64 (N,): the rows of CIFAR-10 in the order of a split."""
        return np.random.default_rng(seed_for(self.name, "order", self.params.data_seed)).permutation(count)

    def load_digits(self, root: Path | None, split: str) -> tuple[Images, Ints]:
        """Clean images uint8 (N, 32, 32, 3) of a split, and labels int64 (N,)."""
        arrays = self._arrays(root)
        return digits_of(self.name, split, self.params.val, self.params.data_seed, lambda: arrays)

    def _corrupted(self, images: Images, biases: Ints, split: str) -> Images:
        found = np.empty_like(images)
        for k, name in enumerate(self.corruptions):
            random = np.random.default_rng(seed_for(self.name, split, name, self.params.data_seed))
            found[biases == k] = corrupt(images[biases == k], name, self.params.severity + 1, random, self.frost_dir)
        return found

    @property
    def frost_dir(self) -> Path | None:
        """Where the authors' frost is, or None."""
        return Path(self.params.frost_dir) if self.params.frost_dir else None

    def check(self, root: Path | None) -> None:
        """That the images are there, and the frost if it is named."""
        self.load_digits(root, "train")
        frost_pictures(self.frost_dir)

    def fingerprint(self, root: Path | None) -> str:
        """Of the images, and of the frost."""
        digest = hashlib.blake2b(digest_size=8)
        for name, value in sorted(self._arrays(root).items()):
            digest.update(name.encode() + value.tobytes())
        if not self.params.type:
            for picture in frost_pictures(self.frost_dir) or [FROST_MADE]:
                digest.update(picture.tobytes())
        return digest.hexdigest()

    def _arrays(self, root: Path | None) -> Arrays:
        return from_npz(Path(self.params.npz)) if self.params.npz else from_binary(self.folder(root))


@lru_cache(maxsize=1)
def from_npz(file: Path) -> Arrays:
    """CIFAR-10, or a part of it, as Keras lays it out."""
    arrays = read_npz(file)
    if missing := sorted({"x_train", "y_train", "x_test", "y_test"} - set(arrays)):
        raise ZooError(f"corrupted-cifar10: {file} holds no array {missing[0]!r}")
    names = {"images": "x", "labels": "y"}
    found = {f"{part}_{what}": arrays[f"{x}_{part}"] for part in ("train", "test") for what, x in names.items()}
    return _checked({name: value.ravel() if "labels" in name else value for name, value in found.items()}, file)


@lru_cache(maxsize=1)
def from_binary(folder: Path) -> Arrays:
    """The official binary files; nothing in them is run, as reading the pickled ones could."""
    found = {}
    for part, names in (("train", BATCHES), ("test", ("test_batch.bin",))):
        try:
            raw = np.concatenate([np.fromfile(folder / name, np.uint8) for name in names])
        except OSError as error:
            raise ZooError(f"corrupted-cifar10: {error.filename} cannot be read: {error.strerror or error}") from error
        if len(raw) != ROWS * ROW * len(names):
            raise ZooError(f"corrupted-cifar10: {folder}/{names[0]} ... are broken off: fetch the archive again")
        rows = raw.reshape(-1, ROW)
        found[f"{part}_labels"] = rows[:, 0]
        found[f"{part}_images"] = np.ascontiguousarray(rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return _checked(found, folder)


def _checked(found: dict[str, npt.NDArray[np.uint8]], where: Path) -> Arrays:
    for part in ("train", "test"):
        images, labels = found[f"{part}_images"], found[f"{part}_labels"]
        if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3) or len(images) != len(labels):
            raise ZooError(f"corrupted-cifar10: {where} holds {images.dtype} {images.shape}, not uint8 (N, 32, 32, 3)")
        if len(labels) == 0 or labels.min() < 0 or labels.max() >= len(CLASSES):
            raise ZooError(f"corrupted-cifar10: labels in {where} go beyond the ten classes")
    return found


STANDARD = Settings(
    epochs=10,
    batch_size=256,
    optimizer="adam",
    lr=1e-3,
    momentum=0.9,
    weight_decay=0.0,
    schedule="cosine",
    augment=Augment(pad_crop=4, flip=True),
)
"""LfF's batch, rate and augmentation for a twentieth of its 200 epochs."""

QUICK = Settings(epochs=2).over(STANDARD)
