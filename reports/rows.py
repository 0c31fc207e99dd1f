"""What a results table is made of: values, rows, blocks of comparable rows."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from debias_zoo.metrics import METRICS
from debias_zoo.trial import Result, Supervision, Trial

from .lines import pooled
from .published import Published
from .selection import DEFAULT
from .settings import Setting, data_of, key_of

LEVELS = ("no bias labels", "bias labels to select", "bias labels to train", "test labels to select")
"""Groups of a table, in its order: values of ``Supervision.level``."""


@dataclass(frozen=True)
class Value:
    """A metric over seeds, as fractions; ``std`` with ddof 1, None for one seed. rank: 1 best, 2 second, or None."""

    mean: float
    std: float | None
    rank: int | None = None


def over_seeds(numbers: Sequence[float | None]) -> Value | None:
    """Mean and spread of one number a seed, not ranked; None where a seed has none."""
    known = [number for number in numbers if number is not None and math.isfinite(number)]
    if len(known) < len(numbers):
        return None
    mean = statistics.mean(known)
    if len(known) == 1:
        return Value(mean, None)
    return Value(mean, math.sqrt(math.fsum((number - mean) ** 2 for number in known) / (len(known) - 1)))


@dataclass(frozen=True)
class Row:
    """One method on one data set in one setting.

    Attributes:
        trial: of the smallest seed; everything in it but the seed holds for the whole row.
        split: where it was measured. fields: what the row's results share, as in ``settings.py``.
        results: that it averages, one a seed, ascending. seconds: mean of the whole trials.
        values: metric -> value, None where a seed has none.
        worst: Wilson's 95 % interval of a worst group's images, round the mean over seeds, as fractions, or None.
        published: the paper's accuracy on this data.
        setting: what tells it from the table's other rows of this method and data set; "" where there are none.
        label: the same, among the rows of its ``Block``.
    """

    trial: Trial
    split: str
    fields: Setting
    results: tuple[Result, ...]
    seconds: float | None
    values: Mapping[str, Value | None]
    worst: tuple[float, float] | None = None
    published: Published | None = None
    setting: str = ""
    label: str = ""

    @property
    def method(self) -> str:
        """Registry name."""
        return self.trial.method

    @property
    def name(self) -> str:
        """The method, with what tells the row from others of its block."""
        return f"{self.method} ({self.label})" if self.label else self.method

    @property
    def dataset(self) -> str:
        """Registry name."""
        return self.trial.dataset

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of its results, ascending."""
        return tuple(result.trial.seed for result in self.results)

    @property
    def supervision(self) -> Supervision:
        """Which bias labels were read."""
        return self.trial.supervision

    @cached_property
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
    """Blocks of rows.

    Attributes:
        problems: what is missing, in words. metrics: what is shown to people. selection: name of the rule that chose
            the epochs; of the oracle, by the first of the metrics.
    """

    blocks: tuple[Block, ...]
    problems: tuple[str, ...] = ()
    metrics: tuple[str, ...] = METRICS
    selection: str = DEFAULT

    @property
    def rows(self) -> list[Row]:
        """All rows, in the order of the table."""
        return [row for block in self.blocks for row in block.rows]

    @cached_property
    def separate(self) -> str:
        """Why the blocks cannot be pooled: two that show the same images in different ways; "" where there are none."""
        seen: set[tuple[str, str, str]] = set()
        for block in self.blocks:
            first = block.rows[0]
            images = first.dataset, json.dumps(first.trial.params, sort_keys=True), first.split
            if images in seen:
                return (
                    f"Not taken together over all data: {first.dataset} is there in several ways (protocol, limits or "
                    "version), and the same images would count twice."
                )
            seen.add(images)
        return ""

    def scores(self, metric: str) -> dict[str, dict[tuple[str, int], float]]:
        """Numbers of one metric for statistics: name of a line -> (title of its block, seed) -> fraction."""
        found: dict[str, dict[tuple[str, int], float]] = {}
        for line in pooled(self.blocks):
            for place, row in line.rows.items():
                values = {result.trial.seed: result.metrics[row.split].get(metric) for result in row.results}
                title = self.blocks[place].title
                known = {(title, seed): value for seed, value in values.items() if value is not None}
                found.setdefault(line.name, {}).update(known)
        return found

    @cached_property
    def has_intervals(self) -> bool:
        """Whether the worst group is shown and any row has its interval."""
        return "worst_group" in self.metrics and any(row.worst for row in self.rows)

    @cached_property
    def published(self) -> list[Published]:
        """The published numbers beside the rows, of metrics that are shown."""
        return [row.published for row in self.rows if row.published and row.published.metric in self.metrics]

    @cached_property
    def published_metrics(self) -> set[str]:
        """The metrics of these numbers."""
        return {number.metric for number in self.published}
