"""The results table: one row a method x data set x setting, mean and spread over seeds, ranked where comparable."""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from debias_zoo.errors import unknown
from debias_zoo.metrics import ALL_METRICS, LEAKAGE, METRICS, known_metrics, wilson
from debias_zoo.store import uncollected
from debias_zoo.trial import Result

from .published import find
from .ranking import ranks
from .rows import LEVELS, Block, Row, Table, over_seeds
from .selection import DEFAULT
from .settings import Setting, data_of, describe, describe_each, differences, key_of, order_of, setting_of, text_of


@uncollected()
def build_table(
    results: Iterable[Result],
    *,
    methods: Sequence[str] | None = None,
    problems: Iterable[str] = (),
    split: str | None = None,
    metrics: Sequence[str] = METRICS,
    selection: str = DEFAULT,
    leakage: Mapping[str, float] | None = None,
) -> Table:
    """The table of ``results``; it does not depend on their order.

    Results that differ in anything but the seed never share a row. What cannot be shown is told in the table's
    ``problems``.

    Args:
        results: of any number of methods, data sets, settings and seeds, with the numbers that ``selection`` chose.
        methods: only these, within a level of supervision in this order; None: all, by name.
        problems: of the store: trials that failed, are unfinished or damaged.
        split: what to show; None: ``test``, or a result's last split that is not for training or validation.
        metrics: what people see; programs get all.
        selection: name of the rule, as in ``selection.py``.
        leakage: of the bias at the embedding, over chance, by identity; a column where a row has it.
    """
    told = list(dict.fromkeys(problems))
    results = list(results) if methods is None else _of_methods(results, methods, told)
    cells: dict[tuple[str, str, str], tuple[Setting, str, list[Result]]] = {}
    known: dict[tuple[str, str], tuple[Setting, str]] = {}
    for result, measured in _with_split(results, split, told):
        text = text_of(result.trial), measured
        if text not in known:
            fields = setting_of(result.trial, measured)
            known[text] = fields, key_of(fields)
        setting, key = known[text]
        cell = cells.setdefault((result.trial.dataset, result.trial.method, key), (setting, measured, []))
        cell[2].append(result)
    probed = leakage or {}
    rows = [_row(setting, measured, _one_a_seed(found, told), probed) for setting, measured, found in cells.values()]
    shown = known_metrics(metrics) + (LEAKAGE,) * any(row.values[LEAKAGE] for row in rows)
    return Table(tuple(_blocks(rows, list(methods or ()))), tuple(told), shown, selection)


def _of_methods(results: Iterable[Result], methods: Sequence[str], told: list[str]) -> list[Result]:
    """The results of these methods; a method without any is told, unless a problem names it already."""
    results = list(results)
    known = {result.trial.method for result in results}
    if results and known.isdisjoint(methods):
        raise unknown("method", ", ".join(methods), known, "these have finished results")
    for name in dict.fromkeys(methods):
        if name not in known and not any(_is_of(problem, name) for problem in told):
            told.append(f"no finished result of {name!r}")
    return [result for result in results if result.trial.method in methods]


def _is_of(problem: str, method: str) -> bool:
    """Whether a problem of the store, which names a trial's folder or its label, is of a method."""
    name = re.escape(method)
    return re.search(rf"/{name}/\d+-[0-9a-f]{{12}}\b|(^|: ){name} on ", problem) is not None


def _with_split(results: Iterable[Result], split: str | None, told: list[str]) -> list[tuple[Result, str]]:
    """The results in a fixed order, each with the split to show; those without one are told."""
    results = _ordered(results)
    known = {name for result in results for name in result.metrics}
    if split is not None and results and split not in known:
        raise unknown("split", split, known, "these were evaluated")
    shown = []
    for result in results:
        found = split or shown_split(result.metrics)
        if found in result.metrics:
            shown.append((result, found))
        else:
            there = ", ".join(result.metrics) or "none"
            told.append(f"left out: {result.trial.label}: no split {found!r}; it was evaluated on: {there}")
    return shown


def _ordered(results: Iterable[Result]) -> list[Result]:
    """The results by data set, method and seed; those of one trial by all their content."""

    def trial_of(result: Result) -> tuple[str, str, int, str]:
        return result.trial.dataset, result.trial.method, result.trial.seed, result.identity

    found: list[Result] = []
    for _, of_trial in itertools.groupby(sorted(results, key=trial_of), key=trial_of):
        same = list(of_trial)
        found += same if len(same) == 1 else sorted(same, key=lambda result: result.model_dump_json())
    return found


def shown_split(splits: Iterable[str]) -> str:
    """The split that is shown where none is named: ``test``, or the last that is not for training or validation."""
    tests = [name for name in splits if not name.startswith(("train", "val"))]
    return "test" if "test" in tests or not tests else tests[-1]


def _one_a_seed(results: list[Result], told: list[str]) -> list[Result]:
    """The first result of each seed, by seed; a seed that came with two different outcomes is told."""
    kept: dict[int, Result] = {}
    for result in sorted(results, key=lambda result: result.trial.seed):
        first = kept.setdefault(result.trial.seed, result)
        if first.metrics != result.metrics:
            told.append(
                f"repeated: {result.trial.label}: two results with different numbers; shown is that of "
                f"{_origin(first)}, not that of {_origin(result)}"
            )
    return list(kept.values())


def _origin(result: Result) -> str:
    return f"commit {result.environment.get('commit', 'unknown')}, {result.environment.get('date', 'no date')}"


def _row(setting: Setting, split: str, results: list[Result], leakage: Mapping[str, float]) -> Row:
    trial = results[0].trial
    seconds = [result.seconds["total"] for result in results if "total" in result.seconds]
    values = {metric: over_seeds([result.metrics[split].get(metric) for result in results]) for metric in ALL_METRICS}
    values[LEAKAGE] = over_seeds([leakage.get(result.identity) for result in results])
    return Row(
        trial=trial,
        split=split,
        fields=setting,
        results=tuple(results),
        seconds=statistics.fmean(seconds) if seconds else None,
        values=values,
        worst=worst_interval([result.metrics[split] for result in results]),
        published=find(trial.method, trial.dataset, trial.params) if split == "test" else None,
    )


def worst_interval(metrics: Sequence[Mapping[str, float | None]]) -> tuple[float, float] | None:
    """The interval of a worst group's images, round the mean over seeds: all seeds see the same images."""
    pairs = [(found.get("worst_group"), found.get("worst_n")) for found in metrics]
    known = [(share, n) for share, n in pairs if share is not None and n]
    if len(known) < len(pairs):
        return None
    share, n = (statistics.fmean(numbers) for numbers in zip(*known, strict=True))
    return wilson(share * n, n)


def _blocks(rows: list[Row], methods: list[str]) -> list[Block]:
    """Rows sorted into blocks, named and ranked."""
    texts = _told_apart(rows, lambda row: (row.method, row.dataset))
    labels = _told_apart(rows, lambda row: (row.method, *row.data))
    rows = [replace(row, setting=text, label=label) for row, text, label in zip(rows, texts, labels, strict=True)]
    by_data: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row.dataset, order_of(data_of(row.fields)))):
        by_data.setdefault(row.data, []).append(row)
    titles = _titles([members[0] for members in by_data.values()])
    blocks = []
    for title, members in zip(titles, by_data.values(), strict=True):
        members.sort(key=lambda row: _place(row, methods))
        blocks.append(Block(title, tuple(_ranked(members))))
    return blocks


def _place(row: Row, methods: list[str]) -> tuple[int, int, str, object]:
    asked = methods.index(row.method) if row.method in methods else len(methods)
    return LEVELS.index(row.supervision.level), asked, row.method, order_of(row.fields)


def _told_apart(rows: list[Row], kind: Callable[[Row], object]) -> list[str]:
    """For each row, in what it differs from the others of its kind."""
    kinds: dict[object, list[Setting]] = {}
    for row in rows:
        kinds.setdefault(kind(row), []).append(row.fields)
    paths = {found: differences(settings) for found, settings in kinds.items()}
    return [describe(row.fields, paths[kind(row)], row.method, row.dataset) for row in rows]


def _titles(firsts: list[Row]) -> list[str]:
    """``cmnist, variance=0.03``: a data set, and in what a block differs from the table's others on it."""
    texts = describe_each([("", row.dataset, data_of(row.fields)) for row in firsts])
    return [f"{row.dataset}, {text}" if text else row.dataset for row, text in zip(firsts, texts, strict=True)]


def _ranked(rows: list[Row]) -> list[Row]:
    """The rows with the best and the second best mean of each metric marked."""
    seeds = [len(row.seeds) for row in rows]
    marked = [dict(row.values) for row in rows]
    for metric in (*ALL_METRICS, LEAKAGE):
        means = [value.mean if (value := row.values[metric]) else None for row in rows]
        for values, rank in zip(marked, ranks(metric, means, seeds), strict=True):
            value = values[metric]
            if rank is not None and value is not None:
                values[metric] = replace(value, rank=rank)
    return [replace(row, values=values) for row, values in zip(rows, marked, strict=True)]
