"""The ledger of reproduction: every published number beside ours, with the difference, a verdict and the command."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from debias_zoo.registry import load_method
from debias_zoo.trial import Result

from .caption import selection_sentence
from .cells import NOTHING, TITLES, UNREAD, percent, spread
from .published import Published, published
from .rows import Block, Row, Table
from .sheets import Cell, Column, Section, Sheet

LEAST = 0.02
"""A difference up to this, in fractions, is a match whatever the spreads say: papers print few seeds."""

_COLUMNS = (
    Column("method", "Method", text=True),
    Column("metric", "Metric", text=True),
    Column("published", "Published"),
    Column("ours", "Ours"),
    Column("n", "n"),
    Column("selection", "Epoch", text=True),
    Column("difference", "Difference"),
    Column("verdict", "Verdict", text=True),
    Column("hours", "Core-hours"),
    Column("source", "Source", below=True),
    Column("command", "Command", below=True),
)


def ledger_sheet(table: Table, methods: Sequence[str] = (), others: Sequence[Table] = ()) -> Sheet:
    """Published numbers of every method of the table, and those of its data sets that no run answers yet.

    Args:
        table: ours.
        methods: the only ones that it shows; empty: it shows all there are.
        others: the same runs with epochs that other rules choose, each of which has a line of its own.
    """
    sections = []
    told = [number for block in table.blocks for _, number in answers(block)]
    for block in table.blocks:
        unanswered = [number for number in _open(block) if number not in told]
        told += unanswered
        asked = [number for number in unanswered if not methods or number.method in methods]
        answered = [cells for row, number in answers(block) for cells in _rows(table, others, row, number)]
        rows = [*answered, *[_not_run(block, number) for number in asked]]
        if rows:
            sections.append(Section(block.title, tuple(rows)))
    tables = (table, *(other for other in others if other.rows))
    told_of_all = dict.fromkeys(problem for one in (table, *others) for problem in one.problems)
    problems = tuple(told_of_all) if sections else (*told_of_all, _nothing(table))
    notes = (
        "Ours: mean ± sample standard deviation over n seeds; difference in points.",
        *map(selection_sentence, tables),
        "matches: the difference is at most twice both spreads together (the root of the sum of their squares), or "
        f"{100 * LEAST:.0f} points; else lower or higher.",
        "Core-hours: of all n trials together, seconds times threads; on a GPU its hours. A first stage that trials "
        "share counts in each.",
        "setting differs: not run under --protocol paper, not in fp32, or with deviations from the paper that its "
        "recipe lists.",
        f"{UNREAD}: not read in the paper itself.",
    )
    return Sheet("ledger", "Published numbers and ours", _COLUMNS, tuple(sections), notes, problems)


def _nothing(table: Table) -> str:
    """Why there is no row."""
    of = ", ".join(dict.fromkeys(f"{row.dataset} (split {row.split})" for row in table.rows))
    return f"no published number of these methods on {of}" if of else "no trial is left that a number could answer"


def answers(block: Block) -> Iterator[tuple[Row, Published]]:
    """The block's rows with the numbers that papers have of them."""
    for row in block.rows:
        for number in published():
            if number.method == row.method and belongs(number, row):
                yield row, number


def _open(block: Block) -> list[Published]:
    """What papers say of this data and no row of the block answers."""
    there = {row.method for row in block.rows}
    return [number for number in published() if number.method not in there and belongs(number, block.rows[0])]


def _not_run(block: Block, number: Published) -> tuple[Cell, ...]:
    trial = block.rows[0].trial.model_copy(update={"method": number.method, "options": (), "needs": {}})
    recipes = load_method(number.method).recipes
    if trial.protocol == "paper" and ("paper", trial.dataset) not in {(r.protocol, r.dataset) for r in recipes}:
        trial = trial.model_copy(update={"protocol": "standard"})  # the other would be refused
    return _cells(name=number.method, setting="", number=number, verdict="not run", command=trial.command())


def belongs(number: Published, row: Row) -> bool:
    """Whether a published number is of the row's data, in its parameters, and of the split it shows."""
    return (
        number.dataset == row.dataset
        and number.belongs_to({"split": row.split, **row.trial.params})
        and ("split" in number.setting or row.split == "test")
    )


def _rows(table: Table, others: Sequence[Table], row: Row, number: Published) -> Iterator[tuple[Cell, ...]]:
    """A published number's lines: ours by the table's rule and by the others that can be asked."""
    yield _row(row, number, table.selection)
    trials = {result.identity for result in row.results}
    for other in others:
        for same in other.rows:
            if not trials.isdisjoint(result.identity for result in same.results):
                yield _row(same, number, other.selection)


def _row(row: Row, number: Published, rule: str) -> tuple[Cell, ...]:
    value = row.values[number.metric]
    mean, std = (value.mean, value.std) if value else (None, None)
    return _cells(
        name=row.name,
        setting=row.setting,
        number=number,
        mean=mean,
        std=spread(std),
        n=len(row.seeds),
        rule=rule,
        verdict=judged(row, number, mean, std),
        hours=core_hours(row.results),
        command=row.trial.command(row.seeds),
    )


def core_hours(results: Sequence[Result]) -> float | None:
    """Hours of processor cores that the trials took, or of GPUs; None where one did not note what it ran on."""
    found = [_core_seconds(result) for result in results]
    return math.fsum(one for one in found if one is not None) / 3600.0 if None not in found else None


def _core_seconds(result: Result) -> float | None:
    device = result.environment.get("device")
    cores = result.environment.get("threads") if device == "cpu" else 1
    return result.seconds["total"] * cores if device is not None and cores is not None else None


def judged(row: Row, number: Published, mean: float | None, std: float | None) -> str:
    """The verdict on ours, a fraction, beside a paper's; None where the row has no such number."""
    if mean is None:
        return "no number"
    difference = mean - number.mean
    allowed = max(LEAST, 2 * math.hypot(std or 0.0, number.std or 0.0))
    word = "matches" if abs(difference) <= allowed else "lower" if difference < 0 else "higher"
    trial = row.trial
    exact = trial.protocol == "paper" and trial.precision == "fp32" and not trial.deviations
    return word if exact else f"{word}; setting differs"


def _cells(
    *,
    name: str,
    setting: str,
    number: Published,
    command: str,
    verdict: str,
    mean: float | None = None,
    std: str = "",
    n: int | None = None,
    rule: str = "",
    hours: float | None = None,
) -> tuple[Cell, ...]:
    difference = None if mean is None else mean - number.mean
    paper = f"{percent(number.mean)}{spread(number.std)}{'' if number.verified else UNREAD}"
    return (
        Cell(name, {"": number.method, "setting": setting, "verified": number.verified}),
        Cell(TITLES[number.metric], number.metric),
        Cell(paper, {"": number.mean, "std": number.std, "n": number.n}),
        Cell(NOTHING if mean is None else f"{percent(mean)}{std}", mean),
        Cell(NOTHING if n is None else str(n), n),
        Cell(rule or NOTHING, rule or None),
        Cell(NOTHING if difference is None else f"{100 * difference:+.2f}", difference),
        Cell(verdict, verdict),
        Cell(NOTHING if hours is None else f"{hours:.2f}", hours),
        Cell(number.source, number.source),
        Cell(command, command),
    )
