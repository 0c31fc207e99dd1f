"""Biased-MNIST as in ReBias (Bahng et al., ICML 2020): white digits on a background whose colour tells the class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from debias_zoo.dataset import BiasDataset, Card, Images, Ints, Masks, Split
from debias_zoo.protocol import Settings
from debias_zoo.seeds import seed_for

from .mnist import MNIST, MNIST_LICENCE, MNIST_ORIGIN, MNIST_SHA256, digits_of, eval_splits

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (225, 225, 0),
    "magenta": (225, 0, 225),
    "cyan": (0, 255, 255),
    "orange": (255, 128, 0),
    "rose": (255, 0, 128),
    "violet": (128, 0, 255),
    "grey": (128, 128, 128),
}
"""Background (R, G, B) that the digits 0 ... 9 are tied to."""

UNBIASED = 0.1
"""The share of aligned images at which all ten colours are equally frequent."""


class BiasedMNIST(BiasDataset):
    """Every pixel that is 0 in MNIST takes the background colour, every other one is white.

    Of a class's n training digits int(n * rho) have the class's colour, the others the nine other colours, each equally
    often; in the test all ten are equally frequent. The paper's "biased" accuracy is the accuracy on bias-aligned
    images here, that at rho = 0 the accuracy on bias-conflicting ones.

    Differs from the authors' code: which digits get which colour follows MNIST's order and not a random one; rows are
    shuffled; validation digits are held out of the training ones (``val=0``: none, as in the paper).
    """

    name = "biased-mnist"
    version = 1
    title = "Biased-MNIST (ReBias): the background colour tells the digit in training"
    bias_attribute = "background colour"

    class Params(BiasDataset.Params):
        """What can be chosen on the command line, as in ``biased-mnist:rho=0.997``."""

        rho: float = Field(
            0.999, ge=UNBIASED, le=1, description="share of bias-aligned training images; paper: .999, .997, .995, .99"
        )
        val: int = Field(6000, ge=0, le=30_000, description="training digits held out for validation; 0 as in papers")
        data_seed: int = Field(0, ge=0, description="of the rows' order and the held-out digits")

    params: Params

    @property
    def card(self) -> Card:
        """The data card; the validation splits are there unless ``val`` is 0."""
        return Card(
            title=self.title,
            about="White MNIST digits on one of ten colours: the class's in all but a few images of train and val, "
            "each of the ten equally often in val_unbiased and test.",
            citation="Bahng, Chun, Yun, Choo and Oh. Learning De-biased Representations with Biased Representations. "
            "ICML 2020, arXiv:1910.02806; digits: LeCun, Cortes and Burges, MNIST.",
            url="https://github.com/clovaai/rebias",
            licence=MNIST_LICENCE,
            origin=MNIST_ORIGIN,
            sha256={MNIST.name: MNIST_SHA256},
            classes=tuple(str(digit) for digit in range(10)),
            biases=tuple(COLOURS),
            aligned=tuple((digit,) for digit in range(10)),
            image_shape=(3, 28, 28),
            backbone="simple_convnet",
            normalize="half",
            training={"quick": QUICK, "standard": STANDARD},
            eval_splits=eval_splits(self.params.val),
            paper_params={"val": 0},
        )

    def load(self, root: Path | None, split: str) -> Split:
        """``train``, ``val`` (biased like train), ``val_unbiased`` (the same digits as val) or ``test``."""
        digits, labels, biases = self._unpainted(split)
        return Split(paint(digits, biases), labels, biases)

    def annotations(self, root: Path | None, split: str) -> tuple[Ints, Ints]:
        """Those of ``load``; nothing is painted."""
        return self._unpainted(split)[1:]

    def _unpainted(self, split: str) -> tuple[Images, Ints, Ints]:
        """Grey digits, labels and biases in the order of a split."""
        digits, labels = digits_of(self.name, split, self.params.val, self.params.data_seed)
        biases = assign_colours(labels, self.params.rho if split in ("train", "val") else UNBIASED)
        rows = self._order(len(labels))
        return digits[rows], labels[rows], biases[rows]

    def mask(self, root: Path | None, split: str, rows: Ints) -> Masks:
        """Where the grey image is not 0."""
        return np.asarray(self._unpainted(split)[0][rows] > 0)

    def _order(self, count: int) -> Ints:
        """int64 (N,): the rows of MNIST in the order of a split."""
        return np.random.default_rng(seed_for(self.name, "order", self.params.data_seed)).permutation(count)


STANDARD = Settings(
    epochs=3, batch_size=256, optimizer="adam", lr=1e-3, momentum=0.9, weight_decay=1e-4, schedule="cosine"
)
"""Ours, minutes an epoch on a core; batch, rate and decay are the paper's."""

QUICK = Settings(epochs=1).over(STANDARD)


def assign_colours(labels: Ints, rho: float) -> Ints:
    """int64 (N,): the colour of each digit, in the order of the rows of a class: its own first, then the other nine."""
    colours = np.empty_like(labels)
    for label in range(len(COLOURS)):
        rows = np.flatnonzero(labels == label)
        aligned = int(len(rows) * rho)
        others = np.array([colour for colour in range(len(COLOURS)) if colour != label])
        colours[rows[:aligned]] = label
        rest = rows[aligned:]
        colours[rest] = others[np.arange(len(rest)) * len(others) // max(len(rest), 1)]
    return colours


def paint(digits: Images, biases: Ints) -> Images:
    """uint8 (N, 28, 28, 3): white where ``digits`` (N, 28, 28) are not 0, elsewhere the colours of ``biases`` (N,)."""
    background = np.array(list(COLOURS.values()), np.uint8)[biases][:, None, None, :]
    return np.where(digits[..., None] > 0, np.uint8(255), background)
