"""The report as one self-contained HTML file: a table to sort and filter, rules to switch, figures, every source.

Nothing is fetched, and nothing in the file is newer than the runs: the same runs give the same bytes. The numbers of
the asked rule stand in the file as text; the script in ``templates/page.js`` only shows others of those that the page
carries (``page_numbers.py``), so the page can be read without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from debias_zoo.metrics import ALL_METRICS, DEFINITIONS, ERRORS, LEAKAGE
from debias_zoo.store import Run

from .caption import Notes, caption, selection_text
from .cells import NOTHING, TITLES, WORST, published_cell, whole_or_tenth
from .costs import costs_sheet
from .heat import heat_sheet
from .leakage import build_leakage
from .ledger import ledger_sheet
from .page_data import RowData, row_data, splits_of
from .page_figures import figure_groups
from .page_numbers import INTERVAL, Numbers, as_json, numbers_of
from .report import Asked, differences_sheet, make_report
from .rows import LEVELS, Block, Table
from .selection import RULES, EpochsOf
from .sheets import Sheet

_ABOUT = {
    **DEFINITIONS,
    LEAKAGE: "what a fresh linear probe reads of the bias in the embedding of the last epoch, over chance",
    INTERVAL: "Wilson's interval of a worst group's images, round the mean over seeds",
    "published": "the paper's number, under its own protocol",
}

_MOST_PROBLEMS = 20
"""Of a sheet, that are listed."""


@dataclass(frozen=True)
class Heading:
    """A column of numbers: its key, its title and meaning, and the metric whose box shows it, or "" for always."""

    key: str
    title: str
    about: str
    metric: str


def to_html(runs: Sequence[Run], problems: Iterable[str], asked: Asked, folder: Path | None = None) -> str:
    """The page; the same bytes for the same runs. folder: where Grad-CAM sheets are looked for, or None.

    Raises:
        ZooError: as ``make_report`` does, or where a Grad-CAM sheet cannot be read.
    """
    import matplotlib
    from jinja2 import Environment

    report = make_report(runs, problems, asked)
    table = report.table
    there = {result.identity for row in table.rows for result in row.results}
    own = [run for run in runs if run.result.identity in there]
    by_identity = {run.result.identity: run for run in own}
    data = {id(row): row_data(row, by_identity, report.epochs, asked.metrics[0]) for row in table.rows}
    every = {sheet.name: sheet for sheet in report.sheets}
    for sheet in _sheets(table, own, report.epochs, asked):
        every.setdefault(sheet.name, sheet)  # as it was asked for, where it was
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["script"] = _script
    return environment.from_string(_template("page.html")).render(
        css=_template("page.css"),
        js=_template("page.js"),
        generator=f"debias-zoo, figures by matplotlib {matplotlib.__version__}",
        figures=figure_groups(table, data, own, asked.metrics[0], folder),
        sheets=[sheet for sheet in every.values() if sheet.sections],
        **_results(table, data),
    )


def _template(name: str) -> str:
    return (files(__package__ or "debias_zoo.reports") / "templates" / name).read_text(encoding="utf-8")


def _script(value: Any) -> Any:
    """JSON that can stand in a script element, whatever is in it."""
    from markupsafe import Markup

    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _results(table: Table, data: Mapping[int, RowData]) -> dict[str, Any]:
    """What the template shows of the table, and what its script knows of it."""
    numbers = _numbers(table, data)
    places = {id(row): place for place, row in enumerate(table.rows)}
    titles = list(dict.fromkeys(row.dataset for row in table.rows))
    metrics = (*ALL_METRICS, *((LEAKAGE,) if LEAKAGE in table.metrics else ()))
    rules = {rule.name: selection_text(rule, table.metrics[0]) for rule in RULES.values()}
    splits = list(dict.fromkeys(row.split for row in table.rows))
    return {
        "title": f"Debiasing methods on {', '.join(titles)}" if titles else "Debiasing methods",
        "table": table,
        "notes": Notes(table),
        "captions": [caption(replace(table, blocks=(block,)), selection=False) for block in table.blocks],
        "headings": [list(_headings(block, metrics)) for block in table.blocks],
        "metrics": {metric: TITLES[metric] for metric in metrics},
        "about": _ABOUT,
        "rules": rules,
        "split": splits[0] if len(splits) == 1 else "",
        "splits": splits_of(data.values()),
        "place": lambda row: places[id(row)],
        "found": lambda row: numbers[id(row)].get(table.selection, {}).get(row.split, {}),
        "published": published_cell,
        "seconds": whole_or_tenth,
        "nothing": NOTHING,
        "most_problems": _MOST_PROBLEMS,
        "payload": {
            "rules": rules,
            "levels": LEVELS,
            "errors": sorted(ERRORS),
            "rows": [as_json(data[id(row)], numbers[id(row)], places[id(row)]) for row in table.rows],
        },
    }


def _numbers(table: Table, data: Mapping[int, RowData]) -> dict[int, Numbers]:
    """Of every row, by its ``id``; ranked within its block."""
    found: dict[int, Numbers] = {}
    for block in table.blocks:
        found |= zip(map(id, block.rows), numbers_of([data[id(row)] for row in block.rows]), strict=True)
    return found


def _headings(block: Block, metrics: Sequence[str]) -> Iterator[Heading]:
    """The columns between the method and its supervision, in the order of the other formats."""
    published = {row.published.metric for row in block.rows if row.published}
    first = next((metric for metric in metrics if metric in published), "")
    for metric in metrics:
        yield Heading(metric, TITLES[metric], _ABOUT[metric], metric)
        if metric == first:
            yield Heading("published", "Published", _ABOUT["published"], "")
        if metric == "worst_group" and any(row.worst for row in block.rows):
            yield Heading(INTERVAL, WORST, _ABOUT[INTERVAL], metric)


def _sheets(table: Table, runs: Sequence[Run], epochs: EpochsOf, asked: Asked) -> Iterator[Sheet]:
    """What stands on every page: ledger, differences, cost, and what was probed and explained."""
    metric = asked.metrics[0]
    yield ledger_sheet(table, asked.methods)
    if len(table.scores(metric)) > 1:
        yield differences_sheet(table, epochs, None, metric)
    yield costs_sheet(table)
    if LEAKAGE in table.metrics:
        yield build_leakage(runs)
    yield heat_sheet(runs)
