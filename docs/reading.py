"""The picture of a results table, numbered, and what the numbers mean; the table is that of committed results."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import svg

from debias_zoo.reports.report import Asked, make_report, render_report
from debias_zoo.store import read_runs

RESULTS = Path(__file__).resolve().parent / "results" / "cmnist-standard"
METHODS = ("erm", "gray", "rebias", "blindeye", "lnl", "lnl_adaptive")
METRICS = ("accuracy", "unbiased", "conflicting", "worst_group", "gap")

COLUMNS: Mapping[str, str] = {
    "Method": "**Method.** Its name here. A mark leads to a note below the table: † works against one kind of bias "
    "alone; ‡ has settings that were chosen with bias labels of the validation split.",
    "Accuracy": "**A metric**, in per cent: mean ± sample standard deviation over the seeds. Bold is the best of the "
    "column, underlined the second. Of one seed there is no ±.",
    "Published": "**Published.** The paper's own number under its own protocol: for orientation, no part of the "
    "comparison. – : none is known for this data.",
    "Unbiased": "**Unbiased.** The mean of the groups' accuracies; a group is a label with a bias value. Guessing by "
    "the bias earns nothing here.",
    "Bias-conflicting": "**Bias-conflicting.** Accuracy on images whose bias value is not that of their class in "
    "training: where a network that learnt the bias fails.",
    "Worst-group": "**Worst-group.** The smallest accuracy of a group.",
    "Worst-group 95 %": "**Worst-group 95 %.** Wilson's interval of that group's images: groups are small, and the "
    "worst one is picked because it is the worst.",
    "Gap": "**Gap.** Bias-aligned minus bias-conflicting accuracy; the best is nearest to zero.",
    "Supervision": "**Supervision.** Which bias labels were read: none, to select, to train. Lines divide the table by "
    "it: compare within them first.",
    "Seconds": "**Seconds** of one trial, the mean over the seeds.",
}
"""Column -> what it says."""

CAPTION: Mapping[str, str] = {
    "Results on": "**What was measured**: the data with all its parameters, and the split. Rows of other data or of "
    "another protocol stand in a block of their own.",
    "Protocol": "**The budget**: `quick` is a look, `standard` the same for all, `paper` each paper's own.",
    "Mean": "**How many seeds**, and which.",
    "Selection": "**Which epoch** is shown, and the labels that were read to choose it.",
    "Tuning": "**Whose settings were chosen**, and on which split.",
}
"""Beginning of a sentence of the caption -> what it says."""

SIZE, LINE, CELL, TOP, DISC = 12.0, 24.0, 14.0, 52.0, 9.0
LOOKS: Mapping[str, dict[str, str]] = {
    "": {},
    "bold": {"font_weight": "700"},
    "underlined": {"text_decoration": "underline"},
}
MOST_CAPTION = 112
"""Characters of a line of the caption."""


@dataclass(frozen=True)
class Sheet:
    """The table as its Markdown has it: cells with their marks, and the sentences of its caption."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sentences: tuple[str, ...]


def sheet() -> Sheet:
    """What ``debias-zoo report docs/results/cmnist-standard --metrics ...`` prints."""
    runs, problems = read_runs(RESULTS)
    text = render_report(make_report(runs, problems, Asked(METHODS, metrics=METRICS)), "markdown")
    lines = [line for line in text.splitlines() if line.strip()]
    rows = [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines if line.startswith("|")]
    caption = next(line for line in lines if line.startswith("Results on"))
    sentences = tuple(re.split(r"(?<=\.) (?=[A-Z])", caption))
    return Sheet(rows[0], tuple(rows[2:]), sentences)


def notes() -> str:
    """The numbered list below the picture."""
    return "".join(f"{k}. {words}\n" for k, words in enumerate([*COLUMNS.values(), *CAPTION.values()], 1))


def drawing() -> str:
    """The SVG element."""
    found = sheet()
    widths = [_width(k, found) for k in range(len(found.header))]
    starts = [sum(widths[:k]) + 6.0 for k in range(len(widths))]
    width = sum(widths) + 12.0
    elements = [*_header(found, starts, widths), *_body(found, starts, widths, width)]
    bottom = TOP + 20.0 + LINE * (len(found.rows) + 1)
    below, height = _caption(found, bottom + 30.0)
    return svg.document(width, height, "A results table; the numbers in it are explained below.", *elements, *below)


def _width(k: int, found: Sheet) -> float:
    cells = [_shown(row[k])[0] for row in found.rows] + _titles(found.header[k])
    return max(len(cell) for cell in cells) * SIZE * svg.SANS_WIDTH + CELL


def _titles(title: str) -> list[str]:
    """A column's title, in two lines where it is long."""
    return re.split(r"(?<=-)|(?<=p) (?=9)", title.replace("Supervision", "Super-vision"))


def _shown(cell: str) -> tuple[str, str]:
    """A cell's text, and "bold", "underlined" or ""."""
    mark = "bold" if "**" in cell else "underlined" if "<u>" in cell else ""
    text = re.sub(r"\*\*|</?u>|<sup>|</sup>|\\", "", cell)
    words = {"no bias labels": "none", "bias labels to train": "train", "bias labels to select": "select"}
    return words.get(text, text), mark


def _header(found: Sheet, starts: list[float], widths: list[float]) -> Iterator[str]:
    for k, title in enumerate(found.header):
        x, anchor = _at(k, found, starts, widths)
        lines = _titles(title)
        for n, line in enumerate(lines):
            yield svg.text(x, TOP + 20 - 14 * (len(lines) - 1 - n), line, SIZE, anchor=anchor, font_weight="600")
        number = list(COLUMNS).index(title) + 1
        middle = x + DISC if anchor == "start" else x - DISC
        yield from _disc(middle, DISC + 1, number)


def _at(k: int, found: Sheet, starts: list[float], widths: list[float]) -> tuple[float, str]:
    """Where a column's text stands: words to the left, numbers to the right."""
    if found.header[k] in ("Method", "Supervision"):
        return starts[k] + (CELL / 2 if k else 0.0), "start"
    return starts[k] + widths[k] - CELL / 2, "end"


def _disc(x: float, y: float, number: int) -> Iterator[str]:
    yield f'<circle cx="{x:g}" cy="{y:g}" r="{DISC:g}" style="fill:{svg.ACCENT}"/>'
    yield svg.text(x, y + 3.8, str(number), 10.5, anchor="middle", font_weight="600", style=f"fill:{svg.PAPER}")


def _body(found: Sheet, starts: list[float], widths: list[float], width: float) -> Iterator[str]:
    y = TOP + 28.0
    level = ""
    for row in found.rows:
        now = row[found.header.index("Supervision")]
        if now != level:
            yield svg.path(f"M0,{y:g} H{width:g}", stroke="currentColor" if not level else svg.BORDER)
            level = now
        for k, cell in enumerate(row):
            x, anchor = _at(k, found, starts, widths)
            text, mark = _shown(cell)
            mean, sign, std = text.partition(" ± ")
            yield svg.marked(x, y + LINE - 7.0, mean, sign + std, SIZE, anchor=anchor, **LOOKS[mark])
        y += LINE
    yield svg.path(f"M0,{y + 2:g} H{width:g}")


def _caption(found: Sheet, y: float) -> tuple[list[str], float]:
    """Its sentences, a new line for each, numbered where they have a note; and where they end."""
    elements: list[str] = []
    for sentence in found.sentences:
        number = next((k for k, start in enumerate(CAPTION, len(COLUMNS) + 1) if sentence.startswith(start)), None)
        if number:
            elements += _disc(DISC + 1, y - 4.0, number)
        for line in svg.wrapped(sentence.split(), MOST_CAPTION, 1.0, 1.0):
            elements.append(svg.text(30.0, y, " ".join(line), SIZE))
            y += 20.0
        y += 2.0
    return elements, y
