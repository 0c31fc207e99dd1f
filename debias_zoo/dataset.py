"""The BiasDataset contract: a card that says what the bias is, and splits of images, labels and bias labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from .decode import Images as Images
from .decode import Report, RowFile
from .errors import ZooError, unknown
from .protocol import Settings
from .sources import Source as Source

if TYPE_CHECKING:
    from .arrays import Arrays

Ints = npt.NDArray[np.int64]
Masks = npt.NDArray[np.bool_]

IGNORED = 255
"""The value of a pixel of a dense bias map (uint8) that gives no loss."""


@dataclass(frozen=True)
class Split:
    """A part of a data set.

    Attributes:
        images: uint8 (N, H, W, C), in memory or read row by row from a file.
        labels: int64 (N,). biases: int64 (N,), or None where not annotated.
        bias_map: uint8 (N, heads, h, w), dense bias labels, ``IGNORED`` where there are none; or None.
    """

    images: Images | RowFile
    labels: Ints
    biases: Ints | None = None
    bias_map: Images | None = None

    def __post_init__(self) -> None:
        n = len(self.images)
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise ZooError(f"images must be uint8 (N, H, W, C); got {self.images.dtype} {self.images.shape}")
        for what, values in (("labels", self.labels), ("biases", self.biases), ("bias_map", self.bias_map)):
            if values is not None and len(values) != n:
                raise ZooError(f"{what} has {len(values)} rows, images {n}")

    def __len__(self) -> int:
        return len(self.images)

    def head(self, limit: int | None) -> Split:
        """The first ``limit`` images; None: all."""
        if limit is None or limit >= len(self):
            return self
        biases = None if self.biases is None else self.biases[:limit]
        bias_map = None if self.bias_map is None else self.bias_map[:limit]
        return Split(self.images[:limit], self.labels[:limit], biases, bias_map)

    def group_counts(self, classes: int, biases: int) -> Ints | None:
        """int64 (classes, biases): images by (label, bias); None where biases are not annotated."""
        if self.biases is None:
            return None
        return count_groups(self.labels, self.biases, classes, biases)


def count_groups(labels: Ints, bias: Ints, classes: int, biases: int) -> Ints:
    """int64 (classes, biases): images by (label, bias). labels, bias: int64 (N,)."""
    counts = np.bincount(labels * biases + bias, minlength=classes * biases)
    return counts.reshape(classes, biases).astype(np.int64)


class Card(BaseModel):
    """What a data set is; ``show`` prints it.

    Attributes:
        classes, biases: names of the labels and of the bias attribute's values.
        aligned: for each class, the biases that are bias-aligned with it.
        bias_parts: sizes of the single bias columns whose product code the bias is.
        bias_map: (heads, bins, h, w) of dense bias labels, or None.
        training: for each protocol, settings that all methods share on this data.
        eval_splits: splits that are evaluated after every epoch.
        paper_params: parameters that papers use, where the defaults are others; said where a recipe runs without them.
        folder: where its files lie below ``--data-root``; get: how they come there, step by step. Empty: bundled.
        sources: what ``debias-zoo data get`` can fetch by itself. size: of all files, as in "500 MB".
        digests: ``sha256:...`` or ``md5:...`` of files in ``folder``, where they are public.
        counts: images of each split by (class, bias) at these parameters, where they are known; by class alone
            where a split has no bias labels.
        copies: for a test split, how many of its images the published training split holds too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    about: str
    citation: str
    url: str
    licence: str
    origin: str
    sha256: Mapping[str, str] = {}
    classes: tuple[str, ...]
    biases: tuple[str, ...]
    aligned: tuple[tuple[int, ...], ...]
    bias_parts: tuple[int, ...] = ()
    bias_map: tuple[int, int, int, int] | None = None
    image_shape: tuple[int, int, int]
    backbone: str
    normalize: str
    training: Mapping[str, Settings]
    eval_splits: tuple[str, ...]
    test_splits: tuple[str, ...] = ("test",)
    paper_params: Mapping[str, Any] = {}
    folder: str = ""
    get: str = ""
    sources: tuple[Source, ...] = ()
    size: str = ""
    digests: Mapping[str, str] = {}
    counts: Mapping[str, tuple[tuple[int, ...], ...]] = {}
    copies: Mapping[str, int] = {}


class BiasDataset:
    """A data set whose label is tied to a bias in training and not in the test.

    Subclasses state ``name``, ``version`` and ``title`` as literals, give a ``Params`` model and implement ``card``
    and ``load``. ``version`` is raised when the same parameters give other images; old results stay valid under
    the old version.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    title: ClassVar[str]
    bias_attribute: ClassVar[str]

    class Params(BaseModel):
        """What can be chosen on the command line: frozen, unknown keys refused."""

        model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, params: Any = None) -> None:
        self.params: Any = params if params is not None else self.Params()

    @staticmethod
    def from_arrays(
        images: npt.ArrayLike,
        labels: npt.ArrayLike,
        biases: npt.ArrayLike | None = None,
        *,
        splits: npt.ArrayLike | None = None,
        classes: Sequence[str] | None = None,
        bias_names: Sequence[str] | None = None,
        seed: int = 0,
    ) -> Arrays:
        """A data set of arrays in memory; its ``save(FILE)`` makes it one for the command line.

        Args:
            images: uint8 (N, H, W, C), or (N, H, W) in grey.
            labels: (N,), whole numbers from 0.
            biases: (N,), whole numbers from 0; None: not annotated.
            splits: (N,), ``train``, ``val`` (may be missing), ``test``; any other name is a further test split. None:
                80, 10 and 10 per cent at random.
            classes: names of the labels; None: their numbers.
            bias_names: names of the biases; None: their numbers.
            seed: of the random split.

        Raises:
            ZooError: what is wrong with the arrays.
        """
        from .arrays import from_arrays

        return from_arrays(images, labels, biases, splits=splits, classes=classes, bias_names=bias_names, seed=seed)

    def again(self) -> BiasDataset:
        """The same data set, which has read nothing yet."""
        return type(self)(self.params)

    @property
    def card(self) -> Card:
        """The data card for these parameters."""
        raise TypeError(f"{type(self).__name__} must define card")

    def folder(self, root: Path | None) -> Path:
        """Where the files lie; raises a ZooError that says how they come there."""
        card = self.card
        how = f"put them into {card.folder}/ below --data-root (or $DEBIAS_ZOO_DATA). {card.get} ({card.url})"
        if root is None:
            raise ZooError(f"data set {self.name!r} needs its files: {how}")
        if not (root / self.card.folder).is_dir():
            raise ZooError(f"data set {self.name!r} is not in {root}: {how}")
        return root / self.card.folder

    def load(self, root: Path | None, split: str) -> Split:
        """The split called ``split``, in an order in which the first images stand for all: a quick look takes those.

        root: where downloaded data lie (``--data-root``), or None.
        """
        raise TypeError(f"{type(self).__name__} must define load(root, split)")

    def check(self, root: Path | None) -> None:
        """Raise a ZooError if the data cannot be loaded: called before any work, must be quick."""

    def prepare(self, root: Path | None, report: Report | None = None) -> Sequence[str]:
        """Do once what loading needs and takes time, such as decoding; ``report`` is told how many of how many.

        Returns what the user should know, a line each, such as how many images are left out.
        """
        return ()

    def annotations(self, root: Path | None, split: str) -> tuple[Ints, Ints | None]:
        """Labels int64 (N,) and biases int64 (N,), or None, of the images that ``load`` gives, in any order.

        Data sets of files know them without loading an image, and count those too that cannot be decoded.
        """
        found = self.load(root, split)
        return found.labels, found.biases

    def mask(self, root: Path | None, split: str, rows: Ints) -> Masks | None:
        """Which pixels show the object that the label names: bool (n, H, W) of ``rows``, int64 (n,); None: not known.

        Rows count as in ``load``. The object, not the bias: how much of a network's attention falls on it is measured.
        """
        return None

    def fingerprint(self, root: Path | None) -> str:
        """What identifies the data beyond name, version and parameters; part of a trial's identity."""
        return ",".join(f"{name}={digest[:16]}" for name, digest in sorted(self.card.sha256.items()))


def unknown_split(dataset: BiasDataset, given: str, known: Iterable[str]) -> ZooError:
    """The error for a split that a data set does not have."""
    return unknown(f"split of {dataset.name}", given, known)
