"""A figure of the results table: each method's metrics, mean and standard deviation over seeds."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from debias_zoo.errors import ZooError

from .cells import TITLES
from .drawing import MARKERS, colors, style, wrapped
from .rows import Block, Row, Table

_NAME = 28
"""Characters of a method's name in a line."""

_ROW, _APART = 0.42, 0.16
"""Inches of a row; the distance of two metrics within it, as a share of it."""


class Picture(Figure):
    """A figure that a notebook shows also where no plotting library was set up; on white, so that it can be read."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        with style():
            self.savefig(file, format="png", dpi=110, facecolor="white")
        return file.getvalue()


def method_bars(table: Table, metrics: Sequence[str]) -> Picture:
    """A panel a block; in it a line a method, with a point for each of these metrics and ± its std over seeds.

    Raises:
        ZooError: no row has any of the metrics.
    """
    blocks = [block for block in table.blocks if any(row.values[metric] for row in block.rows for metric in metrics)]
    if not blocks:
        raise ZooError(f"no row has {' or '.join(map(repr, metrics))}: there is nothing to draw")
    with style():
        heights = [len(block.rows) for block in blocks]
        drawn = Picture(figsize=(6.6, _ROW * sum(heights) + 0.5 * len(blocks) + 0.7), layout="constrained")
        drawn.set_facecolor("white")
        panels = drawn.subplots(len(blocks), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
        for panel, block in zip(panels, blocks, strict=True):
            _panel(panel, block, metrics)
            if len(table.blocks) > 1:
                panel.set_title(wrapped(block.title, 80), fontsize=8, loc="left")
        panels[-1].set_xlabel("per cent, mean ± standard deviation over seeds")
        handles, labels = panels[0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)), fontsize=8)
    return drawn


def _panel(panel: Any, block: Block, metrics: Sequence[str]) -> None:
    rows: list[Row] = [row for _, of_level in block.groups() for row in of_level]
    shades = colors(metrics)
    for number, metric in enumerate(metrics):
        shift = _APART * (number - (len(metrics) - 1) / 2)
        found = [(place, value) for place, row in enumerate(rows) if (value := row.values[metric]) is not None]
        panel.errorbar(
            [100 * value.mean for _, value in found],
            [place + shift for place, _ in found],
            xerr=[100 * (value.std or 0.0) for _, value in found] if any(v.std is not None for _, v in found) else None,
            linestyle="none",
            color=shades[metric],
            marker=MARKERS[number % len(MARKERS)],
            markersize=4.5,
            elinewidth=1,
            capsize=2,
            label=TITLES[metric],
        )
    panel.set_yticks(range(len(rows)), [wrapped(row.name, _NAME) for row in rows])
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.grid(axis="x")
