"""Colored MNIST as in Learning Not to Learn (Kim et al., CVPR 2019): every digit has its own colour in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field
from scipy.special import ndtr, ndtri

from debias_zoo.dataset import IGNORED, BiasDataset, Card, Images, Ints, Masks, Split
from debias_zoo.protocol import Settings
from debias_zoo.seeds import seed_for

from .mnist import MNIST, MNIST_LICENCE, MNIST_ORIGIN, MNIST_SHA256, digits_of, eval_splits

COLOURS = {
    "crimson": (220, 20, 60),
    "teal": (0, 128, 128),
    "lemon": (253, 233, 16),
    "bondi blue": (0, 149, 182),
    "carrot orange": (237, 145, 33),
    "strong violet": (145, 30, 188),
    "cyan": (70, 240, 240),
    "your pink": (250, 197, 187),
    "lime": (210, 245, 60),
    "maroon": (128, 0, 0),
}
"""Mean colour (R, G, B in 0 ... 255) of the digits 0 ... 9."""

THRESHOLD = 128
"""A pixel above this is digit, the rest is black: decoded originals match it exactly."""

BINS = 8
"""Values of one channel are put into this many equal bins; the bin is the dense bias label."""


class ColoredMNIST(BiasDataset):
    """Digits in one flat colour on black.

    A training digit's colour is drawn round the mean colour of its class, a test digit's round one of the ten means,
    uniform and independent of the label. Each channel follows a normal of the given variance (on pixels in [0, 1])
    *truncated* to (0, 1), redrawn and not clipped (clipping would pile colours up at 0 and 255, which the authors'
    files do not show).
    The smaller the variance, the stronger the bias. Where every training image of a class has one bias, as here, no
    image is bias-conflicting in training.
    """

    name = "cmnist"
    version = 1
    title = "Colored MNIST (LNL): the digit's colour tells its class in training"
    bias_attribute = "colour"

    class Params(BiasDataset.Params):
        """What can be chosen on the command line, as in ``cmnist:variance=0.03``."""

        variance: float = Field(0.02, ge=0.02, le=0.05, description="of each colour channel, on pixels in [0, 1]")
        val: int = Field(6000, ge=0, le=30_000, description="training digits held out for validation; 0 as in papers")
        data_seed: int = Field(0, ge=0, description="of the colours and of the held-out digits")

    params: Params

    @property
    def card(self) -> Card:
        """The data card; the validation splits are there unless ``val`` is 0."""
        return Card(
            title=self.title,
            about="MNIST with one flat colour an image: round the class's colour in train and val, round a random "
            "one of the ten colours in val_unbiased and test.",
            citation="Kim, Kim, Kim, Kim and Kim. Learning Not to Learn. CVPR 2019, arXiv:1812.10352; digits: LeCun, "
            "Cortes and Burges, MNIST.",
            url="https://github.com/feidfoe/learning-not-to-learn",
            licence=MNIST_LICENCE,
            origin=MNIST_ORIGIN,
            sha256={MNIST.name: MNIST_SHA256},
            classes=tuple(str(digit) for digit in range(10)),
            biases=tuple(COLOURS),
            aligned=tuple((digit,) for digit in range(10)),
            bias_map=(3, BINS, 14, 14),
            image_shape=(3, 28, 28),
            backbone="lnl_convnet",
            normalize="cifar",
            training={"quick": QUICK, "standard": STANDARD},
            eval_splits=eval_splits(self.params.val),
            paper_params={"val": 0},
        )

    def digits(self, root: Path | None, split: str) -> tuple[Images, Ints]:
        """Grey images uint8 (N, 28, 28) of a split, and labels int64 (N,)."""
        return digits_of(self.name, split, self.params.val, self.params.data_seed)

    def load(self, root: Path | None, split: str) -> Split:
        """``train``, ``val`` (biased like train), ``val_unbiased`` (the same digits as val) or ``test``."""
        digits, labels = self.digits(root, split)
        biases, random = self._biases(labels, split)
        images = paint(digits, draw_colours(biases, self.params.variance, random))
        return Split(images, labels, biases, colour_bins(images) if split == "train" else None)

    def annotations(self, root: Path | None, split: str) -> tuple[Ints, Ints]:
        """Those of ``load``; nothing is painted."""
        _, labels = self.digits(root, split)
        return labels, self._biases(labels, split)[0]

    def _biases(self, labels: Ints, split: str) -> tuple[Ints, np.random.Generator]:
        """The colours of a split's digits, and what their shades are drawn from."""
        random = np.random.default_rng(seed_for("cmnist", split, self.params.data_seed))
        return labels if split in ("train", "val") else random.integers(0, 10, len(labels)), random

    def mask(self, root: Path | None, split: str, rows: Ints) -> Masks:
        """Where the grey image is not 0; its rim up to the threshold is black in the coloured one."""
        return np.asarray(self.digits(root, split)[0][rows] > 0)


STANDARD = Settings(
    epochs=5, batch_size=128, optimizer="sgd", lr=0.01, momentum=0.9, weight_decay=5e-4, schedule="cosine"
)
"""Five epochs: every method within eight minutes on one core. The rest is LNL's, but for the cosine."""

QUICK = Settings(epochs=2).over(STANDARD)


def draw_colours(biases: Ints, variance: float, random: np.random.Generator) -> Images:
    """uint8 (N, 3): a colour round each bias's mean, from the normal truncated to (0, 1), by its inverse CDF."""
    means = np.array(list(COLOURS.values()))[biases] / 255.0  # (N, 3)
    std = variance**0.5
    low, high = ndtr((0.0 - means) / std), ndtr((1.0 - means) / std)
    channel = means + std * ndtri(low + (high - low) * random.random(means.shape))
    return np.asarray(np.clip(channel, 0.0, 1.0) * 255.0, dtype=np.uint8)


def paint(digits: Images, colours: Images) -> Images:
    """uint8 (N, 28, 28, 3): ``digits`` (N, 28, 28) above the threshold in their colour (N, 3), the rest black."""
    mask = digits > THRESHOLD
    return np.asarray(mask[..., None] * colours[:, None, None, :], dtype=np.uint8)


def colour_bins(images: Images) -> Images:
    """uint8 (N, 3, 14, 14): the bin of each channel at every second pixel, ``IGNORED`` where the channel is 0.

    Nearest-neighbour scaling from 28 to 14, as in Pillow, takes the pixels 1, 3, 5, ...
    """
    small = np.ascontiguousarray(images[:, 1::2, 1::2, :].transpose(0, 3, 1, 2))  # (N, 3, 14, 14)
    bins: Images = np.where(small == 0, np.uint8(IGNORED), small // np.uint8(256 // BINS))
    return bins
