"""Bias leakage as a figure: layers from left to right, what can be read over chance, one line a method.

The line at 0 is chance, the dotted one what a probe without error would get. Bars: the sample standard deviation over
seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from debias_zoo.errors import ZooError
from debias_zoo.store import Run

from .drawing import GREY, MARKERS, colors, figure, save, style, to_svg, wrapped
from .leakage import TARGETS, Leak, layers_in, leaks_of

PANELS = {"bias": "Bias", "label": "Label"}

WIDTH, HEIGHT = 7.2, 2.7
"""Inches: of the figure, and of each row of panels."""

LEGEND = 0.2
"""Inches a line of the legend."""

_NAME = 28
"""Characters of a name in a line of the legend."""


def leakage_svg(runs: Iterable[Run]) -> str:
    """The figure as an SVG file; the same runs give the same text. Raises a ZooError where nothing was probed."""
    with style():
        return to_svg(leakage_figure(runs))


def draw_leakage(runs: Iterable[Run], path: Path) -> None:
    """Write the figure as its file name says: SVG, PDF or PNG."""
    with style():
        save(leakage_figure(runs), path)


def leakage_figure(runs: Iterable[Run]) -> Any:
    """A row of panels for each data set and setting of it: the bias left, the label right; within ``style()``."""
    blocks, _ = leaks_of(runs)
    if not blocks:
        raise ZooError("no run has been probed: there is nothing to draw")
    names = [[wrapped(leak.name, _NAME) for leak in members] for _, members in blocks]
    tallest = max(HEIGHT, LEGEND * max(sum(name.count("\n") + 1 for name in of_block) for of_block in names) + 0.6)
    drawn = figure(WIDTH, tallest * len(blocks))
    rows = drawn.subplots(len(blocks), len(PANELS), sharey="row", squeeze=False)
    shades = colors(list(dict.fromkeys(leak.name for _, members in blocks for leak in members)))
    for panels, (title, members) in zip(rows, blocks, strict=True):
        layers = layers_in(members)
        for panel, what in zip(panels, TARGETS, strict=True):
            _fill(panel, members, what, layers, shades)
            panel.set_title(f"{PANELS[what]} ({title})" if len(blocks) > 1 else PANELS[what])
        panels[0].set_ylabel("balanced accuracy,\npoints over chance")
        panels[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), borderaxespad=0.0)
    return drawn


def _fill(panel: Any, members: Sequence[Leak], what: str, layers: Sequence[str], shades: dict[str, Any]) -> None:
    for number, leak in enumerate(members):
        there = [(place, leak.values.get((what, layer))) for place, layer in enumerate(layers)]
        points = [(place, value) for place, value in there if value is not None]
        panel.errorbar(
            [place for place, _ in points],
            [100 * value.mean for _, value in points],
            yerr=[100 * (value.std or 0.0) for _, value in points] if len(leak.seeds) > 1 else None,
            label=wrapped(leak.name, _NAME),
            color=shades[leak.name],
            marker=MARKERS[number % len(MARKERS)],
            markersize=4,
            linewidth=1.2,
            elinewidth=0.8,
            capsize=2,
        )
    for level in (0.0, *dict.fromkeys(_most(leak, what) for leak in members)):
        panel.axhline(level, color=GREY, linewidth=0.8, linestyle="-" if level == 0 else (0, (1, 2)), zorder=1)
    panel.set_xticks(range(len(layers)), layers, rotation=30, ha="right", rotation_mode="anchor")
    panel.set_xlim(-0.3, len(layers) - 0.7)
    panel.grid(axis="y")


def _most(leak: Leak, what: str) -> float:
    """What is over chance at most, in points; 0 where nothing was read."""
    found = [layer.bias if what == "bias" else layer.label for layer in leak.probe.layers]
    return max((100 * (1.0 - readout.chance) for readout in found if readout is not None), default=0.0)
