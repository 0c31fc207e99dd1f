"""The numbers of a page as JSON: what its script shows when a rule, a split or a column is chosen, and its dialog."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from debias_zoo.metrics import ALL_METRICS, LEAKAGE

from .cells import percent
from .page_data import Choice, RowData
from .ranking import ranks
from .rows import Value, over_seeds
from .selection import DEFAULT, RULES
from .table import worst_interval

INTERVAL = "interval"
"""Key of the worst group's interval beside those of the metrics."""

Entry = list[Any]
"""[mean, sample standard deviation or None, rank or None, the numbers of several seeds]; of an interval [low, high].

Per cent, rounded as in every format. What is None at the end is left out.
"""

Numbers = dict[str, dict[str, dict[str, Entry]]]
"""Rule -> split -> metric -> entry; what is not known is left out."""


def numbers_of(block: Sequence[RowData]) -> list[Numbers]:
    """The numbers of rows that are ranked together, in their order."""
    found: list[Numbers] = [{} for _ in block]
    for rule in RULES:
        choices = [data.choices.get(rule) for data in block]
        splits = dict.fromkeys(split for choice in choices if choice for split in choice.metrics)
        for split in splits:
            entries = _entries(choices, split)
            if rule == DEFAULT:  # what was probed is the last epoch's network
                entries = [
                    _with_leakage(one, data.row.values[LEAKAGE]) for one, data in zip(entries, block, strict=True)
                ]
            for numbers, one in zip(found, entries, strict=True):
                if one:
                    numbers.setdefault(rule, {})[split] = one
    return found


def _entries(choices: Sequence[Choice | None], split: str) -> list[dict[str, Entry]]:
    """Of each row, its entries on one split under one rule."""
    rows = [choice.metrics.get(split, []) if choice else [] for choice in choices]
    found: list[dict[str, Entry]] = [{} for _ in rows]
    for metric in ALL_METRICS:
        seeds = [[one.get(metric) for one in row] for row in rows]
        values = [over_seeds(numbers) if numbers else None for numbers in seeds]
        means = [value.mean if value else None for value in values]
        places = ranks(metric, means, [len(row) for row in rows])
        for entries, value, rank, numbers in zip(found, values, places, seeds, strict=True):
            if value is not None:
                entries[metric] = _entry(value, rank, [number for number in numbers if number is not None])
    for entries, row in zip(found, rows, strict=True):
        if row and (pair := worst_interval(row)) is not None:
            entries[INTERVAL] = [round(100 * end, 1) for end in pair]
    return found


def _with_leakage(entries: dict[str, Entry], value: Value | None) -> dict[str, Entry]:
    return entries if value is None or not entries else {**entries, LEAKAGE: _entry(value, value.rank, ())}


def _entry(value: Value, rank: int | None, seeds: Sequence[float]) -> Entry:
    found: Entry = [_rounded(value.mean), None if value.std is None else _rounded(value.std), rank]
    if len(seeds) > 1:
        return [*found, [_rounded(number) for number in seeds]]
    while found[-1] is None:
        found.pop()
    return found


def _rounded(fraction: float) -> float:
    return float(percent(fraction))


def as_json(data: RowData, numbers: Numbers, place: int) -> dict[str, Any]:
    """What the page's script and its dialog show of a row; ``place``: of the row in the table."""
    row = data.row
    return {
        "id": place,
        "name": row.name,
        "split": row.split,
        "published": None if row.published is None else _rounded(row.published.mean),
        "seconds": None if row.seconds is None else round(row.seconds, 1),
        "told": data.told,
        "command": row.trial.command(row.seeds),
        "levels": data.levels,
        "choices": {rule: _choice(choice, numbers.get(rule, {})) for rule, choice in data.choices.items()},
        "seeds": [
            {
                "seed": result.trial.seed,
                "identity": result.identity,
                "environment": result.environment,
                "notes": result.notes,
            }
            for result in row.results
        ],
        "config": row.trial.model_dump(mode="json", exclude={"seed", "supervision"}, exclude_defaults=True),
    }


def _choice(choice: Choice, numbers: dict[str, dict[str, Entry]]) -> dict[str, Any]:
    regrets = {metric: round(value, 2) for metric, value in (choice.regrets or {}).items()}
    return {"epochs": choice.epochs, "regrets": regrets, "numbers": numbers}
