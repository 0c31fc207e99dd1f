"""Anyone's own data as arrays, in memory or in an ``.npz`` file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from .dataset import BiasDataset, Card, Images, Ints, Split, count_groups, unknown_split
from .errors import ZooError
from .files import read_npz
from .protocol import Augment, Settings
from .seeds import seed_for
from .writing import cannot_write

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
"""Of the images, where nobody says which split they belong to."""

Names = npt.NDArray[Any]


class Arrays(BiasDataset):
    """Images, labels and bias labels in arrays: an ``.npz`` file that ``save`` wrote, or ``BiasDataset.from_arrays``.

    The file holds ``images`` uint8 (N, H, W, C), ``labels`` int (N,), ``splits`` text (N,), names of the ``classes``
    and, where there are bias labels, ``biases`` int (N,) and their names ``bias_names``. A class is aligned with the
    bias that most of its training images have.
    """

    name = "arrays"
    version = 1
    title = "your own arrays, in an .npz file"
    bias_attribute = "as the arrays say"

    class Params(BiasDataset.Params):
        """What can be chosen on the command line, as in ``arrays:file=mine.npz``."""

        file: str = Field("", description="the .npz file, relative to the working directory")

    def __init__(self, params: Any = None, arrays: dict[str, npt.NDArray[Any]] | None = None) -> None:
        super().__init__(params)
        if arrays is not None:
            self.arrays = arrays

    def again(self) -> Arrays:
        """The same arrays, from their file if they have one."""
        return Arrays(self.params, None if self.params.file else self.arrays)

    @cached_property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything, by the names in the file."""
        if not self.params.file:
            raise ZooError("data set 'arrays' needs its file: arrays:file=FILE.npz")
        return checked(read_npz(Path(self.params.file)), f"{self.params.file}: ")

    @cached_property
    def card(self) -> Card:
        """The data card, as the arrays say."""
        arrays = self.arrays
        height, width, channels = arrays["images"].shape[1:]
        classes, biases = _texts(arrays["classes"]), _texts(arrays.get("bias_names", np.array([], str)))
        train = np.flatnonzero(arrays["splits"] == "train")
        return own_card(
            about=f"{len(arrays['images'])} images given as arrays.",
            origin=self.params.file or "arrays in memory",
            classes=classes,
            biases=biases,
            train=(arrays["labels"][train], arrays["biases"][train] if biases else None),
            image_shape=(channels, height, width),
            splits=[str(name) for name in dict.fromkeys(arrays["splits"].tolist())],
        )

    def load(self, root: Path | None, split: str) -> Split:
        """The rows of a split, shuffled: the first ones stand for all."""
        arrays = self.arrays
        rows = np.flatnonzero(arrays["splits"] == split)
        if not len(rows):
            raise unknown_split(self, split, dict.fromkeys(arrays["splits"].tolist()))
        rows = np.random.default_rng(seed_for("arrays", "order", split)).permutation(rows)
        biases = arrays["biases"][rows] if "biases" in arrays else None
        return Split(arrays["images"][rows], arrays["labels"][rows], biases)

    def check(self, root: Path | None) -> None:
        """That the file can be read."""
        _ = self.arrays

    def fingerprint(self, root: Path | None) -> str:
        """Of all values."""
        digest = hashlib.blake2b(digest_size=8)
        for name, value in sorted(self.arrays.items()):
            digest.update(f"{name}{value.dtype}{value.shape}".encode())
            digest.update(value.tobytes())
        return digest.hexdigest()

    def save(self, file: str | Path) -> Arrays:
        """Write an ``.npz`` file that ``--dataset arrays:file=FILE`` takes, and return the data set in it."""
        path = Path(file)
        try:
            with path.open("wb") as opened:
                np.savez(opened, allow_pickle=False, **self.arrays)
        except OSError as error:
            raise cannot_write(path, error) from error
        return Arrays(Arrays.Params(file=str(path)))


def own_card(
    *,
    about: str,
    origin: str,
    classes: tuple[str, ...],
    biases: tuple[str, ...],
    train: tuple[Ints, Ints | None],
    image_shape: tuple[int, int, int],
    splits: Sequence[str],
) -> Card:
    """The card of someone's own images.

    A class is aligned with the bias that most of its training images have.

    Args:
        about: how many there are.
        origin: where they come from.
        classes: names of the labels.
        biases: names of the biases; empty: not annotated.
        train: labels int64 (N,) and biases int64 (N,), or None, of the training images.
        image_shape: (C, H, W).
        splits: names of all splits.
    """
    labels, codes = train
    aligned: tuple[tuple[int, ...], ...] = ((),) * len(classes)
    if codes is not None and biases:
        counts = count_groups(labels, codes, len(classes), len(biases))
        aligned = tuple((int(row.argmax()),) for row in counts)
    others = tuple(name for name in splits if name not in ("train", "val"))
    return Card(
        title=Arrays.title,
        about=about,
        citation="your own",
        url="",
        licence="your own",
        origin=origin,
        classes=classes,
        biases=biases,
        aligned=aligned,
        image_shape=image_shape,
        backbone="resnet18",
        normalize="imagenet" if image_shape[0] == 3 else "none",
        training={"quick": QUICK, "standard": STANDARD},
        eval_splits=(*(["val"] if "val" in splits else []), *others),
        test_splits=others,
    )


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
    """As ``BiasDataset.from_arrays``."""
    found: dict[str, npt.NDArray[Any]] = {"images": np.asarray(images), "labels": np.asarray(labels)}
    if biases is not None:
        found["biases"] = np.asarray(biases)
    found["splits"] = np.asarray(splits, str) if splits is not None else _drawn(len(found["images"]), seed)
    if classes is not None:
        found["classes"] = np.array(classes, str)
    if bias_names is not None:
        found["bias_names"] = np.array(bias_names, str)
    return Arrays(arrays=checked(found, ""))


def _drawn(count: int, seed: int) -> Names:
    ends = np.round(np.cumsum(list(SHARES.values())) * count).astype(int)
    which = np.searchsorted(ends, np.arange(count), side="right")
    names: Names = np.array(list(SHARES))
    order = np.random.default_rng(seed_for("arrays", seed)).permutation(which)
    return np.asarray(names[order])


def checked(found: dict[str, npt.NDArray[Any]], where: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays with int64 labels and names for all classes and biases; a ZooError says what is wrong."""
    if missing := sorted({"images", "labels", "splits"} - set(found)):
        raise ZooError(f"{where}no array {missing[0]!r}; there are {', '.join(sorted(found))}")
    images: Images = found["images"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ZooError(f"{where}images must be uint8 (N, H, W, C) or (N, H, W); got {images.dtype} {images.shape}")
    if "bias_names" in found and "biases" not in found:
        raise ZooError(f"{where}bias_names without biases")
    for name in ("labels", "biases", "splits"):
        if name in found and found[name].shape != (len(images),):
            raise ZooError(
                f"{where}{name} must have one value for each of {len(images)} images; got {found[name].shape}"
            )
    found = {**found, "images": images if images.ndim == 4 else images[..., None].repeat(3, axis=3)}
    for name, names in (("labels", "classes"), ("biases", "bias_names")):
        if name in found:
            found[name] = whole(found[name], f"{where}{name}")
            found.setdefault(names, np.array([str(k) for k in range(int(found[name].max(initial=-1)) + 1)]))
            if len(found[name]) and int(found[name].max()) >= len(found[names]):
                raise ZooError(f"{where}{name} go up to {found[name].max()}, but {names} has {len(found[names])} names")
    present = set(found["splits"].tolist())
    if "train" not in present or not present - {"train", "val"}:
        raise ZooError(
            f"{where}splits must name 'train' and something to test on, such as 'test'; got {sorted(present)}"
        )
    return found


def whole(values: npt.NDArray[Any], what: str) -> Ints:
    """Labels or biases as int64; raises a ZooError where they are no whole numbers from 0."""
    if values.dtype.kind not in "iu" or (len(values) and values.min() < 0):
        least = f" from {values.min()}" if values.dtype.kind in "iu" else ""
        raise ZooError(f"{what} must be whole numbers from 0; got {values.dtype}{least}")
    return values.astype(np.int64)


def _texts(values: npt.NDArray[Any]) -> tuple[str, ...]:
    return tuple(str(value) for value in values.tolist())


STANDARD = Settings(
    epochs=10,
    batch_size=64,
    optimizer="sgd",
    lr=0.01,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="cosine",
    augment=Augment(flip=True),
)
"""Ours."""

QUICK = Settings(epochs=2).over(STANDARD)
