"""How numbers and columns are written in the formats that people read."""

from __future__ import annotations

from .published import Published

TITLES = {
    "accuracy": "Accuracy",
    "unbiased": "Unbiased",
    "aligned": "Bias-aligned",
    "conflicting": "Bias-conflicting",
    "worst_group": "Worst-group",
    "gap": "Gap",
}
"""Metric -> title of its column."""

UNREAD = "*"
"""Marks a published number that was not read in the paper itself."""

NOTHING = "–"
"""What stands where there is no number."""


def percent(fraction: float) -> str:
    """``40.55`` for 0.4055; two decimals, and never ``-0.00``."""
    text = f"{100.0 * fraction:.2f}"
    return "0.00" if text == "-0.00" else text


def published_cell(number: Published | None, nothing: str = NOTHING) -> str:
    """A paper's number, marked where nobody of the project has read it there."""
    return nothing if number is None else percent(number.mean) + ("" if number.verified else UNREAD)


def whole_or_tenth(seconds: float | None) -> str:
    """Seconds, with one decimal below a hundred."""
    if seconds is None:
        return NOTHING
    return f"{seconds:.0f}" if seconds >= 99.95 else f"{seconds:.1f}"
