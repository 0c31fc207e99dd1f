"""The figures of a report: learning curves, group heat maps, robustness, cost against accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from debias_zoo.errors import ZooError

from .cells import TITLES
from .critical_difference import draw
from .drawing import GREY, MARKERS, colors, figure, save, style, text_width, wrapped
from .friedman import average_ranks
from .labels import place_labels
from .robustness import Line, lines, shown
from .rows import LEVELS, Row, Table

if TYPE_CHECKING:
    from .report import Asked, Report

_MOST_NUMBERS, _MOST_NAMES = 4, 24
"""Labels or biases: with more, a heat map shows no numbers, or no names."""

_NAME, _PANEL_NAME = 28, 24
"""Characters of a method's name in a line: in a legend or beside a point, and above a panel."""

_TITLE = 0.17
"""Inches a line of a panel's title."""

_MOST_LABELS = 40
"""Points of a figure that all have their names."""

Floats = npt.NDArray[np.float64]


def draw_report(report: Report, asked: Asked, path: Path) -> None:
    """Draw what ``--curve``, ``--compare`` or ``--cost`` asked for into a file."""
    with style():
        if asked.curve:
            save(robustness(report.table, asked.curve, asked.metrics[0]), path)
        elif asked.compare is not None:
            if report.table.separate:
                raise ZooError(f"no critical difference. {report.table.separate}")
            save(draw(average_ranks(report.table.scores(asked.metrics[0]), asked.metrics[0])), path)
        else:
            save(pareto({block.title: block.rows for block in report.table.blocks}, asked.metrics[0]), path)


def robustness(table: Table, parameter: str, metric: str) -> Any:
    """A metric against a parameter of the data, a line a method; a panel for each setting of the rest."""
    groups = lines(table, parameter, metric)
    drawn = figure(3.9 * len(groups) + 1.4, 3.2)
    panels = drawn.subplots(1, len(groups), squeeze=False, sharey=True)[0]
    names = list(dict.fromkeys(line.name for of_group in groups.values() for line in of_group))
    shades = colors(names)
    for panel, of_group in zip(panels, groups.values(), strict=True):
        for line in of_group:
            number = names.index(line.name)
            _line(panel, line, metric, shades[line.name], MARKERS[number % len(MARKERS)])
        _ticks(panel, sorted({place for line in of_group for place in line.values if not isinstance(place, str)}))
        panel.set_xlabel(f"{parameter} of {of_group[0].row.dataset}")
        panel.grid(axis="y")
    panels[0].set_ylabel(f"{TITLES[metric]} (%)")
    _legend(drawn, panels)
    return drawn


def _line(panel: Any, line: Line, metric: str, shade: Any, marker: str) -> None:
    places = sorted(line.values, key=lambda value: (isinstance(value, str), value))
    means = [100 * line.values[place].mean for place in places]
    spreads = [100 * (line.values[place].std or 0.0) for place in places]
    x = [shown(place) for place in places] if any(isinstance(place, str) for place in places) else places
    several = any(line.values[place].std is not None for place in places)
    panel.errorbar(
        x,
        means,
        spreads if several else None,
        color=shade,
        label=wrapped(line.name, _NAME),
        marker=marker,
        markersize=4,
        linewidth=1.2,
        elinewidth=0.8,
        capsize=2,
    )


def _ticks(panel: Any, places: Sequence[float]) -> None:
    """Marks at the values themselves, where they are numbers that stand far enough from each other."""
    gaps = [after - before for before, after in pairwise(places)]
    if gaps and min(gaps) > (places[-1] - places[0]) / 12:
        panel.set_xticks(places, [shown(place) for place in places])


Point = tuple[str, str, float, float]
"""Name, level of supervision, seconds, per cent."""


def pareto(blocks: Mapping[str, Sequence[Row]], metric: str, names: Sequence[str] = ()) -> Any:
    """A metric against seconds, coloured by supervision; methods that no other beats in both are joined.

    Of many points only those on the line have their names.

    Args:
        blocks: rows of the same data by its title; each block is a panel.
        metric: that is gained.
        names: of all rows in their order; none: their own.
    """
    rows = [row for members in blocks.values() for row in members]
    named = dict(zip(map(id, rows), names or [row.name for row in rows], strict=True))
    panels = {
        title: [
            (named[id(row)], row.supervision.level, row.seconds, 100 * value.mean)
            for row in members
            if row.seconds and (value := row.values[metric])
        ]
        for title, members in blocks.items()
    }
    panels = {title: points for title, points in panels.items() if points}
    if not panels:
        raise ZooError(f"no row has both seconds and {metric!r}: there is nothing to draw")
    drawn = figure(6.6, 4.0 * len(panels))
    places = drawn.subplots(len(panels), squeeze=False)[:, 0]
    for panel, (title, points) in zip(places, panels.items(), strict=True):
        _pareto(panel, points)
        panel.set(xlabel="seconds a trial", ylabel=f"{TITLES[metric]} (%)")
        if len(panels) > 1:
            panel.set_title(wrapped(title, 2 * _NAME), fontsize=8)
    _legend(drawn, places)
    for panel, points in zip(places, panels.values(), strict=True):
        _name(drawn, panel, points)
    return drawn


def _pareto(panel: Any, points: Sequence[Point]) -> None:
    _by_supervision(panel, [point[1:] for point in points])
    front = front_of([point[2:] for point in points])
    panel.step([x for x, _ in front], [y for _, y in front], where="post", color=GREY, linewidth=1)
    panel.set_xscale("log")
    panel.margins(x=0.12, y=0.08)
    _seconds(panel)
    panel.grid(axis="y")


def _name(drawn: Any, panel: Any, points: Sequence[Point]) -> None:
    """The names beside the points, once everything else has its place."""
    front = front_of([point[2:] for point in points])
    named = [point for point in points if len(points) <= _MOST_LABELS or point[2:] in front]
    corners = [corner for (x, y), (after, up) in pairwise(front) for corner in ((x, y), (after, y), (after, up))]
    place_labels(drawn, panel, [(seconds, mean, wrapped(name, _NAME)) for name, _, seconds, mean in named], corners)


def _by_supervision(panel: Any, points: Sequence[tuple[str, float, float]]) -> None:
    """Points (level of supervision, x, y); each level has its colour and its marker."""
    shades = colors(LEVELS)
    for level, marker in zip(LEVELS, MARKERS, strict=False):
        members = [(x, y) for own, x, y in points if own == level]
        if members:
            panel.scatter(*zip(*members, strict=True), color=shades[level], marker=marker, s=26, label=level, zorder=3)


def _seconds(panel: Any) -> None:
    """Marks of a logarithmic axis at 1, 2, 5, 10, ...; at fewer on a long one, at even steps on a short one."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    low, high = panel.get_xlim()
    places = LogLocator(subs=(1.0, 2.0, 5.0) if high < 300 * low else (1.0,)).tick_values(low, high)
    if sum(low <= place <= high for place in places) < 3:
        places = MaxNLocator(5).tick_values(low, high)
    panel.set_xticks([place for place in places if low <= place <= high])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter("{x:g}")


def front_of(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (cost, gain) that no other beats: each gains more than every cheaper one; by cost."""
    front: list[tuple[float, float]] = []
    for cost, gain in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or gain > front[-1][1]:
            front.append((cost, gain))
    return front


def learning_curves(curves: dict[str, tuple[Floats, Floats]]) -> Any:
    """Bias-aligned (dashed) and bias-conflicting (solid) accuracy after each epoch, a panel a method.

    Args:
        curves: for each method, aligned and conflicting accuracy as fractions (seeds, epochs).
    """
    columns = min(4, len(curves))
    count = math.ceil(len(curves) / columns)
    titles = [wrapped(name, _PANEL_NAME) for name in curves]
    drawn = figure(2.2 * columns + 0.6, (1.6 + _TITLE * _most_lines(titles)) * count + 0.4)
    panels = drawn.subplots(count, columns, squeeze=False, sharey=True).ravel()
    shades = colors(["aligned", "conflicting"])
    for panel, title, pair in zip(panels, titles, curves.values(), strict=False):
        for kind, values in zip(shades, pair, strict=True):
            epochs = np.arange(1, values.shape[1] + 1)
            marker = "o" if values.shape[1] == 1 else ""
            dashes = "--" if kind == "aligned" else "-"
            panel.plot(epochs, 100 * values.mean(0), dashes, color=shades[kind], label=f"bias-{kind}", marker=marker)
            panel.fill_between(epochs, 100 * values.min(0), 100 * values.max(0), color=shades[kind], alpha=0.2, lw=0)
        panel.set_title(title, fontsize=8)
        panel.set_ylim(-3, 103)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(axis="y")
    for panel in panels[len(curves) :]:
        panel.set_axis_off()
    drawn.supxlabel("epoch")
    drawn.supylabel("accuracy (%)")
    _legend(drawn, panels[:1])
    return drawn


def group_maps(
    accuracies: dict[str, Floats], classes: Sequence[str], biases: Sequence[str], aligned: Sequence[Sequence[int]]
) -> Any:
    """Accuracy by label (rows) and bias (columns), a panel a method; bias-aligned groups are framed, empty ones blank.

    Args:
        accuracies: for each method, fractions (classes, biases), NaN where there is no image.
        classes: names of the labels.
        biases: names of the bias attribute's values.
        aligned: for each class, the biases that are bias-aligned with it.
    """
    columns = min(4, len(accuracies))
    count = math.ceil(len(accuracies) / columns)
    titles = [wrapped(name, _PANEL_NAME) for name in accuracies]
    width, height = (min(1.9, 0.5 + 0.25 * max(3, len(names))) for names in (biases, classes))
    width = max(width, 1.8 if max(map(len, titles)) > _PANEL_NAME // 2 else 0.0)
    tall = (height + _TITLE * _most_lines(titles)) * count + 0.8
    drawn = figure(width * columns + 1.5, tall)
    panels = drawn.subplots(count, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for panel, title, accuracy in zip(panels, titles, accuracies.values(), strict=False):
        _group_map(panel, 100 * accuracy, classes, biases, aligned)
        panel.set_title(title, fontsize=8)
    for place, panel in enumerate(panels):
        if place >= len(accuracies):
            panel.set_axis_off()
        elif place + columns >= len(accuracies):  # the lowest of its column
            panel.tick_params(labelbottom=True)
    bar = drawn.colorbar(
        panels[0].collections[0],
        ax=panels.tolist(),
        shrink=min(0.9, 2.4 / tall),
        anchor=(0.0, 1.0),
        label="accuracy (%)",
    )
    bar.outline.set_visible(False)
    drawn.supxlabel("bias")
    drawn.supylabel("label")
    return drawn


def _group_map(
    panel: Any, accuracy: Floats, classes: Sequence[str], biases: Sequence[str], aligned: Sequence[Sequence[int]]
) -> None:
    import seaborn as sns
    from matplotlib.patches import Rectangle

    many = max(accuracy.shape) > _MOST_NUMBERS
    sns.heatmap(
        accuracy,
        ax=panel,
        vmin=0,
        vmax=100,
        cmap="viridis",
        annot=not many,
        fmt=".0f",
        annot_kws={"size": 7},
        cbar=False,
        xticklabels=list(biases) if len(biases) <= _MOST_NAMES else False,
        yticklabels=list(classes) if len(classes) <= _MOST_NAMES else False,
        rasterized=True,
    )
    for label, tied in enumerate(aligned):
        for bias in tied:
            panel.add_patch(Rectangle((bias, label), 1, 1, fill=False, edgecolor="#d55e00", linewidth=1.0))
    cell = 1.5 / len(biases)  # inches, of a panel at its widest
    upright = len(biases) <= _MOST_NAMES and max(text_width(name, 7) for name in biases) > 0.9 * cell
    panel.tick_params(axis="x", length=0, labelsize=7, labelrotation=90 if upright else 0)
    panel.tick_params(axis="y", length=0, labelsize=7, labelrotation=0)


def _most_lines(titles: Sequence[str]) -> int:
    return max(title.count("\n") + 1 for title in titles)


def _legend(drawn: Any, panels: Sequence[Any]) -> None:
    """What stands in any of the panels, once."""
    found = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    drawn.legend(list(found.values()), list(found), loc="outside right upper", fontsize=8)
