"""Selection rules side by side: what each would have reported from the same runs, and what it loses to the oracle."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from debias_zoo.errors import ZooError
from debias_zoo.metrics import ERRORS, goodness

from .caption import conditions, tuning
from .cells import NOTHING, TITLES, percent, spread
from .rows import Row, Table, Value, over_seeds
from .selection import DEFAULT, RULES, Epochs, EpochsOf, Rule, select
from .sheets import Cell, Column, Section, Sheet


def choices_sheet(table: Table, epochs: EpochsOf, rules: Sequence[Rule], metric: str) -> Sheet:
    """One metric under several rules.

    Args:
        table: of the last epochs, whose rows are shown.
        epochs: of the rows' runs.
        rules: the columns.
        metric: that is shown; the oracle is its best epoch.
    """
    told = list(table.problems)
    columns = [Column("method", "Method", text=True), *[Column(rule.name, rule.name) for rule in rules]]
    sections = []
    for block in table.blocks:
        rows = [_row(row, epochs, rules, metric, told) for row in block.rows]
        sections.append(Section(block.title if len(table.blocks) > 1 else "", tuple(rows)))
    reads = "; ".join(f"{rule.name}: {rule.about}, reads {rule.reads}" for rule in rules)
    better = "is nearer to zero" if metric in ERRORS else "has more"
    notes = (
        *((*conditions(table.rows), tuning(table.rows)) if table.rows else ()),
        f"{reads}.",
        f"In brackets the regret: how many points the oracle, the best eligible epoch on the shown split, {better}.",
        "Eligible are the epochs of the last stage; no number where a run has no such split or no bias labels there.",
    )
    title = f"{TITLES[metric]} under {len(rules)} selection rules, in per cent"
    return Sheet(f"selection-{metric}", title, tuple(columns), tuple(sections), notes, tuple(dict.fromkeys(told)))


def _row(row: Row, epochs: EpochsOf, rules: Sequence[Rule], metric: str, told: list[str]) -> tuple[Cell, ...]:
    name = Cell(row.name, {"": row.method, "setting": row.setting, "seeds": list(row.seeds)})
    try:
        found = [epochs(result.identity) for result in row.results]
    except ZooError as error:
        told.append(f"no number: {row.name}: {error}")
        return (name, *[_stored(row.values[metric]) if rule.name == DEFAULT else Cell(NOTHING) for rule in rules])
    best = [_value(one, RULES["oracle"], row.split, metric) for one in found]
    return (name, *[_cell(found, rule, row.split, metric, best) for rule in rules])


def _stored(value: Value | None) -> Cell:
    """The last epoch of results without predictions; without them there is no regret."""
    if value is None:
        return Cell(NOTHING)
    return Cell(f"{percent(value.mean)}{spread(value.std)}", {"mean": value.mean, "std": value.std})


def _value(epochs: Epochs, rule: Rule, split: str, metric: str) -> float | None:
    result = select(epochs, rule, split, metric)
    return None if result is None else result.metrics[split].get(metric)


def _cell(epochs: Sequence[Epochs], rule: Rule, split: str, metric: str, best: Sequence[float | None]) -> Cell:
    """Mean, spread and mean regret over seeds; nothing where the rule cannot be asked of each of them."""
    values = [_value(found, rule, split, metric) for found in epochs]
    pairs = [(value, top) for value, top in zip(values, best, strict=True) if value is not None and top is not None]
    if not pairs or len(pairs) < len(values):
        return Cell(NOTHING)
    shown = over_seeds([value for value, _ in pairs])
    assert shown is not None  # none of the values is missing
    regret = statistics.mean(goodness(metric, top) - goodness(metric, value) for value, top in pairs)
    chosen = [found.chosen(rule, split, metric) for found in epochs]
    value = {"mean": shown.mean, "std": shown.std, "regret": regret, "epochs": chosen}
    lost = "" if rule.name == "oracle" else f" ({percent(regret)})"
    return Cell(f"{percent(shown.mean)}{spread(shown.std)}{lost}", value)
