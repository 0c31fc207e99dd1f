"""The figures of a page: of each block of comparable rows, then those of all data."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from debias_zoo.errors import ZooError
from debias_zoo.metrics import LEAKAGE
from debias_zoo.store import Run

from .caption import Notes
from .cells import TITLES
from .critical_difference import draw
from .drawing import style, to_svg
from .figures import group_maps, learning_curves, pareto, robustness
from .friedman import average_ranks, why_no_ranks
from .leakage_figure import leakage_figure
from .page_data import RowData
from .rows import Block, Row, Table

_SHEETS = "*-heat.png"
"""Grad-CAM sheets that ``debias-zoo explain`` left in the runs' folder."""

_MOST_PANELS = 24
"""Of a figure; more methods go on in a further one."""

T = TypeVar("T")


@dataclass(frozen=True)
class Figure:
    """A picture of the page: inline SVG or a data URI, and what it shows."""

    title: str
    about: str
    svg: str = ""
    source: str = ""


@dataclass(frozen=True)
class Group:
    """Figures under a heading; "" where all figures of the page are of the same data."""

    heading: str
    figures: tuple[Figure, ...]


def figure_groups(
    table: Table, data: Mapping[int, RowData], runs: Sequence[Run], metric: str, folder: Path | None
) -> list[Group]:
    """Every figure that can be drawn of the table; no group is empty.

    Args:
        table: its rows are drawn.
        data: by the ``id`` of the row.
        runs: of the table, with what was probed.
        metric: of the figures that show one.
        folder: where Grad-CAM sheets are looked for, or None.
    """
    several = len(table.blocks) > 1
    with style():
        found = [Group(_title(block, several), tuple(_of_block(block, data, table))) for block in table.blocks]
        shared = [*_robustness(table, metric), *_ranks(table, metric), *_leakage(table, runs), *_pictures(folder)]
    found.append(Group("All data" if several else "", tuple(shared)))
    return [group for group in found if group.figures]


def _title(block: Block, several: bool) -> str:
    return block.title if several else ""


def _of_block(block: Block, data: Mapping[int, RowData], table: Table) -> Iterator[Figure]:
    rows = block.rows
    names = _names(block, table)
    on = f" on {block.title}"
    curves = {name: found for name, row in names.items() if (found := data[id(row)].curves) is not None}
    for which, part in _parts(curves):
        about = "Accuracy on the split of the table after every epoch of all stages: mean over seeds, range shaded."
        yield _drawn(f"Learning curves{which}", on, about, learning_curves(part))
    maps = {name: known for name, row in names.items() if (known := data[id(row)].accuracies) is not None}
    groups = next((result.groups for row in rows for result in row.results if result.groups), None)
    if groups is not None:
        for which, members in _parts(maps):
            about = "Accuracy by label and bias after the last epoch, mean over seeds; bias-aligned groups are framed."
            drawn = group_maps(members, groups.classes, groups.biases, groups.aligned)
            yield _drawn(f"Accuracy of the groups{which}", on, about, drawn)
    if any(row.seconds and row.values["accuracy"] for row in rows):
        about = "Accuracy against the seconds of a trial; the line joins what no other method beats in both."
        yield _drawn("Cost against accuracy", on, about, pareto({"": list(names.values())}, "accuracy", list(names)))


def _parts(panels: Mapping[str, T]) -> Iterator[tuple[str, dict[str, T]]]:
    """What is drawn in one figure, and which part of the whole that is: "" where it is all."""
    names = list(panels)
    starts = range(0, len(names), _MOST_PANELS)
    for number, start in enumerate(starts, start=1):
        which = f", {number} of {len(starts)}" if len(starts) > 1 else ""
        yield which, {name: panels[name] for name in names[start : start + _MOST_PANELS]}


def _names(block: Block, table: Table) -> dict[str, Row]:
    """Rows by a name that is short enough for a figure: a long setting is a number, as in the table."""
    notes = Notes(table)
    found = {}
    for row in block.rows:
        name = notes.name(row)
        number = next((mark for mark in name.marks if mark.isdigit()), "")
        found[f"{name.method} [{number}]" if number else row.name] = row
    return found


def _robustness(table: Table, metric: str) -> Iterator[Figure]:
    """A figure for each numeric parameter of the data that some method was run at two values of, all else alike."""
    for name in dict.fromkeys(name for row in table.rows for name in row.trial.params):
        if any(isinstance(row.trial.params.get(name), str | bool) for row in table.rows):
            continue
        try:
            drawn = robustness(table, name, metric)
        except ZooError:
            continue
        about = f"{TITLES[metric]} against {name} of the data; mean ± sample standard deviation over seeds."
        yield _drawn(f"Robustness against {name}", "", about, drawn)


def _ranks(table: Table, metric: str) -> Iterator[Figure]:
    """The critical-difference diagram, where there are enough methods and blocks."""
    scores = table.scores(metric)
    if not table.separate and not why_no_ranks(scores):
        about = f"Average ranks by {TITLES[metric]} over data sets and seeds; a bar joins what is not told apart."
        yield _drawn("Critical difference", "", about, draw(average_ranks(scores, metric)))


def _leakage(table: Table, runs: Sequence[Run]) -> Iterator[Figure]:
    if LEAKAGE in table.metrics:
        about = "What fresh linear probes read in the frozen features at each layer, over chance."
        yield _drawn("Bias leakage", "", about, leakage_figure(runs))


def _drawn(title: str, on: str, about: str, drawn: Any) -> Figure:
    return Figure(title, about, svg=to_svg(drawn, f"{title}{on}. {about}"))


def _pictures(folder: Path | None) -> Iterator[Figure]:
    for path in sorted(folder.glob(_SHEETS)) if folder is not None else []:
        try:
            text = base64.b64encode(path.read_bytes()).decode()
        except OSError as error:
            raise ZooError(f"cannot read {path}: {error.strerror or error}") from error
        about = "Where the last layer with a map looked (Grad-CAM), on the same bias-conflicting images."
        yield Figure(f"Grad-CAM, {path.stem}", about, source=f"data:image/png;base64,{text}")
