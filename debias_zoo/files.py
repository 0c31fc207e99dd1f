"""Data sets of image files: one lists files with their labels, and decoding, caching and checking are here."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from .dataset import BiasDataset, Card, Images, Ints, Split, unknown_split
from .decode import Report, RowFile, Step, decoded, fingerprint
from .errors import ZooError
from .seeds import seed_for


@dataclass(frozen=True)
class Listing:
    """The image files of a split.

    Attributes:
        files: N paths. labels: int64 (N,). biases: int64 (N,), or None where not annotated.
    """

    files: Sequence[Path]
    labels: Ints
    biases: Ints | None = None

    @classmethod
    def of(cls, rows: Sequence[tuple[Path, int, int]]) -> Listing:
        """Of (file, label, bias) rows."""
        labels, biases = (np.array([row[k] for row in rows], np.int64) for k in (1, 2))
        return cls([row[0] for row in rows], labels, biases)

    def at(self, rows: Ints) -> Listing:
        """The files at positions ``rows`` int64 (M,), in their order."""
        biases = None if self.biases is None else self.biases[rows]
        return Listing([self.files[row] for row in rows], self.labels[rows], biases)

    def split(self, images: Images | RowFile) -> Split:
        """With their ``images`` uint8 (N, H, W, C)."""
        return Split(images, self.labels, self.biases)


class FileDataset(BiasDataset):
    """A data set in files below ``--data-root``. Subclasses give ``card``, ``listings`` and perhaps ``steps``."""

    class Params(BiasDataset.Params):
        """What can be chosen for all data sets of files."""

        size: int = Field(224, ge=8, le=1024, description="height and width of the images a network sees")
        skip_corrupt: bool = Field(False, description="leave out images that cannot be decoded, instead of stopping")

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self._known: dict[Path | None, Mapping[str, Listing]] = {}
        self._prints: dict[Path | None, str] = {}

    def listings(self, root: Path | None) -> Mapping[str, Listing]:
        """The files of every split, in an order that is always the same."""
        raise TypeError(f"{type(self).__name__} must define listings(root)")

    @property
    def steps(self) -> tuple[Step, ...]:
        """How an image is scaled to ``size``."""
        return (("squash", self.params.size),)

    def files(self, root: Path | None, split: str) -> Listing:
        """The files of a split, checked and shuffled: the first images of a split stand for all of them."""
        if root not in self._known:
            self._known[root] = self._checked(root)
        found = self._known[root]
        if split not in found:
            raise unknown_split(self, split, found)
        return found[split]

    def load(self, root: Path | None, split: str) -> Split:
        """The split's images, decoded at the first time."""
        return self._decoded(root, split, None)

    def _decoded(self, root: Path | None, split: str, report: Report | None) -> Split:
        found = self.files(root, split)
        images = decoded(found.files, self.steps, skip_corrupt=self.params.skip_corrupt, report=report)
        return found.at(images.kept).split(images.images)

    def prepare(self, root: Path | None, report: Report | None = None) -> Sequence[str]:
        """Decode all splits; says how many images are left out."""
        said = []
        for split in ("train", *self.card.eval_splits):
            every, kept = len(self.files(root, split).files), len(self._decoded(root, split, report))
            if kept < every:
                said.append(f"{self.name}: {every - kept} of {every} images of {split!r} cannot be decoded, left out")
        return said

    def check(self, root: Path | None) -> None:
        """That every split has files, none is in two splits, and the card knows all labels."""
        self.files(root, "train")

    def _checked(self, root: Path | None) -> dict[str, Listing]:
        card, found = self.card, self.listings(root)
        owner: dict[str, str] = {}
        shuffled = {}
        for split in ("train", *card.eval_splits):
            listing = found[split]
            if not listing.files:
                raise ZooError(f"data set {self.name!r} has no images in its split {split!r} below {root}")
            self._check_range(listing, card)
            for file in listing.files:
                path = os.path.abspath(file)
                if path in owner:
                    where = f"twice in {split}" if owner[path] == split else f"in two splits, {owner[path]} and {split}"
                    raise ZooError(f"data set {self.name!r}: {file} is {where}")
                owner[path] = split
            random = np.random.default_rng(seed_for(self.name, "order", split))
            shuffled[split] = listing.at(random.permutation(len(listing.files)))
        return shuffled

    def _check_range(self, found: Listing, card: Card) -> None:
        for what, values, names in (("label", found.labels, card.classes), ("bias", found.biases, card.biases)):
            if values is not None and not (values.min() >= 0 and values.max() < len(names)):
                bad = int(np.flatnonzero((values < 0) | (values >= len(names)))[0])
                raise ZooError(
                    f"data set {self.name!r}: {what} {values[bad]} of {found.files[bad]} is not on its card, which has "
                    f"{len(names)}"
                )

    def annotations(self, root: Path | None, split: str) -> tuple[Ints, Ints | None]:
        """As the files' names and tables say, without decoding; damaged images that ``load`` leaves out count."""
        found = self.files(root, split)
        return found.labels, found.biases

    def fingerprint(self, root: Path | None) -> str:
        """Of names, sizes and times of all files, as they were when it was first asked."""
        if root not in self._prints:
            found = {split: self.files(root, split).files for split in ("train", *self.card.eval_splits)}
            self._prints[root] = ",".join(f"{split}={fingerprint(files, self.steps)}" for split, files in found.items())
        return self._prints[root]


def read_table(file: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV as stripped text, indexed by line, with these columns and no empty cell in them or in a bias column."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.reader(opened)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except (OSError, ValueError, csv.Error) as error:
        raise ZooError(f"{file} cannot be read: {error}") from error
    names = rows[0][1] if rows else []
    if missing := [name for name in columns if name not in names]:
        raise ZooError(f"{file} has no column {', '.join(map(repr, missing))}; it has {', '.join(names)}")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ZooError(f"{file} has two columns {twice[0]!r}")
    for line, row in rows[1:]:
        if len(row) != len(names):
            raise ZooError(f"{file}: line {line} has {len(row)} fields, the header {len(names)}")
        for name, cell in zip(names, row, strict=True):
            if not cell and (name in (*columns, "bias") or name.startswith("bias_")):
                raise ZooError(f"{file}: column {name!r} is empty in line {line}")
    return pd.DataFrame([row for _, row in rows[1:]], columns=names, index=[line for line, _ in rows[1:]], dtype=str)


def integers(table: pd.DataFrame, column: str, file: Path) -> Ints:
    """int64 (N,): a column of a table that ``file`` holds; a ZooError names the line that is no whole number."""
    for line, value in table[column].items():
        if not value.removeprefix("-").isdecimal():
            raise ZooError(f"{file}: column {column!r} holds {value!r} in line {line}, not a whole number")
    return table[column].to_numpy().astype(np.int64)


def read_npz(file: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of an ``.npz`` file; nothing pickled is read. A ZooError where it cannot be read."""
    try:
        with np.load(file, allow_pickle=False) as opened:
            return {name: opened[name] for name in opened.files}
    except Exception as error:  # a damaged archive may make zipfile, zlib or NumPy raise anything
        raise ZooError(f"{file} cannot be read: {error}") from error


def read_lines(file: Path) -> list[str]:
    """The lines of a text file; a ZooError where it cannot be read."""
    try:
        return file.read_text().splitlines()
    except OSError as error:
        raise ZooError(f"{file} cannot be read: {error.strerror or error}") from error
