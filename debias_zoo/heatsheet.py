"""The picture of ``debias-zoo explain``: a row an image, a column a method, the heat over the image."""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .dataset import Card, Images, Ints
from .gradcam import Maps

SIDE = 1.0
"""Inches of one image on the picture."""

LEFT, TOP, BOTTOM, RIGHT, GAP, BELOW = 1.3, 0.4, 0.75, 0.1, 0.1, 0.22
"""Inches: margins, and between images beside and below each other."""

LINE = 0.12
"""Inches of a line of a column's head."""

COLOURS = "inferno"
"""Perceptually uniform: equal steps of heat look like equal steps, in print and to the colour-blind too."""

RIGHT_MARK, WRONG_MARK = ("✓", "#0b6fa4"), ("✗", "#b3400a")
"""Sign and colour of a right and of a wrong prediction: blue and orange are told apart by all."""

GREY = "#444444"

MOST_HIDDEN = 0.75
"""How much of the image the greatest heat hides."""


@dataclass(frozen=True)
class HeatColumn:
    """One method's heat.

    Attributes:
        title: its name. about: a further line, or "".
        maps: float32 (n, H, W), at least 0. predicted: int64 (n,).
    """

    title: str
    about: str
    maps: Maps
    predicted: Ints


@dataclass(frozen=True)
class HeatSheet:
    """What the picture shows: images uint8 (n, H, W, C), labels int64 (n,), biases int64 (n,) or None, columns."""

    title: str
    note: str
    card: Card
    images: Images
    labels: Ints
    biases: Ints | None
    columns: tuple[HeatColumn, ...]


def draw(sheet: HeatSheet) -> bytes:
    """The picture as a PNG; the same sheet gives the same bytes.

    Images are enlarged by repeating their pixels, and grey below the heat, so that colours mean heat alone. Each heat
    is divided by its maximum; where there is none the grey image stands by itself.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = len(sheet.images), 1 + len(sheet.columns)
    width = LEFT + columns * SIDE + (columns - 1) * GAP + RIGHT
    width = max(width, LEFT + 4 * SIDE)
    heads = [_header(column) for column in sheet.columns]
    above = TOP + LINE * max(len(head) for head in heads)
    height = above + rows * (SIDE + BELOW) + BOTTOM
    figure = Figure((width, height), dpi=150)
    FigureCanvasAgg(figure)

    def place(row: int, column: int) -> Any:
        left, top = LEFT + column * (SIDE + GAP), above + row * (SIDE + BELOW)
        axis = figure.add_axes((left / width, 1 - (top + SIDE) / height, SIDE / width, SIDE / height))
        axis.set_axis_off()
        return axis

    for row in range(rows):
        _image(place(row, 0), sheet, row)
        for k, column in enumerate(sheet.columns, 1):
            _heat(place(row, k), sheet, column, row)
    for k, head in enumerate(heads, 1):
        middle = LEFT + k * (SIDE + GAP) + SIDE / 2
        _write(figure, middle / width, 1 - (above - 0.05) / height, "\n".join(head), ha="center", va="bottom")
    _legend(figure, sheet, width, height)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def grey(image: Images) -> npt.NDArray[np.float64]:
    """(H, W) in [0, 1]: the luma of an image uint8 (H, W, C), by ITU-R BT.601; of other than 3 channels the mean."""
    weights = np.array([0.299, 0.587, 0.114]) if image.shape[2] == 3 else np.full(image.shape[2], 1 / image.shape[2])
    return np.asarray(image @ weights / 255.0)


def _image(axis: Any, sheet: HeatSheet, row: int) -> None:
    """The image as it is, its label and its bias on the left."""
    image, label = sheet.images[row], int(sheet.labels[row])
    axis.imshow(image if image.shape[2] == 3 else grey(image), cmap="binary_r", vmin=0, vmax=1, interpolation="nearest")
    text = _short(sheet.card.classes[label])
    size = 9 if len(text) <= 12 else 7
    _write(axis, -0.08, 0.56, text, ha="right", va="bottom", transform=axis.transAxes, fontsize=size, weight="bold")
    if sheet.biases is not None:
        bias = int(sheet.biases[row])
        tied = [name for name, own in zip(sheet.card.classes, sheet.card.aligned, strict=True) if bias in own]
        lines = [_short(sheet.card.biases[bias]), *([f"(as {_short(tied[0], 14)})"] if len(tied) == 1 else [])]
        _write(axis, -0.08, 0.5, "\n".join(lines), ha="right", va="top", transform=axis.transAxes)


def _heat(axis: Any, sheet: HeatSheet, column: HeatColumn, row: int) -> None:
    """The heat over the grey image, below it the predicted class and whether it is right."""
    heat, most = column.maps[row], float(column.maps[row].max())
    axis.imshow(grey(sheet.images[row]), cmap="binary_r", vmin=0, vmax=1, interpolation="nearest")
    if most > 0:
        part = heat / most
        axis.imshow(part, cmap=COLOURS, vmin=0, vmax=1, alpha=MOST_HIDDEN * part**0.5, interpolation="nearest")
    else:
        plate = {"facecolor": "white", "linewidth": 0, "pad": 1}
        _write(axis, 0.5, 0.05, "no heat", ha="center", va="bottom", transform=axis.transAxes, color=GREY, bbox=plate)
    predicted = int(column.predicted[row])
    mark, colour = RIGHT_MARK if predicted == sheet.labels[row] else WRONG_MARK
    text = f"{_short(sheet.card.classes[predicted], 14)} {mark}"
    _write(axis, 0.5, -0.03, text, ha="center", va="top", transform=axis.transAxes, color=colour)


def _write(where: Any, x: float, y: float, text: str, **how: Any) -> None:
    """Text as it is, of 7 points where nothing else is said: a dollar sign in a name begins no formula."""
    where.text(x, y, text, parse_math=False, **{"fontsize": 7, **how})


def _header(column: HeatColumn) -> list[str]:
    """The method's name, and its setting, in at most five short lines."""
    name = textwrap.wrap(column.title.replace("_", "_ "), 15)
    about = textwrap.wrap(column.about, 17)
    kept = [*[line.replace("_ ", "_") for line in name], *about]
    return kept if len(kept) <= 5 else [*kept[:4], "..."]


def _legend(figure: Any, sheet: HeatSheet, width: float, height: float) -> None:
    """The title above, the scale and the note below."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    _write(figure, 0.08 / width, 1 - 0.08 / height, sheet.title, va="top", fontsize=9, weight="bold")
    axis = figure.add_axes((LEFT / width, (BOTTOM - 0.2) / height, SIDE / width, 0.09 / height))
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), COLOURS), cax=axis, orientation="horizontal", ticks=[])
    bar.outline.set_visible(False)
    for x, text, where in ((LEFT - 0.06, "no heat", "right"), (LEFT + SIDE + 0.06, "most heat of an image", "left")):
        _write(figure, x / width, (BOTTOM - 0.155) / height, text, ha=where, va="center")
    note = textwrap.fill(sheet.note, int(width * 19))
    _write(figure, 0.08 / width, (BOTTOM - 0.3) / height, note, va="top", color=GREY)


def _short(text: str, most: int = 18) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
