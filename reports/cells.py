"""How numbers and columns are written in the formats that people read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .published import Published
from .rows import Row, Table, Value

T = TypeVar("T")

TITLES = {
    "accuracy": "Accuracy",
    "unbiased": "Unbiased",
    "aligned": "Bias-aligned",
    "conflicting": "Bias-conflicting",
    "worst_group": "Worst-group",
    "gap": "Gap",
    "train_weighted": "Train-weighted",
    "ece": "ECE",
    "ece_worst": "Worst-group ECE",
    "auroc": "AUROC",
    "leakage": "Bias-leakage",
}
"""Metric -> title of its column."""

WORST = "Worst-group 95 %"
"""Title of the column with the worst group's interval."""

UNREAD = "?"
"""Marks a published number that was not read in the paper itself."""

NOTHING = "–"
"""What stands where there is no number."""


def percent(fraction: float) -> str:
    """``40.55`` for 0.4055; two decimals, and never ``-0.00``."""
    text = f"{100.0 * fraction:.2f}"
    return "0.00" if text == "-0.00" else text


def spread(std: float | None) -> str:
    """`` ± 1.23``, in per cent; nothing where there is none."""
    return "" if std is None else f" ± {percent(std)}"


def marked(value: Value | None, best: str, second: str) -> str:
    """``40.55 ± 1.23`` with the mean in ``best`` or ``second``, which have {} in its place, where it is ranked so."""
    if value is None:
        return NOTHING
    mean = {1: best, 2: second, None: "{}"}[value.rank].format(percent(value.mean))
    return mean + spread(value.std)


def interval(pair: tuple[float, float] | None) -> str:
    """``12.3–45.6``, in per cent."""
    return NOTHING if pair is None else f"{100.0 * pair[0]:.1f}–{100.0 * pair[1]:.1f}"


def published_cell(number: Published | None) -> str:
    """A paper's number, marked where nobody of the project has read it there."""
    return NOTHING if number is None else percent(number.mean) + ("" if number.verified else UNREAD)


def whole_or_tenth(seconds: float | None) -> str:
    """Seconds, with one decimal below a hundred."""
    if seconds is None:
        return NOTHING
    return f"{seconds:.0f}" if seconds >= 99.95 else f"{seconds:.1f}"


def titles(table: Table) -> list[str]:
    """Titles of the columns between the method and what is said of the run; a paper's number stands by its metric."""
    found = []
    for metric in table.metrics:
        found.append(TITLES[metric])
        if metric == "worst_group" and table.has_intervals:
            found.append(WORST)
        if metric in table.published_metrics:
            found.append("Published")
    return found


def cells(table: Table, row: Row, value: Callable[[Value | None], T], text: Callable[[str], T]) -> list[T]:
    """The row's cells below ``titles``; ``value`` and ``text`` write a metric and plain text in a format."""
    found = []
    for metric in table.metrics:
        found.append(value(row.values[metric]))
        if metric == "worst_group" and table.has_intervals:
            found.append(text(interval(row.worst)))
        if metric in table.published_metrics:
            number = row.published if row.published and row.published.metric == metric else None
            found.append(text(published_cell(number)))
    return found
