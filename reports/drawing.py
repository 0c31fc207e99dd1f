"""How figures are drawn: seaborn on matplotlib without its global state, the same bytes for the same numbers."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from debias_zoo.errors import ZooError
from debias_zoo.store import write_bytes

INK = "#010203"
"""The colour of text and axes, which an inline SVG takes from the page around it."""

FORMS = (".svg", ".pdf", ".png")

_STYLE: Any = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "grid.color": "#80808040",
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "debias-zoo",
    "text.color": INK,
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
    """A colour for each name, told apart also by the colour-blind; the same names have the same colours."""
    import seaborn as sns

    palette = sns.color_palette("colorblind", 10) if len(names) <= 10 else sns.husl_palette(len(names), l=0.6)
    return dict(zip(names, palette, strict=False))


def to_svg(drawn: Any, inline: bool = True) -> str:
    """The figure as SVG; ``inline``: without the XML header, in the colours of the page around it."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    file = io.StringIO()
    FigureCanvasSVG(drawn).print_svg(file, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue()
    if not inline:
        return text.replace(INK, "#000000")
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r'(<svg [^>]*?)width="[\d.]+pt" height="[\d.]+pt"', r'\1role="img"', text, count=1, flags=re.DOTALL)


def save(drawn: Any, path: Path) -> None:
    """Write a figure as its file name says: SVG, PDF or PNG, whole or not at all; no date is in it."""
    form = path.suffix.lower()
    if form not in FORMS:
        raise ZooError(f"cannot draw {path}: the name must end in {', '.join(FORMS)}")
    if form == ".svg":
        write_bytes(path.resolve(), to_svg(drawn, inline=False).encode())
        return
    file = io.BytesIO()
    metadata = {"CreationDate": None, "Creator": None, "Producer": None} if form == ".pdf" else {"Software": None}
    drawn.savefig(file, format=form[1:], dpi=200, facecolor="white", metadata=metadata)
    write_bytes(path.resolve(), file.getbuffer())
