"""From the runs of a store to what was asked of them: the results table, or sheets, as text in a format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from debias_zoo.errors import ZooError, unknown
from debias_zoo.metrics import LEAKAGE, METRICS, known_metrics
from debias_zoo.registry import load_format
from debias_zoo.store import Run
from debias_zoo.trial import Result

from .caption import conditions, selection_sentence
from .choices import choices_sheet
from .costs import costs_sheet
from .formats import check_can
from .group_sheet import groups_sheet
from .intervals import differences, intervals_sheet
from .leakage import LAST, over_chance
from .ledger import ledger_sheet
from .pivots import pivot_sheets
from .render_sheets import render_sheets
from .robustness import robustness_sheet
from .rows import Table
from .selection import DEFAULT, RULES, EpochsOf, Rule, chosen_by, epochs_of, known_rules, select
from .sheets import Sheet
from .significance import significance_sheet, usual_reference
from .table import build_table, shown_split


@dataclass(frozen=True)
class Asked:
    """What a report shall show.

    Attributes:
        methods: only these, in this order; empty: all. split: as in ``build_table``.
        metrics: columns, or what sheets of one metric show. rules: names of selection rules; several are compared.
        layout: one of ``pivots.LAYOUTS``, or "". curve: a data set parameter, or "".
        ledger, cost, intervals, groups: whether these sheets are shown.
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
    groups: bool = False
    compare: str | None = None
    curve: str = ""


@dataclass(frozen=True)
class Report:
    """A results table, the sheets that are shown in its place where any were asked for, and what reads predictions."""

    table: Table
    sheets: list[Sheet]
    epochs: EpochsOf

    @property
    def problems(self) -> list[str]:
        """What is missing from the table or the sheets, once each."""
        every = (problem for sheet in self.sheets for problem in sheet.problems)
        return list(dict.fromkeys((*self.table.problems, *every)))


def make_report(runs: Sequence[Run], problems: Iterable[str], asked: Asked) -> Report:
    """What was asked of the runs; ``problems`` of the store are told below each table.

    Raises:
        ZooError: an unknown method, split, metric, rule, layout or parameter.
    """
    metrics, rules = known_metrics(asked.metrics), known_rules(asked.rules or (DEFAULT,))
    told = list(problems)
    runs = _once(_of_methods(runs, asked.methods), told)
    epochs = epochs_of(runs)

    def table_by(rule: Rule) -> Table:
        last = rule.name == DEFAULT
        results = selected(runs, epochs, rule, asked.split, metrics[0], told) if not last else [r.result for r in runs]
        return build_table(
            results,
            methods=list(asked.methods) or None,
            problems=told,
            split=asked.split,
            metrics=metrics,
            selection=rule.name,
            leakage=_leakage(runs, told) if last else {},  # of the last epoch's network
        )

    table = table_by(rules[0] if len(rules) == 1 else RULES[DEFAULT])
    sheets = list(_sheets(table, epochs, rules, asked))
    if asked.ledger:
        others = [table_by(rule) for rule in rules if rule.name != table.selection]
        sheets.append(ledger_sheet(table, asked.methods, others))
    if asked.cost:
        sheets.append(costs_sheet(table))
    return Report(table, [_whole(sheet, table) for sheet in sheets], epochs)


def _of_methods(runs: Sequence[Run], methods: Sequence[str]) -> list[Run]:
    """The runs of these methods; empty: of all."""
    found = [run for run in runs if not methods or run.result.trial.method in methods]
    if runs and not found:
        known = {run.result.trial.method for run in runs}
        raise unknown("method", ", ".join(methods), known, "these have finished results")
    return found


def _once(runs: Sequence[Run], told: list[str]) -> list[Run]:
    """The runs, of several copies of a trial the first; a copy with other numbers is told."""
    kept: dict[str, Run] = {}
    for run in runs:
        first = kept.setdefault(run.result.identity, run)
        if first.result.metrics != run.result.metrics:
            told.append(f"repeated, with other numbers: {run.path}; shown is {first.path}")
    return list(kept.values())


def _sheets(table: Table, epochs: EpochsOf, rules: Sequence[Rule], asked: Asked) -> Iterator[Sheet]:
    """In the place of the table, what was asked for; but for the ledger, which has the rules' epochs itself."""
    metrics = table.metrics if LEAKAGE not in table.metrics else table.metrics[:-1]
    if len(rules) > 1 and not asked.ledger:
        shown = metrics if asked.metrics is not METRICS else metrics[:1]
        yield from (choices_sheet(table, epochs, rules, metric) for metric in shown)
    if asked.layout:
        yield from pivot_sheets(table, asked.layout)
    if asked.curve:
        yield robustness_sheet(table, asked.curve, metrics[0])
    if asked.intervals:
        yield intervals_sheet(table, epochs)
    if asked.compare is not None:
        yield differences_sheet(table, epochs, asked.compare or None, metrics[0])
    if asked.groups:
        yield groups_sheet(table, epochs)


def differences_sheet(table: Table, epochs: EpochsOf, reference: str | None, metric: str) -> Sheet:
    """Paired differences from a method, with intervals over seeds and test images where predictions can be read."""
    scores = table.scores(metric)
    known = reference or usual_reference(scores)
    return significance_sheet(
        scores,
        reference,
        metric,
        intervals=differences(table, epochs, known, metric),
        separate=table.separate,
        conditions=tuple(conditions(table.rows)),
    )


def _whole(sheet: Sheet, table: Table) -> Sheet:
    """The sheet with what is missing from the table and, where it is not the last, with the epoch that is shown."""
    chosen = (
        (selection_sentence(table),)
        if table.selection != DEFAULT and selection_sentence(table) not in sheet.notes
        else ()
    )
    problems = tuple(dict.fromkeys((*table.problems, *sheet.problems)))
    return replace(sheet, notes=(*sheet.notes, *chosen), problems=problems)


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


def selected(
    runs: Sequence[Run], epochs: EpochsOf, rule: Rule, split: str | None, metric: str, told: list[str]
) -> list[Result]:
    """The results as they would stand had ``rule`` chosen their epochs; those it cannot be asked of are told.

    A result that lacks the split stays as it is: the table tells it. One whose predictions cannot be read stays without
    numbers, so that its row is not the mean of the other seeds alone.
    """
    found = []
    for run in runs:
        shown = split or shown_split(run.result.metrics)
        if shown not in run.result.metrics:
            found.append(run.result)
            continue
        try:
            result = select(epochs(run.result.identity), rule, shown, metric)
        except ZooError as error:
            told.append(f"no number: {run.result.trial.label}: {error}")
            found.append(chosen_by(rule, run.result, {shown: {}}))
            continue
        if result is None:
            told.append(f"left out: {run.result.trial.label}: {rule.name} reads {rule.reads}, and there are none")
        else:
            found.append(result)
    return found


def render(table: Table, form: str, standalone: bool = False) -> str:
    """The results table as text in the format called ``form``; ``standalone``: as a whole document.

    For a terminal, print ``terminal.render_rich(table)`` instead: text has no bold.

    Raises:
        ZooError: an unknown format, or one that tables have not.
    """
    found = load_format(form)
    check_can(found, sheets=True, standalone=standalone)
    return found().table(table, standalone)


def render_report(report: Report, form: str, standalone: bool = False) -> str:
    """A report's sheets where it has any, else its table, as text in the format called ``form``."""
    if report.sheets:
        return render_sheets(report.sheets, form, standalone)
    return render(report.table, form, standalone)
