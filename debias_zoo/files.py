"""Data sets of image files: one lists files with their labels, and decoding, caching and checking are here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from pydantic import Field

from .dataset import BiasDataset, Ints, Split, count_groups
from .decode import Report, Step, decoded, fingerprint
from .errors import ZooError, unknown


@dataclass(frozen=True)
class Listing:
    """The image files of a split.

    Attributes:
        files: N paths. labels: int64 (N,). biases: int64 (N,), or None where not annotated.
    """

    files: Sequence[Path]
    labels: Ints
    biases: Ints | None = None


class FileDataset(BiasDataset):
    """A data set in files below ``--data-root``. Subclasses give ``card``, ``listing`` and ``steps``."""

    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")

    class Params(BiasDataset.Params):
        """What can be chosen for all data sets of files."""

        size: int = Field(224, ge=8, le=1024, description="height and width of the images a network sees")
        skip_corrupt: bool = Field(False, description="leave out images that cannot be decoded, instead of stopping")

    def listing(self, root: Path | None, split: str) -> Listing:
        """The files of a split, in an order that is always the same."""
        raise TypeError(f"{type(self).__name__} must define listing(root, split)")

    @property
    def steps(self) -> tuple[Step, ...]:
        """How an image is scaled to ``size``."""
        return (("squash", self.params.size),)

    def folder(self, root: Path | None) -> Path:
        """Where the files lie; raises a ZooError that says how they come there."""
        how = f"put them into {self.card.folder}/ below --data-root (or $DEBIAS_ZOO_DATA). {self.card.get}"
        if root is None:
            raise ZooError(f"data set {self.name!r} needs its files: {how}")
        if not (root / self.card.folder).is_dir():
            raise ZooError(f"data set {self.name!r} is not in {root}: {how}")
        return root / self.card.folder

    def load(self, root: Path | None, split: str) -> Split:
        """The split's images, decoded at the first time."""
        return self._decoded(root, split, None)

    def _decoded(self, root: Path | None, split: str, report: Report | None) -> Split:
        if split not in self.splits:
            raise unknown(f"split of {self.name}", split, self.splits)
        found = self._checked(root, split)
        images = decoded(found.files, self.steps, skip_corrupt=self.params.skip_corrupt, report=report)
        biases = None if found.biases is None else found.biases[images.kept]
        return Split(images.images, found.labels[images.kept], biases)

    def prepare(self, root: Path | None, report: Report | None = None) -> None:
        """Decode all splits."""
        for split in ("train", *self.card.eval_splits):
            self._decoded(root, split, report)

    def check(self, root: Path | None) -> None:
        """That every split has files, and labels that the card knows."""
        for split in ("train", *self.card.eval_splits):
            self._checked(root, split)

    def _checked(self, root: Path | None, split: str) -> Listing:
        found, card = self.listing(root, split), self.card
        if not found.files:
            raise ZooError(f"data set {self.name!r} has no images in its split {split!r} below {root}")
        for what, values, names in (("label", found.labels, card.classes), ("bias", found.biases, card.biases)):
            if values is not None and not (values.min() >= 0 and values.max() < len(names)):
                bad = int(np.flatnonzero((values < 0) | (values >= len(names)))[0])
                raise ZooError(
                    f"data set {self.name!r}: {what} {values[bad]} of {found.files[bad]} is not on its card, which has "
                    f"{len(names)}"
                )
        return found

    def training_counts(self, root: Path | None) -> Ints | None:
        """As the files' labels say, without decoding."""
        found = self._checked(root, "train")
        if found.biases is None:
            return None
        card = self.card
        return count_groups(found.labels, found.biases, len(card.classes), len(card.biases))

    def fingerprint(self, root: Path | None) -> str:
        """Of names, sizes and times of all files."""
        splits = ("train", *self.card.eval_splits)
        return ",".join(f"{split}={fingerprint(self.listing(root, split).files, self.steps)}" for split in splits)


def read_table(file: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV as text, with these columns and no empty cell in any; a ZooError says what is missing."""
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ZooError(f"{file} cannot be read: {error}") from error
    if missing := [name for name in columns if name not in table]:
        raise ZooError(f"{file} has no column {', '.join(map(repr, missing))}; it has {', '.join(table.columns)}")
    for name in table.columns:
        if (empty := table[name].str.strip() == "").any():
            raise ZooError(f"{file}: column {name!r} is empty in line {int(np.flatnonzero(empty)[0]) + 2}")
    return table


def read_lines(file: Path) -> list[str]:
    """The lines of a text file; a ZooError where it cannot be read."""
    try:
        return file.read_text().splitlines()
    except OSError as error:
        raise ZooError(f"{file} cannot be read: {error.strerror or error}") from error
