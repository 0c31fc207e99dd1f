"""Colored MNIST as in Learning from Failure (Nam et al., NeurIPS 2020), used by DFA, LC and DeNetDM too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field

from debias_zoo.dataset import BiasDataset, Card, Images, Ints, Masks, Split
from debias_zoo.protocol import Settings
from debias_zoo.seeds import seed_for

from .mnist import MNIST, MNIST_LICENCE, MNIST_ORIGIN, MNIST_SHA256, digits_of, eval_splits

COLOURS = {
    "tomato": (250.8, 79.7, 43.0),
    "yellow": (252.6, 233.5, 89.6),
    "mauve": (171.6, 117.6, 147.9),
    "pale lime": (199.7, 212.0, 153.3),
    "sky blue": (22.4, 198.4, 250.4),
    "light green": (82.0, 245.1, 113.8),
    "cobalt": (6.3, 60.1, 193.5),
    "violet": (141.6, 25.9, 194.2),
    "dark green": (53.0, 100.2, 4.8),
    "raspberry": (212.6, 51.6, 68.1),
}
"""Mean colour (R, G, B in 0 ... 255) that the digits 0 ... 9 are tied to (``colors.th``); the names are ours."""

STD = (0.05, 0.02, 0.01, 0.005, 0.002)
"""Standard deviation of a colour channel, on pixels in [0, 1], at severity 1 ... 5."""

UNBIASED = 0.9
"""The share of conflicting images at which all ten colours are equally frequent."""


Colours = npt.NDArray[np.float32]


class ColoredMNISTLfF(BiasDataset):
    """Grey digits times a colour, on black: clamp(mean colour + N(0, std^2) per channel, 0, 1) * grey.

    A share ``conflict`` of the training digits of a class has one of the other nine classes' colours, each equally
    often, the rest the class's own; in the test all ten colours are equally frequent. Colours go to a class's digits
    in MNIST's order, without chance: only the noise is drawn.

    The same layout as the authors' files but for two things: rows are shuffled, so that the first images of a split
    stand for all of them, and validation digits are held out of the training ones (``val=0``: none, as in the papers,
    which choose epochs on the test).
    """

    name = "cmnist-lff"
    version = 1
    title = "Colored MNIST (LfF): all but a few training digits have their class's colour"
    bias_attribute = "colour"

    class Params(BiasDataset.Params):
        """What can be chosen on the command line, as in ``cmnist-lff:conflict=0.005``."""

        conflict: float = Field(
            0.01,
            ge=0,
            le=UNBIASED,
            description="share of bias-conflicting training images; papers: .005, .01, .02, .05",
        )
        severity: int = Field(
            4, ge=1, le=len(STD), description="of the bias: the higher, the purer the colours; papers: 4"
        )
        val: int = Field(6000, ge=0, le=30_000, description="training digits held out for validation; 0 as in papers")
        data_seed: int = Field(0, ge=0, description="of the noise, the rows' order and the held-out digits")

    params: Params

    @property
    def card(self) -> Card:
        """The data card; the validation splits are there unless ``val`` is 0."""
        return Card(
            title=self.title,
            about="MNIST times one colour an image: the class's colour in all but a few images of train and val, each "
            "of the ten equally often in val_unbiased and test.",
            citation="Nam, Cha, Ahn, Lee and Shin. Learning from Failure: Training Debiased Classifier from Biased "
            "Classifier. NeurIPS 2020, arXiv:2007.02561; digits: LeCun, Cortes and Burges, MNIST.",
            url="https://github.com/alinlab/LfF",
            licence=MNIST_LICENCE,
            origin=MNIST_ORIGIN,
            sha256={MNIST.name: MNIST_SHA256},
            classes=tuple(str(digit) for digit in range(10)),
            biases=tuple(COLOURS),
            aligned=tuple((digit,) for digit in range(10)),
            image_shape=(3, 28, 28),
            backbone="mlp",
            normalize="none",
            training={"quick": QUICK, "standard": STANDARD},
            eval_splits=eval_splits(self.params.val),
            paper_params={"val": 0},
        )

    def load(self, root: Path | None, split: str) -> Split:
        """``train``, ``val`` (biased like train), ``val_unbiased`` (the same digits as val) or ``test``."""
        digits, labels, biases = self._unpainted(split)
        random = np.random.default_rng(seed_for(self.name, split, self.params.data_seed))
        return Split(paint(digits, draw_colours(biases, STD[self.params.severity - 1], random)), labels, biases)

    def annotations(self, root: Path | None, split: str) -> tuple[Ints, Ints]:
        """Those of ``load``; nothing is painted."""
        return self._unpainted(split)[1:]

    def _unpainted(self, split: str) -> tuple[Images, Ints, Ints]:
        """Grey digits, labels and biases in the order of a split."""
        digits, labels = digits_of(self.name, split, self.params.val, self.params.data_seed)
        biases = assign_colours(labels, self.params.conflict if split in ("train", "val") else UNBIASED)
        rows = self._order(len(labels))
        return digits[rows], labels[rows], biases[rows]

    def mask(self, root: Path | None, split: str, rows: Ints) -> Masks:
        """Where the grey image is not 0."""
        return np.asarray(self._unpainted(split)[0][rows] > 0)

    def _order(self, count: int) -> Ints:
        """int64 (N,): the rows of MNIST in the order of a split."""
        return np.random.default_rng(seed_for(self.name, "order", self.params.data_seed)).permutation(count)


STANDARD = Settings(
    epochs=20, batch_size=256, optimizer="adam", lr=1e-3, momentum=0.9, weight_decay=0.0, schedule="constant"
)
"""LfF's settings for a fifth of its 100 epochs: ERM takes half a minute on one core."""

QUICK = Settings(epochs=5).over(STANDARD)


def assign_colours(labels: Ints, conflict: float) -> Ints:
    """int64 (N,): the colour of each digit, class by class in the order of the rows.

    Colour 0 comes first, then 1, and so on; the ends are rounded cumulatively, so that the nine shares of a class
    differ by at most one image and their sum by rounding alone.
    """
    colours = np.empty_like(labels)
    for label in range(len(COLOURS)):
        shares = np.full(len(COLOURS), conflict / (len(COLOURS) - 1))
        shares[label] = 1.0 - conflict
        rows = np.flatnonzero(labels == label)
        ends = np.round(len(rows) * np.cumsum(shares)).astype(np.int64)
        colours[rows] = np.searchsorted(ends, np.arange(len(rows)), side="right")
    return colours


def draw_colours(biases: Ints, std: float, random: np.random.Generator) -> Colours:
    """float32 (N, 3) in [0, 1]: the mean colour of each bias with normal noise on each channel, clipped."""
    means = np.array(list(COLOURS.values()))[biases] / 255.0  # (N, 3)
    return np.clip(means + std * random.standard_normal(means.shape), 0.0, 1.0).astype(np.float32)


def paint(digits: Images, colours: Colours) -> Images:
    """uint8 (N, 28, 28, 3): grey ``digits`` (N, 28, 28) times ``colours`` (N, 3), rounded down."""
    images = np.empty((*digits.shape, 3), np.uint8)
    for channel in range(3):
        shades = colours[:, channel, None, None]  # (N, 1, 1)
        np.multiply(digits, shades, out=images[..., channel], dtype=np.float32, casting="unsafe")
    return images
