"""Elements of an SVG that stands in a page: text and lines take the page's colours, light or dark."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

ACCENT = "var(--color-brand-primary, #3b6fd4)"
"""The theme's colour for what shall be seen; what follows the comma is for where there is no theme."""

FILL = "var(--color-background-secondary, #8080801c)"
BORDER = "var(--color-foreground-border, #808080)"
PAPER = "var(--color-background-primary, #ffffff)"
SANS = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"

MONO_WIDTH = 0.61
"""Of a letter of ``MONO``, in font sizes; no usual one is wider."""

SANS_WIDTH = 0.56
"""Of a letter of ``SANS``, in font sizes, on average; most texts are narrower."""


def document(width: float, height: float, label: str, *elements: str) -> str:
    """The whole drawing; ``label`` is read to those who do not see it. A narrow page scrolls it sideways."""
    body = "\n".join(elements)
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    return (
        f'<div class="drawing" tabindex="0">\n<svg xmlns="http://www.w3.org/2000/svg" {size} '
        f'role="img" aria-label="{escape(label)}" fill="currentColor" '
        f'font-family="{escape(SANS)}">\n{body}\n</svg>\n</div>\n'
    )


def text(x: float, y: float, words: str, size: float, *, anchor: str = "start", about: str = "", **more: str) -> str:
    """A line of text, its baseline at ``y``; ``about`` is shown where the mouse rests on it."""
    title = f"<title>{escape(about)}</title>" if about else ""
    at = f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}"{_attributes(more)}>'
    return f"{at}{escape(words, quote=False)}{title}</text>"


def marked(x: float, y: float, words: str, rest: str, size: float, *, anchor: str = "start", **more: str) -> str:
    """A line of text of which the first ``words`` look as ``more`` says, and the rest does not."""
    first = f"<tspan{_attributes(more)}>{escape(words, quote=False)}</tspan>"
    at = f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}">'
    return f"{at}{first}{escape(rest, quote=False)}</text>"


def _attributes(more: Mapping[str, str]) -> str:
    return "".join(f' {key.replace("_", "-")}="{escape(value)}"' for key, value in more.items())


def box(x: float, y: float, width: float, height: float, *, stroke: str = BORDER, fill: str = FILL) -> str:
    """A rectangle with round corners."""
    size = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"'
    return f'<rect {size} style="fill:{fill};stroke:{stroke}" stroke-width="1"/>'


def path(points: str, *, end: str = "", width: float = 1.2, stroke: str = "currentColor") -> str:
    """A line along an SVG path, with the marker ``end`` at its end."""
    marker = f' marker-end="url(#{end})"' if end else ""
    line = f'style="stroke:{stroke}" stroke-opacity="0.65" stroke-width="{width:g}"'
    return f'<path d="{points}" fill="none" {line}{marker}/>'


def arrowhead(name: str) -> str:
    """The marker called ``name``, for ``path``."""
    return (
        f'<defs><marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0,0.5 L7.5,4 L0,7.5 z" fill="currentColor" fill-opacity="0.75"/></marker></defs>'
    )


def wrapped(words: list[str], room: float, size: float, letter: float) -> list[list[str]]:
    """Words in lines of at most ``room``, a letter being ``letter`` font sizes wide, one between words."""
    lines: list[list[str]] = []
    used = room + 1.0
    for word in words:
        width = (len(word) + 1) * letter * size
        if used + width - letter * size > room:
            lines.append([])
            used = 0.0
        lines[-1].append(word)
        used += width
    return lines
