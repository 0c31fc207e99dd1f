"""From the runs of a store to what was asked of them: the results table, or sheets, as text in a format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from debias_zoo.errors import ZooError, unknown
from debias_zoo.metrics import METRICS, known_metrics
from debias_zoo.store import Run
from debias_zoo.trial import Result

from .choices import choices_sheet
from .costs import costs_sheet
from .formats import FORMATS
from .intervals import intervals_sheet
from .latex import to_latex
from .leakage import LAST, over_chance
from .ledger import ledger_sheet
from .markdown import to_markdown
from .pivots import pivot_sheets
from .records import to_csv, to_json
from .render_sheets import render_sheets
from .robustness import robustness_sheet
from .rows import Table
from .selection import DEFAULT, Epochs, Rule, known_rules, select
from .sheets import Sheet
from .significance import significance_sheet
from .table import build_table, shown_split


@dataclass(frozen=True)
class Asked:
    """What a report shall show.

    Attributes:
        methods: only these, in this order; empty: all. split: as in ``build_table``.
        metrics: columns, or what sheets of one metric show. rules: names of selection rules; several are compared.
        layout: one of ``pivots.LAYOUTS``, or "". curve: a data set parameter, or "".
        ledger, cost, intervals: whether these sheets are shown.
        compare: the method that all are compared with; "" for the usual one; None: no comparison.
    """

    methods: Sequence[str] = ()
    split: str | None = None
    metrics: Sequence[str] = METRICS
    rules: Sequence[str] = (DEFAULT,)
    layout: str = ""
    ledger: bool = False
    cost: bool = False
    intervals: bool = False
    compare: str | None = None
    curve: str = ""


@dataclass(frozen=True)
class Report:
    """A results table and, where any were asked for, the sheets that are shown in its place."""

    table: Table
    sheets: list[Sheet] = field(default_factory=list)


def make_report(runs: Sequence[Run], problems: Iterable[str], asked: Asked) -> Report:
    """What was asked of the runs; ``problems`` of the store are told below each table.

    Raises:
        ZooError: an unknown method, split, metric, rule, layout or parameter.
    """
    metrics, rules = known_metrics(asked.metrics), known_rules(asked.rules)
    told = list(problems)
    results = [run.result for run in runs]
    if len(rules) == 1 and rules[0].name != DEFAULT:
        results = selected(runs, rules[0], asked.split, metrics[0], told)
    table = build_table(
        results,
        methods=list(asked.methods) or None,
        problems=told,
        split=asked.split,
        metrics=metrics,
        selection=rules[0].name if len(rules) == 1 else DEFAULT,
        leakage=_leakage(runs, told),
    )
    sheets = []
    by_identity = {run.result.identity: run for run in runs}
    if len(rules) > 1:
        shown = metrics if metrics != METRICS else metrics[:1]
        sheets += [choices_sheet(table, by_identity, rules, metric) for metric in shown]
    if asked.layout:
        sheets += pivot_sheets(table, asked.layout)
    if asked.curve:
        sheets.append(robustness_sheet(table, asked.curve, metrics[0]))
    if asked.intervals:
        sheets.append(intervals_sheet(table, by_identity))
    if asked.compare is not None:
        compared = significance_sheet(table.scores(metrics[0]), asked.compare or None, metrics[0])
        sheets.append(replace(compared, problems=(*table.problems, *compared.problems)))
    if asked.ledger:
        sheets.append(ledger_sheet(table))
    if asked.cost:
        sheets.append(costs_sheet(table))
    return Report(table, sheets)


def _leakage(runs: Sequence[Run], told: list[str]) -> dict[str, float]:
    """What was probed at the embedding, over chance, by identity."""
    found = {}
    for run in runs:
        try:
            probe = run.probe()
        except ZooError as error:
            told.append(f"not read: {error}")
            continue
        if probe is not None and (value := over_chance(probe, LAST, "bias")) is not None:
            found[run.result.identity] = value
    return found


def selected(runs: Sequence[Run], rule: Rule, split: str | None, metric: str, told: list[str]) -> list[Result]:
    """The results as they would stand had ``rule`` chosen their epochs; those it cannot be asked of are told."""
    found = []
    for run in runs:
        try:
            result = select(Epochs(run), rule, split or shown_split(run.result.metrics), metric)
        except ZooError as error:
            told.append(f"left out: {error}")
            continue
        if result is None:
            told.append(f"left out: {run.result.trial.label}: {rule.name} reads {rule.reads}, and there are none")
        else:
            found.append(result)
    return found


def render(table: Table, form: str, standalone: bool = False) -> str:
    """The results table as text in one of ``FORMATS`` but html; ``standalone``: a whole LaTeX document.

    For a terminal, print ``terminal.render_rich(table)`` instead: text has no bold.
    """
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    if standalone and form != "latex":
        raise ZooError(f"format {form!r} has no standalone form; only 'latex' has: leave --standalone out")
    if form == "html":
        raise ZooError("a page is more than a table: use page.to_html(runs, ...)")
    if form == "latex":
        return to_latex(table, standalone)
    if form == "rich":
        from .terminal import to_text  # rich is not needed by the others

        return to_text(table)
    return {"markdown": to_markdown, "csv": to_csv, "json": to_json}[form](table)


def render_report(report: Report, form: str, standalone: bool = False) -> str:
    """A report as text in one of ``FORMATS`` but html."""
    if report.sheets:
        return render_sheets(report.sheets, form, standalone)
    return render(report.table, form, standalone)
