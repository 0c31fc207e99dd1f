"""``check_dataset``: proves that a data set is what its card says, with a named check for every promise."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..dataset import IGNORED, BiasDataset, Split, count_groups
from ..errors import ZooError
from .bench import CheckFailure, listing
from .history import explain
from .verdict import Verdict, advice_of, promise_of

COMPARED = 4096
"""Images of a split that two loadings are compared on."""

BLOCK = 1024
"""Images read at a time."""


@dataclass
class Shelf:
    """A data set, where its files are, and its splits, loaded once."""

    dataset: BiasDataset
    root: Path | None
    _splits: dict[str, Split] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all splits."""
        return ("train", *self.dataset.card.eval_splits)

    def split(self, name: str) -> Split:
        """A split."""
        if name not in self._splits:
            self._splits[name] = self.dataset.load(self.root, name)
        return self._splits[name]


def check_card(shelf: Shelf) -> None:
    """The card names its source and licence, and its classes, biases and splits fit together.

    Failing means that groups are named or counted wrongly in every table. Usual cause: a class was added without its
    aligned biases.
    """
    card = shelf.dataset.card
    for name in ("title", "about", "citation", "licence", "origin"):
        if not getattr(card, name).strip():
            raise CheckFailure(f"the card says nothing under {name!r}")
    if len(card.aligned) != len(card.classes):
        raise CheckFailure(f"{len(card.classes)} classes, but aligned biases of {len(card.aligned)}")
    if wrong := [k for k in range(len(card.classes)) if any(not 0 <= b < len(card.biases) for b in card.aligned[k])]:
        raise CheckFailure(f"class {wrong[0]} is aligned with {card.aligned[wrong[0]]}; there are {len(card.biases)}")
    if card.bias_parts and int(np.prod(card.bias_parts)) != len(card.biases):
        raise CheckFailure(
            f"the parts {card.bias_parts} make {np.prod(card.bias_parts)} biases, not {len(card.biases)}"
        )
    if not card.test_splits or not set(card.test_splits) <= set(card.eval_splits):
        raise CheckFailure(f"test splits {card.test_splits} are not among those evaluated, {card.eval_splits}")
    if card.folder and not card.get:
        raise CheckFailure("the card does not say how the files come into their folder")


def check_splits(shelf: Shelf) -> None:
    """Every split has images of the card's shape, with labels and bias labels that the card names.

    Failing means that training stops or, worse, that a group is counted as another. Usual causes: labels that start at
    1, a bias code of more columns than the card knows.
    """
    card = shelf.dataset.card
    for name in shelf.names:
        split = shelf.split(name)
        shape = (split.images.shape[3], *split.images.shape[1:3])
        if shape != card.image_shape:
            raise CheckFailure(f"images of {name!r} are {shape}, the card says {card.image_shape}")
        if not len(split):
            raise CheckFailure(f"split {name!r} is empty")
        _range(split.labels, len(card.classes), f"labels of {name!r}")
        if split.biases is not None:
            _range(split.biases, len(card.biases), f"bias labels of {name!r}")


def _range(values: np.ndarray[tuple[int], np.dtype[np.int64]], below: int, what: str) -> None:
    if values.dtype != np.int64:
        raise CheckFailure(f"{what} are {values.dtype}, not int64")
    if values.min() < 0 or values.max() >= below:
        raise CheckFailure(f"{what} go from {values.min()} to {values.max()}; the card names {below}")


def check_bias_map(shelf: Shelf) -> None:
    """Dense bias labels have the shape and the bins that the card states.

    Failing means that an adversary on them learns noise. Usual cause: ignored pixels that are not 255.
    """
    card, found = shelf.dataset.card, shelf.split("train").bias_map
    if (card.bias_map is None) != (found is None):
        raise CheckFailure(
            f"the card says {card.bias_map}; the training split has {'none' if found is None else 'one'}"
        )
    if card.bias_map is None or found is None:
        return
    heads, bins, height, width = card.bias_map
    if found.dtype != np.uint8 or found.shape[1:] != (heads, height, width):
        raise CheckFailure(f"{found.dtype} {found.shape[1:]}, the card says uint8 {(heads, height, width)}")
    used = found[found != IGNORED]
    if not used.size or int(used.max()) >= bins:
        raise CheckFailure(f"bins go to {used.max() if used.size else 'none at all'}; the card names {bins}")


def check_counts(shelf: Shelf) -> None:
    """Images by (class, bias) are what the card states, and what ``annotations`` tells without loading.

    Failing means that the files are not the published ones. Usual causes: an incomplete copy, another version.
    """
    card, dataset = shelf.dataset.card, shelf.dataset
    shape = len(card.classes), len(card.biases)
    for name, stated in card.counts.items():
        split = shelf.split(name)
        counts = split.group_counts(*shape)
        found = np.bincount(split.labels, minlength=shape[0])[:, None] if counts is None else counts
        if found.tolist() != [list(row) for row in stated]:
            raise CheckFailure(f"{name!r} has {found.tolist()} images by class and bias, the card says {list(stated)}")
    for name in shelf.names:
        split, (labels, biases) = shelf.split(name), dataset.annotations(shelf.root, name)
        if getattr(dataset.params, "skip_corrupt", False) and len(split) < len(labels):
            continue  # damaged images are known once they are decoded
        if (biases is None) != (split.biases is None):
            raise CheckFailure(f"annotations and load disagree on whether {name!r} has bias labels")
        told = sorted(zip(labels.tolist(), labels.tolist() if biases is None else biases.tolist(), strict=True))
        held = split.labels if split.biases is None else split.biases
        if told != sorted(zip(split.labels.tolist(), held.tolist(), strict=True)):
            raise CheckFailure(f"annotations tells other labels of {name!r} than its images have")


def check_same_again(shelf: Shelf) -> None:
    """Made anew with the same parameters it is the same data, with the same fingerprint.

    Failing means that no result can be repeated. Usual causes: a global random state, files in the order of the disk.
    """
    other = shelf.dataset.again()
    if other.fingerprint(shelf.root) != shelf.dataset.fingerprint(shelf.root):
        raise CheckFailure("its fingerprint changes from one object to the next")
    for name in shelf.names:
        one, two = shelf.split(name), other.load(shelf.root, name)
        for what in ("labels", "biases", "bias_map"):
            a, b = getattr(one, what), getattr(two, what)
            if (a is None) != (b is None) or (a is not None and not np.array_equal(a, b)):
                raise CheckFailure(f"{what} of {name!r} change from one loading to the next")
        if not np.array_equal(one.images[:COMPARED], two.images[:COMPARED]):
            raise CheckFailure(f"images of {name!r} change from one loading to the next")


def check_apart(shelf: Shelf) -> None:
    """No image of the training split is in a test split, but for copies in the published files that the card counts.

    Failing means that a test number is of images that were trained on. Usual causes: copies in the source, a
    split drawn anew in each ``load``.
    """
    card = shelf.dataset.card
    train = _digests(shelf.split("train"))
    for name in card.test_splits:
        both = train.keys() & _digests(shelf.split(name)).keys()
        if len(both) > (known := card.copies.get(name, 0)):
            rows = listing(str(row) for row in sorted(train[digest] for digest in both))
            raise CheckFailure(
                f"{len(both)} images of {name!r} are in the training split too (the card knows of {known}), there in "
                f"rows {rows}"
            )


def _digests(split: Split) -> dict[bytes, int]:
    """The row of each image by its digest."""
    found: dict[bytes, int] = {}
    for start in range(0, len(split), BLOCK):
        for k, image in enumerate(split.images[start : start + BLOCK]):
            found.setdefault(hashlib.blake2b(image.tobytes(), digest_size=16).digest(), start + k)
    return found


def check_mixed(shelf: Shelf) -> None:
    """The first images of a split stand for all of them, since a quick look takes only those.

    Failing means that ``--protocol quick`` trains on some classes alone. Usual cause: files sorted by class.
    """
    for name in shelf.names:
        split = shelf.split(name)
        classes = len(set(split.labels.tolist()))
        first = split.labels[: max(8 * classes, len(split) // 4)]
        if len(set(first.tolist())) < min(classes, 2):
            raise CheckFailure(f"the first {len(first)} of {len(split)} images of {name!r} are all of one class")


def check_bias(shelf: Shelf) -> None:
    """In training, labels and biases go together as the card says: the aligned share is above that of chance.

    Failing means that aligned and conflicting are mixed up in every table. Usual cause: pairs in another order.
    """
    card, split = shelf.dataset.card, shelf.split("train")
    if split.biases is None or len(set(card.aligned)) == 1:  # the same for all classes: chance is the share itself
        return
    aligned = np.zeros((len(card.classes), len(card.biases)))
    for label, ties in enumerate(card.aligned):
        aligned[label, list(ties)] = 1
    share = aligned[split.labels, split.biases].mean()
    counts = count_groups(split.labels, split.biases, len(card.classes), len(card.biases)) / len(split)
    chance = float(counts.sum(1) @ aligned @ counts.sum(0))
    if not share > chance:
        raise CheckFailure(f"{share:.3f} of the training images are bias-aligned, as many as by chance ({chance:.3f})")


def check_refuses(shelf: Shelf) -> None:
    """A split that does not exist, and files that are not there, are named in a ZooError.

    Failing means a traceback where the user needs a hint. Usual cause: a dictionary that is indexed.
    """
    try:
        shelf.dataset.load(shelf.root, "no such split")
    except ZooError as error:
        if "no such split" not in str(error):
            raise CheckFailure(f"an unknown split is answered with {error}") from error
    else:
        raise CheckFailure("a split that does not exist is loaded")
    if shelf.dataset.card.folder:
        try:
            shelf.dataset.again().check(Path("/nowhere"))
        except ZooError:
            return
        raise CheckFailure("files that are not there are not missed")


DATA_CHECKS: Mapping[str, Callable[[Shelf], None]] = {
    function.__name__.removeprefix("check_"): function
    for function in (
        check_card,
        check_splits,
        check_bias_map,
        check_counts,
        check_same_again,
        check_apart,
        check_mixed,
        check_bias,
        check_refuses,
    )
}
"""Every check of a data set by name, in the order in which they run."""


@dataclass(frozen=True)
class DataCheck:
    """One promise of the BiasDataset contract, to be checked on one data set."""

    name: str
    shelf: Shelf = field(repr=False)

    @property
    def about(self) -> str:
        """The promise, what failing means, and the usual causes."""
        return promise_of(DATA_CHECKS[self.name])

    def verdict(self) -> Verdict:
        """Run it, and say how it went."""
        try:
            DATA_CHECKS[self.name](self.shelf)
        except (Exception, SystemExit) as error:  # a data set may raise anything
            return Verdict(self.name, "failed", explain(error), advice_of(DATA_CHECKS[self.name]))
        return Verdict(self.name, "passed")

    def __str__(self) -> str:
        return self.name


def dataset_checks(dataset: BiasDataset, root: Path | None = None) -> list[DataCheck]:
    """All checks of a data set; they share its loaded splits.

    Args:
        dataset: with its parameters.
        root: where downloaded data lie, or None.
    """
    shelf = Shelf(dataset, root)
    return [DataCheck(name, shelf) for name in DATA_CHECKS]


def check_dataset(dataset: BiasDataset, root: Path | None = None) -> list[Verdict]:
    """The verdicts of all checks; arguments as of ``dataset_checks``."""
    return [check.verdict() for check in dataset_checks(dataset, root)]
