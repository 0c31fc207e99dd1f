"""The drawing of the house: parts as boxes by level, an arrow for what one imports of another.

A plain layered layout: a part stands above all that it imports; arrows that pass a level keep a lane free there; the
order within a level follows the arrows, by the means of the neighbours' places.
"""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass

import svg
from house import ROOT, House, house

WIDTH, GAP, LANE = 216.0, 18.0, 14.0
ROW_GAP, PADDING = 44.0, 10.0
TITLE, NAMES, LINE = 15.0, 12.0, 16.0
SWEEPS = 12


@dataclass
class Place:
    """A box, or a lane that an arrow passes through, in the drawing."""

    name: str
    width: float
    lines: list[list[str]]
    height: float = 0.0
    x: float = 0.0
    y: float = 0.0

    @property
    def middle(self) -> float:
        """Of its width."""
        return self.x + self.width / 2


def drawing() -> str:
    """The SVG element."""
    found = house()
    levels, chains = _layered(found)
    for _ in range(SWEEPS):
        _order(levels, chains)
    for level in levels:
        _pack(level)
    for _ in range(SWEEPS):
        _relax(levels, chains)
    width, height = _settle(levels)
    label = "The parts of debias-zoo as boxes; arrows go from a part to the parts that it imports."
    arrows = [_arrow(chain) for chain in chains]
    boxes = [element for level in levels for place in level if place.name for element in _box(place, found)]
    return svg.document(width, height, label, svg.arrowhead("house-end"), *arrows, *boxes)


def _layered(found: House) -> tuple[list[list[Place]], list[list[Place]]]:
    """Levels from the top, and for each arrow its places from level to level."""
    level = {part: found.level(part) for part in found.arrows if part not in found.files or found.files[part]}
    top = max(level.values())
    places = {part: _place(found, part) for part in level}
    levels: list[list[Place]] = [[] for _ in range(top + 1)]
    for part, place in places.items():
        levels[top - level[part]].append(place)
    chains = []
    for start, end in found.shown():
        chain = [places[start]]
        for passed in range(level[start] - 1, level[end], -1):
            lane = Place("", LANE, [])
            levels[top - passed].append(lane)
            chain.append(lane)
        chains.append([*chain, places[end]])
    return levels, chains


def _place(found: House, part: str) -> Place:
    lines = _lines(found, part)
    return Place(part, WIDTH, lines, 2 * PADDING + TITLE + 4.0 + LINE * len(lines))


def _lines(found: House, part: str) -> list[list[str]]:
    names = list(dict.fromkeys(f"{name.split('/')[0]}/" if "/" in name else name for name in found.files.get(part, ())))
    if not names:
        names = [f"{part}/*.py", f"({len(list((ROOT / part).rglob('*.py')))} files)"]
    return svg.wrapped(names, WIDTH - 2 * PADDING, NAMES, svg.MONO_WIDTH)


def _neighbours(chains: list[list[Place]]) -> dict[int, list[Place]]:
    """By the identity of a place, the places before and after it on all arrows."""
    found: dict[int, list[Place]] = {}
    for chain in chains:
        for one, other in itertools.pairwise(chain):
            found.setdefault(id(one), []).append(other)
            found.setdefault(id(other), []).append(one)
    return found


def _order(levels: list[list[Place]], chains: list[list[Place]]) -> None:
    """Sort each level by the mean rank, from 0 to 1, of what its places are joined with."""
    beside = _neighbours(chains)
    for level in [*levels, *levels[::-1]]:
        rank = {id(place): (k + 0.5) / len(row) for row in levels for k, place in enumerate(row)}
        wanted = {id(p): statistics.fmean(rank[id(q)] for q in beside.get(id(p), [p])) for p in level}
        level.sort(key=lambda place: wanted[id(place)])


def _pack(level: list[Place]) -> None:
    """Side by side, round 0."""
    whole = sum(place.width for place in level) + GAP * (len(level) - 1)
    at = -whole / 2
    for place in level:
        place.x, at = at, at + place.width + GAP


def _relax(levels: list[list[Place]], chains: list[list[Place]]) -> None:
    """Move each place towards the mean of its neighbours, as far as those of its level allow."""
    beside = _neighbours(chains)
    for level in [*levels, *levels[::-1]]:
        wanted = [statistics.fmean(q.middle for q in beside.get(id(p), [p])) - p.width / 2 for p in level]
        right, left = list(wanted), list(wanted)
        for k in range(1, len(level)):
            right[k] = max(right[k], right[k - 1] + level[k - 1].width + GAP)
        for k in range(len(level) - 2, -1, -1):
            left[k] = min(left[k], left[k + 1] - level[k].width - GAP)
        for place, one, other in zip(level, left, right, strict=True):
            place.x = (one + other) / 2


def _settle(levels: list[list[Place]]) -> tuple[float, float]:
    """Give all places their whole-numbered position from 0 on; returns width and height of the drawing."""
    first = min(place.x for level in levels for place in level)
    at = 1.0
    for level in levels:
        tallest = max(place.height for place in level)
        for place in level:
            place.height = place.height or tallest  # a lane goes past all boxes of its level
            place.x, place.y = round(place.x - first + 1), at + (tallest - place.height) / 2
        at += tallest + ROW_GAP
    width = max(place.x + place.width for level in levels for place in level)
    return width + 1, at - ROW_GAP + 1


def _arrow(chain: list[Place]) -> str:
    start, *lanes, end = chain
    shift = max(-60.0, min(60.0, (lanes[0] if lanes else end).middle - start.middle)) / 2
    x, y = start.middle + shift, start.y + start.height
    points = f"M{x:g},{y:g}"
    for place in [*lanes, end]:
        last = place is end
        shift = max(-60.0, min(60.0, x - place.middle)) / 2 if last else 0.0
        to_x, to_y = place.middle + shift, place.y - (2.0 if last else 0.0)
        bend = (to_y - y) / 2
        points += f" C{x:g},{y + bend:g} {to_x:g},{to_y - bend:g} {to_x:g},{to_y:g}"
        if not last:
            to_y += place.height
            points += f" V{to_y:g}"
        x, y = to_x, to_y
    return svg.path(points, end="house-end")


def _box(place: Place, found: House) -> list[str]:
    left, top = place.x + PADDING, place.y + PADDING
    wing = place.name not in found.files
    elements = [
        svg.box(place.x, place.y, place.width, place.height, stroke=svg.ACCENT if wing else svg.BORDER),
        svg.text(left, top + TITLE - 2, f"{place.name}/" if wing else place.name, TITLE, font_weight="600"),
    ]
    for k, line in enumerate(place.lines):
        at = left
        for word in line:
            y = top + TITLE + 4.0 + LINE * (k + 1) - 4.0
            about = found.about.get(word, "")
            elements.append(svg.text(at, y, word, NAMES, about=about, font_family=svg.MONO))
            at += (len(word) + 1) * svg.MONO_WIDTH * NAMES
    return elements
