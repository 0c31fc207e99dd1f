"""How figures are drawn: seaborn on matplotlib without its global state, the same bytes for the same numbers."""

from __future__ import annotations

import hashlib
import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from debias_zoo.errors import ZooError
from debias_zoo.writing import write_bytes

INK = "#010203"
"""The colour of text and axes, which an inline SVG takes from the page around it."""

GREY = "#808080"
"""Of lines that lead the eye and of notes; to be seen on white and on black."""

SHADES = ("#0173b2", "#c87f00", "#029e73", "#d55e00", "#c46bb3", "#a8744a", "#e0559f", "#7a6ff0", "#8f8600", "#2f95cf")
"""seaborn's palette for the colour-blind, its light colours darkened: a contrast of 3 on white and on black each."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Lines differ in these too, for those who do not tell their colours apart."""

FORMS = (".svg", ".pdf", ".png")

_PIXELS = 96
"""Of a browser, in an inch."""

_STYLE: Any = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "figure.labelsize": 9,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "grid.color": "#80808040",
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "debias-zoo",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}


@contextmanager
def style() -> Iterator[None]:
    """The project's look while a figure is made and written."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        yield


def figure(width: float, height: float) -> Any:
    """An empty figure of so many inches; make and fill it within ``style()``."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def colors(names: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """A colour for each name, told apart also by the colour-blind up to ten; the same names have the same colours."""
    import seaborn as sns

    palette = sns.color_palette(SHADES) if len(names) <= len(SHADES) else sns.husl_palette(len(names), l=0.58)
    return dict(zip(names, palette, strict=False))


def text_width(text: str, size: float) -> float:
    """Of a line of text in letters of ``size`` points, in inches; a dollar is a dollar."""
    from matplotlib.textpath import TextPath

    return float(TextPath((0, 0), text.replace("$", r"\$"), size=size).get_extents().width) / 72


def wrapped(name: str, width: int, most: int = 4) -> str:
    """A name in lines of at most ``width`` characters, and at most so many lines."""
    lines = textwrap.wrap(name, width, break_on_hyphens=False) or [""]
    return "\n".join(lines[:most]) + ("..." if len(lines) > most else "")


def to_svg(drawn: Any, label: str | None = None) -> str:
    """The figure as an SVG file; with a ``label`` as an element of a page.

    Such an element has the page's colour of text, a size that the page may change, a name for those who do not see it,
    and no ``id`` that another figure of the page could have too.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    file = io.StringIO()
    FigureCanvasSVG(drawn).print_svg(file, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue()
    if label is None:
        return text.replace(INK, "#000000")
    text = _with_own_ids(re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL), label)
    width, height = (f"{_PIXELS * inches:.0f}" for inches in drawn.get_size_inches())
    named = f'width="{width}" height="{height}" role="img" aria-label={quoteattr(label)}'
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', lambda _: named, text, count=1)
    return text.replace(INK, "currentColor")


def _with_own_ids(text: str, label: str) -> str:
    """The SVG without the ids that nothing in it refers to; the others begin with what is its own."""
    refer = re.compile(r'(url\(#|xlink:href="#)([^)"]+)')
    used = {found[2] for found in refer.finditer(text)}
    own = hashlib.blake2b(f"{label}\n{text}".encode(), digest_size=4).hexdigest()
    text = re.sub(r' id="([^"]+)"', lambda found: f' id="f{own}-{found[1]}"' if found[1] in used else "", text)
    return refer.sub(lambda found: f"{found[1]}f{own}-{found[2]}", text)


def drawn_form(path: Path) -> str:
    """The ending of a figure's file, one of ``FORMS``; raises a ZooError for another."""
    form = path.suffix.lower()
    if form not in FORMS:
        raise ZooError(f"cannot draw {path}: the name must end in {', '.join(FORMS)}")
    return form


def save(drawn: Any, path: Path) -> None:
    """Write a figure as its file name says: SVG, PDF or PNG, whole or not at all; no date is in it."""
    form = drawn_form(path)
    if form == ".svg":
        write_bytes(path.resolve(), to_svg(drawn).encode())
        return
    file = io.BytesIO()
    metadata = {"CreationDate": None, "Creator": None, "Producer": None} if form == ".pdf" else {"Software": None}
    drawn.savefig(file, format=form[1:], dpi=200, facecolor="white", metadata=metadata)
    write_bytes(path.resolve(), file.getbuffer())
