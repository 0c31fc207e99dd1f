"""What must be said beside the numbers: how they were made, which marks mean what, and what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from debias_zoo.metrics import LEAKAGE
from debias_zoo.trial import Trial

from .cells import UNREAD, WORST
from .rows import Row, Table
from .selection import RULES, Rule

DAGGER, DOUBLE_DAGGER, SECTION = "†", "‡", "§"

_METRIC_NAMES = {"unbiased": "unbiased accuracy"}

_LAST_DIGITS = "with another memory format, compiled or stacked, last digits differ"

_LONGEST_NAME = 30
"""Where method and setting have more characters, the setting goes into a note and does not widen the table."""


@dataclass(frozen=True)
class Name:
    """What stands in a row's first cell: the method, its marks (one character or number each), its setting or ""."""

    method: str
    marks: tuple[str, ...]
    setting: str

    def raised(self, escape: Callable[[str], str]) -> str:
        """As HTML and Markdown have it, with raised marks; ``escape`` writes plain text in the format."""
        text = escape(self.method) + "".join(raised(mark) for mark in self.marks)
        return f"{text} ({escape(self.setting)})" if self.setting else text


def raised(mark: str) -> str:
    """A mark in HTML and Markdown."""
    return f"<sup>{mark}</sup>"


class Notes:
    """The marks of a table's rows, and what they mean. Text is plain; each format escapes it."""

    def __init__(self, table: Table) -> None:
        self._table = table
        long = [row.label for row in table.rows if row.label and len(row.method + row.label) > _LONGEST_NAME]
        self._numbered = list(dict.fromkeys([*long, *filter(None, map(_changed, table.rows))]))

    def name(self, row: Row) -> Name:
        """The first cell of a row."""
        marks = [mark for mark, meant, _ in _MARKS if meant(row)]
        noted = [text for text in (row.label, _changed(row)) if text in self._numbered]
        marks += [str(self._numbered.index(text) + 1) for text in noted]
        return Name(row.method, tuple(marks), "" if row.label in noted else row.label)

    def legend(self) -> list[tuple[str, str]]:
        """(mark, meaning) for every mark in the table."""
        rows = self._table.rows
        used = [(mark, text) for mark, meant, text in _MARKS if any(meant(row) for row in rows)]
        return used + [(str(i), text) for i, text in enumerate(self._numbered, start=1)]

    def problems(self, most: int = 30) -> list[str]:
        """What is missing from the table, one line each, without line breaks; of more than ``most`` only how many."""
        problems = [" ".join(problem.split()) for problem in self._table.problems]
        problems = [problem.encode("utf-8", "replace").decode() for problem in problems]  # of odd names of files
        more = len(problems) - most
        return problems[:most] + ([f"... and {more} more"] if more > 0 else [])


_MARKS: Sequence[tuple[str, Callable[[Row], bool], str]] = (
    (DAGGER, lambda row: row.supervision.knows_bias_kind, "built for one kind of bias"),
    (
        DOUBLE_DAGGER,
        lambda row: row.supervision.tuned_on == "val_unbiased",
        "settings chosen on val_unbiased, which reads bias labels",
    ),
    (SECTION, lambda row: row.supervision.tuned_on == "val", "settings chosen on val"),
)


def _changed(row: Row) -> str:
    """What was changed by hand, where its label does not tell it; backbone and weights are in the caption."""
    options = [option for option in row.trial.options if option.startswith(("--set ", "--normalize "))]
    return "" if row.label or not options else f"with {' '.join(options)}"


def caption(table: Table, best: str = "bold", second: str = "underlined", selection: bool = True) -> list[str]:
    """The sentences of the caption.

    ``best`` and ``second`` say how this format marks them; without ``selection`` it is said elsewhere how epochs were
    chosen.
    """
    rows = table.rows
    if not rows:
        return ["No finished trial."]
    sentences = [*conditions(rows), *([selection_sentence(table)] if selection else []), tuning(rows)]
    if any(value and value.rank for row in rows for value in row.values.values()):
        sentences.append(f"Best {best}, second best {second} (gap: nearest to zero){among(rows)}.")
    if table.has_intervals:
        sentences.append(
            f"{WORST}: Wilson's interval of a worst group's images, round the mean over seeds; what seeds differ by is "
            "in ±."
        )
    if LEAKAGE in table.metrics:
        sentences.append(
            "Bias-leakage: balanced accuracy over chance of a fresh linear probe that reads the bias in the embedding."
        )
    if numbers := table.published:
        sources, metrics = (dict.fromkeys(getattr(p, key) for p in numbers) for key in ("source", "metric"))
        named = " or ".join(_METRIC_NAMES.get(metric, metric) for metric in metrics)
        unread = f" ({UNREAD} not read in the paper itself)" if not all(p.verified for p in numbers) else ""
        sentences.append(f"Published{unread}: test {named} under the papers' own protocol, from {'; '.join(sources)}.")
    return sentences


def conditions(rows: Sequence[Row]) -> list[str]:
    """On what the rows were measured and how they were trained."""
    return [
        f"Results on {_data(rows)}, in per cent.",
        f"Protocol: {_by_method(rows, _protocol)}.",
        f"Backbone: {_by_method(rows, _backbone)}.",
        f"Precision: {_by_method(rows, lambda row: row.trial.precision)}.",
        *_programs(rows),
        *_seeds(rows),
    ]


def among(rows: Sequence[Row]) -> str:
    """Which rows are ranked, where they differ in the number of seeds."""
    return " of the rows with the most seeds on the same data" if len({len(row.seeds) for row in rows}) > 1 else ""


def selection_sentence(table: Table) -> str:
    """Which epoch the table shows, and which labels were read to choose it."""
    return f"Selection: {selection_text(RULES[table.selection], table.metrics[0])}."


def selection_text(rule: Rule, metric: str) -> str:
    """Which epoch is shown, and which labels were read to choose it; ``metric``: the first of those shown."""
    if rule.name == "oracle":
        return f"oracle, {rule.about} ({_METRIC_NAMES.get(metric, metric)}); reads {rule.reads}"
    return f"{rule.about}; reads {rule.reads}"


def _data(rows: Sequence[Row]) -> str:
    texts = []
    for name in dict.fromkeys(row.dataset for row in rows):
        of_it = [row for row in rows if row.dataset == name]
        shared = _shared([row.trial for row in of_it])
        splits = dict.fromkeys(row.split for row in of_it)
        texts.append(f"{name}{f' ({shared})' if shared else ''}, split {', '.join(splits)}{_empty(of_it)}")
    return "; ".join(texts)


def _empty(rows: Sequence[Row]) -> str:
    """How many groups have no image and are left out, or that groups are not known."""
    counted = [row.results[0].metrics[row.split] for row in rows]
    if all("n" in one and "groups" not in one for one in counted):
        return " (which has no bias labels: only accuracy is known)"
    found = {(one["empty_groups"], one["groups"]) for one in counted if one.get("empty_groups")}
    texts = [f"{empty:.0f} of {empty + there:.0f}" for empty, there in sorted(found) if empty and there is not None]
    return f" ({' or '.join(texts)} groups have no image there and are left out)" if texts else ""


def _shared(trials: Sequence[Trial]) -> str:
    """The parameters of the data that all trials share, but for what is off or not given; the others are in titles."""
    first = trials[0].params
    same = {key: value for key, value in first.items() if all(t.params.get(key) == value for t in trials)}
    return ", ".join(f"{key}={value}" for key, value in same.items() if value is not False and value != "")


def _protocol(row: Row) -> str:
    limits = {"training": row.trial.train_limit, "evaluation": row.trial.eval_limit}
    used = [f"{limit} {what}" for what, limit in limits.items() if limit is not None]
    return row.trial.protocol + (f", at most {' and '.join(used)} images" if used else "")


def _backbone(row: Row) -> str:
    options = ", ".join(f"{key}={value}" for key, value in row.trial.backbone_options.items())
    initial = f" from {PurePath(row.trial.weights).name} ({row.trial.weights_digest})" if row.trial.weights else ""
    return row.trial.backbone + (f" with {options}" if options else "") + initial


def _programs(rows: Sequence[Row]) -> list[str]:
    """What made the steps, where that differs on one backbone: then last digits differ too."""
    layouts = {(row.trial.backbone, result.environment.get("layout")) for row in rows for result in row.results}
    known = [backbone for backbone, layout in layouts if layout]
    unusual = any(
        set(result.program.split(", ")) & {"compiled", "stacked seeds"} for row in rows for result in row.results
    )
    if not unusual and len(known) == len(set(known)):
        return []
    return [f"Steps ({_LAST_DIGITS}): {_by_method(rows, _program)}."]


def _program(row: Row) -> str:
    return " or ".join(dict.fromkeys(result.program or "layout not recorded" for result in row.results))


def _seeds(rows: Sequence[Row]) -> list[str]:
    counts = {len(row.seeds) for row in rows}
    which = _by_method(rows, lambda row: _listed(row.seeds))
    if counts == {1}:
        return [f"One seed ({which}), so no ±: run at least three (--seeds 3) before comparing methods."]
    if len(counts) == 1:
        return [f"Mean ± sample standard deviation over n = {counts.pop()} seeds ({which})."]
    which = _by_method(rows, lambda row: f"n = {len(row.seeds)} ({_listed(row.seeds)})")
    sentences = [f"Mean ± sample standard deviation over n seeds: {which}."]
    if 1 in counts:
        sentences.append("One seed gives no ±: run at least three (--seeds 3).")
    return sentences


def _listed(seeds: Sequence[int]) -> str:
    if len(seeds) > 5 and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(str(seed) for seed in seeds)


def tuning(rows: Sequence[Row]) -> str:
    """Whose settings were chosen on which split."""
    chosen = []
    for split in ("val_unbiased", "val"):
        methods = _methods(row for row in rows if row.supervision.tuned_on == split)
        if methods:
            chosen.append(f"settings of {methods} chosen on {split}")
    if not chosen:
        return "Tuning: none tuned."
    left = any(row.supervision.tuned_on is None for row in rows)
    return f"Tuning: {'; '.join(chosen)}{'; the others not tuned' if left else ''}."


def _methods(rows: Iterable[Row]) -> str:
    return ", ".join(dict.fromkeys(row.method for row in rows))


def _by_method(rows: Sequence[Row], describe: Callable[[Row], str]) -> str:
    """One text if it holds for all rows, else each text and for which methods it holds."""
    texts: dict[str, list[Row]] = {}
    for row in rows:
        texts.setdefault(describe(row), []).append(row)
    if len(texts) == 1:
        return next(iter(texts))
    return "; ".join(f"{text} for {_methods(members)}" for text, members in texts.items())
