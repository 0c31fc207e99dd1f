"""What a results table is made of: values, rows, blocks of comparable rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from debias_zoo.trial import Supervision, Trial

from .published import Published
from .settings import Setting, data_of, key_of

LEVELS = ("no bias labels", "bias labels to select", "bias labels to train")
"""Groups of a table, in its order: values of ``Supervision.level``."""

SELECTION = "last"
"""Which epoch's numbers are shown; reads no labels."""


@dataclass(frozen=True)
class Value:
    """A metric over seeds, as fractions; ``std`` with ddof 1, None for one seed. rank: 1 best, 2 second, or None."""

    mean: float
    std: float | None
    rank: int | None = None


@dataclass(frozen=True)
class Row:
    """One method on one data set in one setting.

    Attributes:
        trial: of the smallest seed; everything in it but the seed holds for the whole row.
        split: where it was measured. fields: what the row's results share, as in ``settings.py``.
        seeds: whose results it averages, ascending. seconds: mean of the whole trials.
        values: metric -> value, None where a seed has none.
        published: the paper's accuracy on this data.
        setting: what tells it from the table's other rows of this method and data set; "" where there are none.
        label: the same, among the rows of its ``Block``.
    """

    trial: Trial
    split: str
    fields: Setting
    seeds: tuple[int, ...]
    seconds: float | None
    values: Mapping[str, Value | None]
    published: Published | None = None
    setting: str = ""
    label: str = ""

    @property
    def method(self) -> str:
        """Registry name."""
        return self.trial.method

    @property
    def dataset(self) -> str:
        """Registry name."""
        return self.trial.dataset

    @property
    def supervision(self) -> Supervision:
        """Which bias labels were read."""
        return self.trial.supervision

    @property
    def data(self) -> tuple[str, str]:
        """On what it was measured and under which protocol; rows that share it are ranked together."""
        return self.dataset, key_of(data_of(self.fields))


@dataclass(frozen=True)
class Block:
    """Rows that were measured on the same data under the same protocol; ``title`` tells it from other blocks."""

    title: str
    rows: tuple[Row, ...]

    def groups(self) -> list[tuple[str, list[Row]]]:
        """The rows by level of supervision, in the order of ``LEVELS``, without empty ones."""
        by_level = [(level, [row for row in self.rows if row.supervision.level == level]) for level in LEVELS]
        return [(level, rows) for level, rows in by_level if rows]


@dataclass(frozen=True)
class Table:
    """Blocks of rows, and what is missing from them, in words."""

    blocks: tuple[Block, ...]
    problems: tuple[str, ...] = ()

    @property
    def rows(self) -> list[Row]:
        """All rows, in the order of the table."""
        return [row for block in self.blocks for row in block.rows]

    @property
    def has_published(self) -> bool:
        """Whether any row has a published number beside it."""
        return any(row.published for row in self.rows)
