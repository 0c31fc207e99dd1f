"""Anyone's own images, with a CSV that says what is what."""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from debias_zoo.dataset import Card, Ints
from debias_zoo.errors import ZooError
from debias_zoo.files import FileDataset, Listing, read_table

from .photographs import training


class Folder(FileDataset):
    """Images below ``path``, and a CSV with columns ``file`` (relative to ``path``), ``split``, ``label`` and ``bias``.

    ``split`` is train, val or test; any other name is a further test split. Instead of ``bias`` there may be several
    columns ``bias_*``, whose combinations are then the bias; or none. A class is aligned with the bias that most of its
    training images have.
    """

    name = "folder"
    version = 1
    title = "your own images, described by a CSV"
    bias_attribute = "as the CSV says"

    class Params(FileDataset.Params):
        """What can be chosen on the command line, as in ``folder:path=images,metadata=images.csv,size=64``."""

        path: str = Field("", description="folder of the images, relative to the working directory")
        metadata: str = Field("", description="the CSV, relative to the working directory")

    @cached_property
    def card(self) -> Card:
        """The data card, as the CSV says."""
        table, size = self._table, self.params.size
        classes, biases = _names(table["label"]), _names(table["bias"]) if "bias" in table else ()
        train = table[table["split"] == "train"]
        splits = sorted(set(table["split"]), key=lambda name: (name != "val", name != "test", name))
        return Card(
            title=self.title,
            about=f"{len(table)} images below {self.params.path}, described by {self.params.metadata}.",
            citation="your own",
            url="",
            licence="your own",
            origin=self.params.metadata,
            classes=classes,
            biases=biases,
            aligned=tuple(_aligned(train[train["label"] == name], biases) for name in classes),
            bias_parts=tuple(len(_names(table[column])) for column in _bias_columns(table)) if biases else (),
            image_shape=(3, size, size),
            backbone="resnet18",
            normalize="imagenet",
            training=training(30),
            eval_splits=tuple(name for name in splits if name != "train"),
            test_splits=tuple(name for name in splits if name not in ("train", "val")),
        )

    def listings(self, root: Path | None) -> dict[str, Listing]:
        """The rows of the CSV, in their order."""
        table, card = self._table, self.card
        files = [Path(self.params.path) / name for name in table["file"]]
        labels = _codes(table["label"], card.classes)
        biases = _codes(table["bias"], card.biases) if card.biases else None
        whole = Listing(files, labels, biases)
        return {split: whole.at(np.flatnonzero(table["split"] == split)) for split in ("train", *card.eval_splits)}

    def fingerprint(self, root: Path | None) -> str:
        """Of the CSV and of names, sizes and times of all files."""
        csv = hashlib.sha256(Path(self.params.metadata).read_bytes()).hexdigest()[:16]
        return f"csv={csv},{super().fingerprint(root)}"

    @cached_property
    def _table(self) -> pd.DataFrame:
        if not self.params.path or not self.params.metadata:
            raise ZooError("data set 'folder' needs both: folder:path=DIR,metadata=FILE.csv")
        if not Path(self.params.path).is_dir():
            raise ZooError(f"data set 'folder': there is no folder {self.params.path}")
        table = read_table(Path(self.params.metadata), ("file", "split", "label"))
        columns = _bias_columns(table)
        if "bias" in table and columns != ["bias"]:
            raise ZooError(
                f"{self.params.metadata} has a column 'bias' and columns {', '.join(columns)}: keep one kind"
            )
        if len(columns) > 1:
            table["bias"] = [" / ".join(row) for row in zip(*(table[name] for name in columns), strict=True)]
        elif columns:
            table["bias"] = table[columns[0]]
        self._refuse(table)
        return table

    def _refuse(self, table: pd.DataFrame) -> None:
        """Splits and labels that make no sense."""
        for name in dict.fromkeys(table["split"]):
            if name not in ("train", "val", "test") and name.lower() in ("train", "training", "val", "valid", "test"):
                raise ZooError(f"{self.params.metadata}: write train, val or test, not {name!r}")
        if "train" not in set(table["split"]):
            raise ZooError(f"{self.params.metadata} has no row whose split is 'train'")
        if set(table["split"]) <= {"train", "val"}:
            raise ZooError(f"{self.params.metadata} has nothing to test on: give some rows the split 'test'")
        trained = set(table["label"][table["split"] == "train"])
        if missing := sorted(set(table["label"]) - trained):
            raise ZooError(f"{self.params.metadata}: label {missing[0]!r} has no training image")


def _bias_columns(table: pd.DataFrame) -> list[str]:
    several = [str(name) for name in table.columns if str(name).startswith("bias_")]
    return several or (["bias"] if "bias" in table else [])


def _names(column: pd.Series) -> tuple[str, ...]:
    return tuple(sorted(set(column)))


def _codes(column: pd.Series, names: tuple[str, ...]) -> Ints:
    position = {name: k for k, name in enumerate(names)}
    return np.array([position[name] for name in column], np.int64)


def _aligned(rows: pd.DataFrame, biases: tuple[str, ...]) -> tuple[int, ...]:
    """The bias that most of a class's training images have."""
    if not biases or rows.empty:
        return ()
    return (biases.index(Counter(rows["bias"]).most_common(1)[0][0]),)
