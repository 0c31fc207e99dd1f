"""What each method costs beside what it gains: time, memory, parameters, passes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .caption import conditions
from .cells import NOTHING, percent, whole_or_tenth
from .rows import Block, Row, Table
from .sheets import Cell, Column, Section, Sheet

MEBIBYTE = 2.0**20

_COLUMNS = (
    Column("method", "Method", text=True),
    Column("accuracy", "Accuracy"),
    Column("seconds", "Seconds"),
    Column("relative", "x ERM"),
    Column("evaluate", "Evaluation %"),
    Column("peak", "Peak MiB"),
    Column("parameters", "Parameters"),
    Column("extra_parameters", "Extra"),
    Column("steps", "Steps"),
    Column("forward_passes", "Forward/step"),
    Column("backward_passes", "Backward/step"),
)


def costs_sheet(table: Table, baseline: str = "erm") -> Sheet:
    """One row a method and setting; ``baseline`` is the method whose seconds count as one."""
    sections = []
    for block in table.blocks:
        heading = block.title if len(table.blocks) > 1 else ""
        sections.append(Section(heading, tuple(_row(row, _base(row, block, baseline)) for row in block.rows)))
    machines = {machine for row in table.rows for machine in _machines(row)}
    unknown = any(_mean([result.cost.get("forward_passes") for result in row.results]) is None for row in table.rows)
    notes = (
        *(conditions(table.rows) if table.rows else ()),
        f"Mean over seeds of whole trials, with evaluation after every epoch. Made on: {'; '.join(sorted(machines))}.",
        f"x ERM: seconds beside those of {baseline} on the same data and machine; of several, of the one with the same "
        "backbone and precision.",
        "Seconds of trials that ran side by side, or beside other work, are longer than those of one alone.",
        "Peak MiB: of the worker's whole process on a CPU, with data and libraries; of the tensors on a GPU.",
        "Extra: parameters beyond the network that predicts. Forward/step: passes of a backbone, whole or up to a tap; "
        "Backward/step: losses that are propagated back.",
        *([f"{NOTHING}: not noted by the version that ran it."] if unknown else []),
    )
    return Sheet("cost", "What the methods cost", _COLUMNS, tuple(sections), notes, table.problems)


def _base(row: Row, block: Block, baseline: str) -> float | None:
    """Seconds of the row of ``baseline`` that this one is measured by, or None."""
    found = [other for other in block.rows if other.method == baseline and _machines(other) == _machines(row)]
    if len(found) > 1:
        found = [other for other in found if _network(other) == _network(row)]
    return found[0].seconds if len(found) == 1 else None


def _network(row: Row) -> tuple[object, ...]:
    trial = row.trial
    return trial.backbone, trial.backbone_options, trial.weights_digest, trial.precision, trial.train_limit


def _row(row: Row, base: float | None) -> tuple[Cell, ...]:
    accuracy = row.values["accuracy"]
    relative = row.seconds / base if row.seconds and base else None
    total, evaluate = (_mean([result.seconds.get(key) for result in row.results]) for key in ("total", "evaluate"))
    share = evaluate / total if evaluate is not None and total else None
    cost = {key: _mean([result.cost.get(key) for result in row.results]) for key in _COST}
    peak = cost["peak_bytes"]
    return (
        Cell(row.name, {"": row.method, "setting": row.setting, "seeds": list(row.seeds)}),
        Cell(percent(accuracy.mean) if accuracy else NOTHING, accuracy.mean if accuracy else None),
        Cell(whole_or_tenth(row.seconds), row.seconds),
        Cell(NOTHING if relative is None else f"{relative:.2f}", relative),
        Cell(NOTHING if share is None else f"{100 * share:.1f}", share),
        Cell(NOTHING if peak is None else f"{peak / MEBIBYTE:,.0f}", peak),
        *[Cell(_whole(cost[key]), cost[key]) for key in ("parameters", "extra_parameters", "steps")],
        *[Cell(_passes(cost[key]), cost[key]) for key in ("forward_passes", "backward_passes")],
    )


_COST = ("peak_bytes", "parameters", "extra_parameters", "steps", "forward_passes", "backward_passes")


def _mean(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return statistics.fmean(known) if known and len(known) == len(numbers) else None


def _whole(number: float | None) -> str:
    return NOTHING if number is None else f"{number:,.0f}"


def _passes(number: float | None) -> str:
    return NOTHING if number is None else f"{number:.2f}".rstrip("0").rstrip(".")


def _machines(row: Row) -> set[str]:
    return {_machine(result.environment) for result in row.results}


def _machine(found: Mapping[str, Any]) -> str:
    threads = found.get("threads", "?")
    counted = "1 thread" if threads == 1 else f"{threads} threads"
    return f"{found.get('processor', 'unknown')}, {found.get('device', 'unknown')}, {counted}"
