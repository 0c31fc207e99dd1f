"""The critical-difference diagram of Demsar (JMLR 2006, figure 1): methods on a line of average ranks, as SVG.

Best on the left. A thick bar joins methods that are not told apart; the bar above the line is the critical difference.
All places are in inches from the lower left corner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import drawing
from .bootstrap import CONFIDENCE
from .cells import TITLES
from .drawing import GREY, INK, style, text_width
from .friedman import AverageRanks, average_ranks
from .statistics import Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE, SMALL = 9.0, 8.0
"""Of letters, in points: names; numbers and notes."""

ROW, LEVEL, EDGE = 0.22, 0.11, 0.12
"""Inches from name to name, from bar to bar, and around the whole."""

HEAD, FOOT = 0.72, 0.64
"""Inches above the line, for its numbers and the critical difference, and below the names, for the note."""


def critical_difference(scores: Scores, metric: str = "accuracy", *, confidence: float = CONFIDENCE) -> str:
    """The diagram of ``average_ranks`` as SVG; the same scores give the same bytes.

    Friedman's test (1937), Nemenyi's critical difference (1963), both as in Demsar (JMLR 2006); what they assume,
    ``average_ranks`` says.

    Raises:
        ZooError: with the reason, for fewer than 3 methods or 5 blocks that all methods have.
    """
    return to_svg(average_ranks(scores, metric, confidence=confidence))


def to_svg(ranks: AverageRanks) -> str:
    """The diagram as SVG; text stays text."""
    with style():
        return drawing.to_svg(draw(ranks))


@dataclass(frozen=True)
class _Frame:
    """Where things stand."""

    left: float
    width: float
    line: float
    names: float
    most: int

    def x(self, rank: float) -> float:
        """Of a rank, on the line."""
        return self.left + self.width * (rank - 1) / (self.most - 1)


def draw(ranks: AverageRanks) -> Figure:
    """The diagram of two methods or more, as a matplotlib figure."""
    from matplotlib.figure import Figure

    count = len(ranks.methods)
    margin = max(text_width(text, SIZE) for text in _labels(ranks)) + EDGE + 0.2
    width = max(3.2, 0.22 * (count - 1))
    bars = _levels(ranks, 0.2 * (count - 1) / width)
    rows = (count + 1) // 2
    names = 0.2 + LEVEL * max((level for *_, level in bars), default=0)  # from the line down to the first name
    line = EDGE + FOOT + ROW * rows + names
    frame = _Frame(margin, width, line, line - names - ROW / 2, count)
    size = (width + 2 * margin, line + HEAD + EDGE)
    figure = Figure(size)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0.0, size[0]), ylim=(0.0, size[1]))
    axes.axis("off")
    _draw_line(axes, frame, ranks)
    _draw_methods(axes, frame, ranks)
    for first, last, level in bars:
        y = frame.line - 0.14 - LEVEL * level
        axes.plot([frame.x(first) - 0.04, frame.x(last) + 0.04], [y, y], color=INK, lw=3, solid_capstyle="round")
    for line_up, text in enumerate(reversed(_note(ranks))):
        axes.text(size[0] / 2, EDGE + 0.16 * line_up, text, ha="center", va="bottom", size=SMALL)
    return figure


def _labels(ranks: AverageRanks) -> list[str]:
    return [f"{method} ({rank:.2f})" for method, rank in zip(ranks.methods, ranks.ranks, strict=True)]


def _levels(ranks: AverageRanks, room: float) -> list[tuple[float, float, int]]:
    """The cliques' first and last rank and how deep their bar hangs: at one depth they are ``room`` ranks apart."""
    of = dict(zip(ranks.methods, ranks.ranks, strict=True))
    ends: list[float] = []
    bars = []
    for clique in ranks.cliques:
        first, last = of[clique[0]], of[clique[-1]]
        level = next((place for place, end in enumerate(ends) if end + room < first), len(ends))
        ends[level : level + 1] = [last]
        bars.append((first, last, level))
    return bars


def _draw_line(axes: Axes, frame: _Frame, ranks: AverageRanks) -> None:
    """The line of ranks, its numbers, and above them the critical difference."""
    axes.plot([frame.x(1), frame.x(frame.most)], [frame.line] * 2, color=INK, lw=1)
    for rank in range(1, frame.most + 1):
        axes.plot([frame.x(rank)] * 2, [frame.line, frame.line + 0.06], color=INK, lw=1)
        axes.text(frame.x(rank), frame.line + 0.1, str(rank), ha="center", va="bottom", size=SMALL)
    y, ends = frame.line + 0.38, (frame.x(1), frame.x(1 + ranks.critical))
    axes.plot(ends, [y, y], color=INK, lw=1.5)
    for end in ends:
        axes.plot([end, end], [y - 0.04, y + 0.04], color=INK, lw=1.5)
    said = f"critical difference {ranks.critical:.2f}"
    axes.text(frame.x(1), y + 0.08, said, ha="left", va="bottom", size=SMALL)


def _draw_methods(axes: Axes, frame: _Frame, ranks: AverageRanks) -> None:
    """The better half to the left of the line, the others to its right; the outermost highest, so that none cross."""
    count = frame.most
    left = (count + 1) // 2
    for place, (rank, label) in enumerate(zip(ranks.ranks, _labels(ranks), strict=True)):
        better = place < left
        y = frame.names - ROW * (place if better else count - 1 - place)
        end = frame.left - 0.1 if better else frame.left + frame.width + 0.1
        axes.plot([frame.x(rank), frame.x(rank), end], [frame.line, y, y], color=GREY, lw=0.8, solid_joinstyle="miter")
        gap, side = (-0.06, "right") if better else (0.06, "left")
        axes.text(end + gap, y, label, ha=side, va="center_baseline", size=SIZE, parse_math=False)


def _note(ranks: AverageRanks) -> tuple[str, str, str]:
    """Three lines."""
    what = TITLES.get(ranks.metric, ranks.metric).lower()
    p = f"p = {ranks.p:.4f}" if ranks.p >= 0.0001 else "p < 0.0001"
    left = f"; {ranks.left_out} incomplete blocks left out" if ranks.left_out else ""
    alpha = f"{1 - ranks.confidence:.3g}"
    return (
        f"Average rank by {what} (1 is best), {ranks.blocks} blocks of data and seed",
        f"Friedman: χ² = {ranks.statistic:.2f}, {p}{left}",
        f"Methods joined by a bar are not told apart (Nemenyi, {alpha})"
        if ranks.differ
        else f"No method is told apart: Friedman's p is not below {alpha}",
    )
