"""The figures of a report: learning curves, group heat maps, robustness, cost against accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from debias_zoo.errors import ZooError

from .cells import TITLES
from .critical_difference import draw
from .drawing import colors, figure, save, style
from .friedman import average_ranks
from .robustness import lines, shown
from .rows import Row, Table

if TYPE_CHECKING:
    from .report import Asked, Report

_MOST_NUMBERS, _MOST_NAMES = 4, 24
"""Labels or biases: with more, a heat map shows no numbers, or no names."""

Floats = npt.NDArray[np.float64]


def draw_report(report: Report, asked: Asked, path: Path) -> None:
    """Draw what ``--curve``, ``--compare`` or ``--cost`` asked for into a file."""
    with style():
        if asked.curve:
            save(robustness(report.table, asked.curve, asked.metrics[0]), path)
        elif asked.compare is not None:
            save(draw(average_ranks(report.table.scores(asked.metrics[0]), asked.metrics[0])), path)
        else:
            save(pareto(report.table.rows, asked.metrics[0]), path)


def robustness(table: Table, parameter: str, metric: str) -> Any:
    """A metric against a parameter of the data, a line a method; a panel for each setting of the rest."""
    groups = lines(table, parameter, metric)
    drawn = figure(4.6 * len(groups) + 1.2, 3.4)
    panels = drawn.subplots(1, len(groups), squeeze=False)[0]
    shades = colors(list(dict.fromkeys(line.row.method for of_group in groups.values() for line in of_group)))
    for panel, of_group in zip(panels, groups.values(), strict=True):
        for line in of_group:
            places = sorted(line.values, key=lambda value: (isinstance(value, str), value))
            means = [100 * line.values[place].mean for place in places]
            spreads = [100 * (line.values[place].std or 0.0) for place in places]
            x = [shown(place) for place in places] if any(isinstance(place, str) for place in places) else places
            panel.errorbar(
                x, means, spreads, color=shades[line.row.method], label=line.row.method, marker="o", capsize=2
            )
        panel.set(xlabel=f"{parameter} of {of_group[0].row.dataset}", ylabel=f"{TITLES[metric]} (%)")
        panel.grid(axis="y")
    _legend(drawn, panels[0])
    return drawn


def pareto(rows: Sequence[Row], metric: str) -> Any:
    """A metric against seconds; methods that no other beats in both are joined."""
    points = [(row.name, row.seconds, value.mean) for row in rows if row.seconds and (value := row.values[metric])]
    if not points:
        raise ZooError(f"no row has both seconds and {metric!r}: there is nothing to draw")
    drawn = figure(5.8, 3.8)
    panel = drawn.subplots()
    shades = colors([name for name, _, _ in points])
    for name, seconds, mean in points:
        panel.scatter(seconds, 100 * mean, color=shades[name], zorder=3)
        panel.annotate(name, (seconds, 100 * mean), xytext=(5, 3), textcoords="offset points", fontsize=8)
    front = front_of([(seconds, mean) for _, seconds, mean in points])
    panel.step([x for x, _ in front], [100 * y for _, y in front], where="post", color="#888888", linewidth=1)
    panel.set(xlabel="seconds a trial", ylabel=f"{TITLES[metric]} (%)", xscale="log")
    for axis in (panel.xaxis.set_major_formatter, panel.xaxis.set_minor_formatter):
        axis("{x:.0f}")
    panel.margins(x=0.15)
    panel.grid(axis="y")
    return drawn


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
    drawn = figure(2.1 * columns + 0.6, 1.7 * count + 0.5)
    panels = drawn.subplots(count, columns, squeeze=False, sharey=True).ravel()
    shades = colors(["aligned", "conflicting"])
    for panel, (name, pair) in zip(panels, curves.items(), strict=False):
        for kind, values in zip(shades, pair, strict=True):
            epochs = np.arange(1, values.shape[1] + 1)
            marker = "o" if values.shape[1] == 1 else ""
            dashes = "--" if kind == "aligned" else "-"
            panel.plot(epochs, 100 * values.mean(0), dashes, color=shades[kind], label=f"bias-{kind}", marker=marker)
            panel.fill_between(epochs, 100 * values.min(0), 100 * values.max(0), color=shades[kind], alpha=0.2, lw=0)
        panel.set(title=name, ylim=(-3, 103))
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(axis="y")
    for panel in panels[len(curves) :]:
        panel.set_axis_off()
    drawn.supxlabel("epoch")
    drawn.supylabel("accuracy (%)")
    _legend(drawn, panels[0])
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
    width, height = (min(2.2, 0.5 + 0.25 * max(3, len(names))) for names in (biases, classes))
    drawn = figure(width * columns + 1.4, (height + 0.25) * count + 0.5)
    panels = drawn.subplots(count, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for panel, (name, accuracy) in zip(panels, accuracies.items(), strict=False):
        _group_map(panel, 100 * accuracy, classes, biases, aligned)
        panel.set_title(name, fontsize=9)
    for panel in panels[len(accuracies) :]:
        panel.set_axis_off()
    bar = drawn.colorbar(panels[0].collections[0], ax=panels.tolist(), shrink=0.8)
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
    panel.tick_params(axis="both", length=0, labelsize=7)


def _legend(drawn: Any, panel: Any) -> None:
    handles, labels = panel.get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside right upper", fontsize=8)
