"""The report as one self-contained HTML file: a table to sort and filter, rules to switch, figures, every source."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from debias_zoo.errors import ZooError
from debias_zoo.metrics import ALL_METRICS, DEFINITIONS, ERRORS, LEAKAGE
from debias_zoo.store import Run

from .caption import Notes, caption
from .cells import TITLES, whole_or_tenth
from .costs import costs_sheet
from .critical_difference import draw
from .drawing import style, to_svg
from .figures import group_maps, learning_curves, pareto, robustness
from .friedman import average_ranks, why_no_ranks
from .heat import heat_sheet
from .leakage import build_leakage
from .leakage_figure import leakage_figure
from .ledger import ledger_sheet
from .page_data import RowData, as_json, row_data, splits_of
from .report import Asked, make_report
from .rows import Block, Table
from .selection import RULES
from .sheets import Sheet
from .significance import significance_sheet

_SHEETS = "*-heat.png"
"""Grad-CAM sheets that ``debias-zoo explain`` left in the runs' folder."""


@dataclass(frozen=True)
class Figure:
    """A picture of the page: inline SVG or a data URI, and what it shows."""

    title: str
    about: str
    svg: str = ""
    source: str = ""


def to_html(runs: Sequence[Run], problems: Iterable[str], asked: Asked, folder: Path | None = None) -> str:
    """The page; the same bytes for the same runs. folder: where Grad-CAM sheets are looked for, or None."""
    from jinja2 import Environment

    report = make_report(runs, problems, asked)
    table = report.table
    by_identity = {run.result.identity: run for run in runs}
    data = {id(row): row_data(row, by_identity) for row in table.rows}
    places = {id(row): place for place, row in enumerate(table.rows)}
    known = (*ALL_METRICS, *((LEAKAGE,) if LEAKAGE in table.metrics else ()))
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["script"] = _script
    template = environment.from_string(_template("page.html"))
    return template.render(
        title=_title(table),
        css=_template("page.css"),
        js=_template("page.js"),
        table=table,
        place=lambda row: places[id(row)],
        notes=Notes(table),
        caption=caption(table),
        titles=TITLES,
        metrics=known,
        shown=table.metrics,
        definitions={
            **DEFINITIONS,
            LEAKAGE: "what a fresh linear probe reads of the bias in the embedding, over chance",
        },
        rules=RULES.values(),
        selection=table.selection,
        splits=splits_of(data.values()),
        seconds=whole_or_tenth,
        figures=[*_figures(table, data, asked, runs), *_pictures(folder)],
        sheets=[*report.sheets, *_sheets(table, runs, asked.metrics[0])],
        payload={
            "rows": [as_json(data[id(row)], places[id(row)]) for row in table.rows],
            "errors": sorted(ERRORS),
            "split": {str(places[id(row)]): row.split for row in table.rows},
        },
    )


def _template(name: str) -> str:
    return (files(__package__ or "debias_zoo.reports") / "templates" / name).read_text(encoding="utf-8")


def _script(value: Any) -> Any:
    """JSON that can stand in a script element, whatever is in it."""
    from markupsafe import Markup

    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _title(table: Table) -> str:
    names = ", ".join(dict.fromkeys(row.dataset for row in table.rows))
    return f"Debiasing methods on {names}" if names else "Debiasing methods"


def _figures(table: Table, data: dict[int, RowData], asked: Asked, runs: Sequence[Run]) -> list[Figure]:
    with style():
        found = [figure for block in table.blocks for figure in _of_block(block, data)]
        found += _robustness(table, asked.metrics[0])
        found += _ranks(table, asked.metrics[0])
        if LEAKAGE in table.metrics:
            about = "What fresh linear probes read in the frozen features at each layer, over chance."
            found.append(_drawn("Bias leakage", about, leakage_figure(_probed(runs))))
    return found


def _probed(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.probe() is not None]


def _ranks(table: Table, metric: str) -> Iterator[Figure]:
    """The critical-difference diagram, where there are enough methods and blocks."""
    scores = table.scores(metric)
    if not why_no_ranks(scores):
        about = f"Average ranks by {TITLES[metric]} over data sets and seeds; a bar joins what is not told apart."
        yield _drawn("Critical difference", about, draw(average_ranks(scores, metric)))


def _sheets(table: Table, runs: Sequence[Run], metric: str) -> Iterator[Sheet]:
    """What stands on every page: ledger, differences, cost, and what was probed and explained."""
    yield ledger_sheet(table)
    if len(table.scores(metric)) > 1:
        yield significance_sheet(table.scores(metric), None, metric)
    yield costs_sheet(table)
    if LEAKAGE in table.metrics:
        yield build_leakage(_probed(runs))
    yield heat_sheet(runs)


def _of_block(block: Block, data: dict[int, RowData]) -> list[Figure]:
    rows = block.rows
    figures = []
    curves = {row.name: found for row in rows if (found := data[id(row)].curves) is not None}
    if curves:
        about = "Accuracy on the shown split after every epoch of all stages: mean over seeds, their range shaded."
        figures.append(_drawn(f"Learning curves, {block.title}", about, learning_curves(curves)))
    maps = {row.name: known for row in rows if (known := data[id(row)].accuracies) is not None}
    groups = next((result.groups for row in rows for result in row.results if result.groups), None)
    if maps and groups:
        about = "Accuracy by label and bias after the last epoch, mean over seeds; bias-aligned groups are framed."
        drawn = group_maps(maps, groups.classes, groups.biases, groups.aligned)
        figures.append(_drawn(f"Accuracy of the groups, {block.title}", about, drawn))
    if any(row.seconds and row.values["accuracy"] for row in rows):
        about = "Accuracy against the seconds of a trial; the line joins what no other method beats in both."
        figures.append(_drawn(f"Cost against accuracy, {block.title}", about, pareto(rows, "accuracy")))
    return figures


def _robustness(table: Table, metric: str) -> Iterator[Figure]:
    """A figure for each numeric parameter of the data that some method was run at two values of, all else alike."""
    for name in dict.fromkeys(name for row in table.rows for name in row.trial.params):
        if any(isinstance(row.trial.params.get(name), str | bool) for row in table.rows):
            continue
        try:
            drawn = robustness(table, name, metric)
        except ZooError:
            continue
        about = f"{TITLES[metric]} against {name} of the data; mean ± sample standard deviation over seeds."
        yield _drawn(f"Robustness against {name}", about, drawn)


def _drawn(title: str, about: str, drawn: Any) -> Figure:
    return Figure(title, about, svg=to_svg(drawn))


def _pictures(folder: Path | None) -> list[Figure]:
    found = []
    for path in sorted(folder.glob(_SHEETS)) if folder is not None else []:
        try:
            text = base64.b64encode(path.read_bytes()).decode()
        except OSError as error:
            raise ZooError(f"cannot read {path}: {error.strerror or error}") from error
        about = "Where the last layer with a map looked (Grad-CAM), on the same bias-conflicting images."
        found.append(Figure(f"Grad-CAM, {path.stem}", about, source=f"data:image/png;base64,{text}"))
    return found
