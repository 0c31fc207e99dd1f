"""Numbers that papers published, each with its setting and source, to stand beside ours."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from debias_zoo.errors import ZooError, unknown
from debias_zoo.metrics import DEFINITIONS

FILE = Path(__file__).with_name("published.csv")
"""``method,dataset,setting,metric,mean,std,n,source,verified``; means are fractions, settings as ``variance=0.02``."""

HEADLINE = ("accuracy", "unbiased", "worst_group")
"""What stands for a paper's result: its accuracy or, where it gives no plain one, the first of these that it gives."""

COLUMNS = ("method", "dataset", "setting", "metric", "mean", "std", "n", "source", "verified")


@dataclass(frozen=True)
class Published:
    """A number of a paper, on the data set's test split.

    Attributes:
        setting: parameters of the data set that it belongs to, by name, as text; ``split`` where that is not ``test``.
        mean, std: fractions; std and n (seeds) are None where none was published.
        verified: whether someone of the project read the number in the source itself.
    """

    method: str
    dataset: str
    setting: Mapping[str, str]
    metric: str
    mean: float
    std: float | None
    n: int | None
    source: str
    verified: bool

    def belongs_to(self, params: Mapping[str, Any]) -> bool:
        """Whether ``params`` of a data set have every value of the setting; numbers are compared as numbers."""
        return all(name in params and _same(params[name], text) for name, text in self.setting.items())


def find(method: str, dataset: str, params: Mapping[str, Any], metric: str | None = None) -> Published | None:
    """What was published for a method on a data set with these parameters, or None.

    Of several, the first that was read in its source, or else the first. metric: None for the first of ``HEADLINE``.
    """
    for wanted in HEADLINE if metric is None else (metric,):
        of_it = [p for p in published() if p.method == method and p.dataset == dataset and p.metric == wanted]
        found = [p for p in of_it if p.belongs_to(params)]
        if found:
            return next((entry for entry in found if entry.verified), found[0])
    return None


@lru_cache(maxsize=1)
def published() -> tuple[Published, ...]:
    """All published numbers that come with the zoo."""
    return read_published(FILE)


def read_published(path: Path) -> tuple[Published, ...]:
    """The entries of a file like ``published.csv``; a line that makes no sense raises a ZooError that names it."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, restval="")
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ZooError(f"{path} must have the columns {','.join(COLUMNS)}; it has {reader.fieldnames}")
        return tuple(_entry(row, f"{path}, line {reader.line_num}") for row in reader)


def _entry(row: Mapping[str, str], where: str) -> Published:
    if row["metric"] not in DEFINITIONS:
        raise unknown(f"metric in {where}:", row["metric"], DEFINITIONS)
    try:
        return Published(
            method=row["method"],
            dataset=row["dataset"],
            setting=dict(_pair(piece) for piece in row["setting"].split(",") if piece),
            metric=row["metric"],
            mean=_fraction(row["mean"]),
            std=_fraction(row["std"]) if row["std"] else None,
            n=int(row["n"]) if row["n"] else None,
            source=row["source"],
            verified={"yes": True, "no": False}[row["verified"]],
        )
    except (ValueError, KeyError) as error:
        raise ZooError(
            f"{where}: {error} makes no sense; mean and std are fractions, n a whole number, setting is "
            "name=value[,name=value...], verified is yes or no"
        ) from error


def _fraction(text: str) -> float:
    value = float(text)
    if not -1.0 <= value <= 1.0:
        raise ValueError(f"{text!r}, not a fraction,")
    return value


def _pair(piece: str) -> tuple[str, str]:
    name, equals, text = piece.partition("=")
    if not equals:
        raise ValueError(f"setting {piece!r}")
    return name.strip(), text.strip()


def _same(value: Any, text: str) -> bool:
    if isinstance(value, bool):
        return text.lower() == str(value).lower()
    if not isinstance(value, int | float):
        return str(value) == text
    try:
        return float(text) == float(value)
    except ValueError:
        return False
