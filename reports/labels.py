"""Names beside the points of a figure, placed so that they cover neither each other, nor a point, nor a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from .drawing import GREY, text_width

SIZE = 8.0
"""Of letters, in points."""

_LINE = 1.25 * SIZE
"""Height of a line of text, in points."""

_POINT = 4.0
"""Half the width of what is kept clear around a point, in points."""

_NEAR = 6.0
"""How far from the middle of its point a name stands, in points, where it stands beside it."""

_DISTANCES = (_NEAR, 12.0, 20.0, 30.0, 42.0, 56.0, 72.0)

_SIDES = ((1, 0), (1, 1), (1, -1), (-1, 0), (-1, 1), (-1, -1), (0, 1), (0, -1))
"""To which side of its point a name may stand, the best first: right, upper right, ..."""

Box = tuple[float, float, float, float]
"""Left, bottom, right, top; in points from the figure's lower left corner."""


def place_labels(
    drawn: Any, panel: Any, points: Sequence[tuple[float, float, str]], corners: Sequence[tuple[float, float]] = ()
) -> None:
    """Write each point's name beside it; a thin line leads to a name that stands further away.

    Args:
        drawn: the figure; whatever else is in it has been drawn, so that its layout is known.
        panel: its axes.
        points: (x, y, name) in the units of the axes; a name may have several lines.
        corners: of a line with level and upright pieces, in the units of the axes.
    """
    drawn.draw_without_rendering()
    frame = _scaled(panel.get_window_extent().extents, drawn.dpi)
    middles = _in_points(panel, [(x, y) for x, y, _ in points], drawn.dpi)
    taken = [(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y in middles]
    path = _in_points(panel, corners, drawn.dpi)
    taken += [_around(*pair) for pair in pairwise(path)]
    for (x, y, name), middle in sorted(zip(points, middles, strict=True), key=lambda pair: pair[1]):
        box, far = _best(list(_places(middle, _size(name))), taken, frame)
        taken.append(box)
        panel.annotate(
            name,
            (x, y),
            xytext=(box[0] - middle[0], (box[1] + box[3]) / 2 - middle[1]),
            textcoords="offset points",
            fontsize=SIZE,
            va="center",
            in_layout=False,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
            if far
            else None,
        )


def _size(name: str) -> tuple[float, float]:
    lines = name.split("\n")
    return max(72 * text_width(line, SIZE) for line in lines) + 1, _LINE * len(lines)


def _places(middle: tuple[float, float], size: tuple[float, float]) -> Iterator[tuple[Box, bool]]:
    """Where a name may stand, the best first, and whether that is far from its point."""
    width, height = size
    for distance in _DISTANCES:
        for right, up in _SIDES:
            aslant = 0.6 if right and up else 1.0
            x = middle[0] + aslant * distance * right - width * (1 - right) / 2
            y = middle[1] + aslant * distance * up - height * (1 - up) / 2
            yield (x, y, x + width, y + height), distance > _NEAR


def _best(places: Sequence[tuple[Box, bool]], taken: Sequence[Box], frame: Box) -> tuple[Box, bool]:
    """The first place that is free and within the frame, or the one that covers least."""

    def covered(place: tuple[Box, bool]) -> float:
        box = place[0]
        outside = (box[2] - box[0]) * (box[3] - box[1]) - _shared(box, frame)
        return sum(_shared(box, other) for other in taken) + outside

    free = next((place for place in places if covered(place) < 1e-6), None)
    return free or min(places, key=covered)


def _shared(one: Box, other: Box) -> float:
    """The area that two boxes share."""
    width, height = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0


def _around(start: tuple[float, float], end: tuple[float, float]) -> Box:
    """A thin box around a level or upright piece of a line."""
    low, high = (min(start[0], end[0]), min(start[1], end[1])), (max(start[0], end[0]), max(start[1], end[1]))
    return low[0] - 0.5, low[1] - 0.5, high[0] + 0.5, high[1] + 0.5


def _in_points(panel: Any, places: Sequence[tuple[float, float]], dpi: float) -> list[tuple[float, float]]:
    return [(72 * x / dpi, 72 * y / dpi) for x, y in (panel.transData.transform(place) for place in places)]


def _scaled(extents: Iterable[float], dpi: float) -> Box:
    left, bottom, right, top = (72 * float(value) / dpi for value in extents)
    return left, bottom, right, top
