"""Robustness: a metric against a parameter of the data, such as the strength of its bias."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from debias_zoo.errors import ZooError, unknown

from .caption import conditions, selection_sentence, tuning
from .cells import NOTHING, TITLES, percent, spread
from .rows import Row, Table, Value
from .settings import Path, data_of, describe_each, key_of, kind_of
from .sheets import Cell, Column, Section, Sheet

Fields = dict[Path, str]


@dataclass(frozen=True)
class Line:
    """A method on one data set, by the value of the parameter, which is a number or a text.

    ``setting`` tells it from other lines of the method in the same data; "" where there are none.
    """

    row: Row
    values: Mapping[float | str, Value]
    setting: str = ""

    @property
    def name(self) -> str:
        """The method, with what tells the line from others."""
        return f"{self.row.method} ({self.setting})" if self.setting else self.row.method


def lines(table: Table, parameter: str, metric: str) -> dict[str, list[Line]]:
    """Lines by the data that they share but for ``parameter``, in words; along a line nothing else differs.

    Raises:
        ZooError: no row has the parameter, or none has it at two values.
    """
    known = {name for row in table.rows for name in row.trial.params}
    if parameter not in known:
        raise unknown("data set parameter", parameter, known, "these are in the runs")
    rows = [row for row in table.rows if parameter in row.trial.params]
    found: dict[tuple[str, str], list[tuple[Row, Fields]]] = {}
    for row, rest in zip(rows, _rests(rows, parameter), strict=True):
        found.setdefault((row.dataset, key_of(data_of(rest))), []).append((row, rest))
    made = [_lines(members, parameter, metric) for members in found.values()]
    if all(len(line.values) < 2 for of_group in made for line in of_group):
        raise ZooError(
            f"no method was run at two values of {parameter!r}: sweep it, as in --dataset "
            f"{rows[0].dataset}:{parameter}=A,B,C"
        )
    return dict(zip(_headings([members[0] for members in found.values()]), made, strict=True))


def _rests(rows: Sequence[Row], parameter: str) -> list[Fields]:
    """Each row's setting without the parameter, here and in the trials it needs.

    Without the data's fingerprint too, which follows from the parameter; with it where two rows would be one.
    """
    rests = [{path: text for path, text in row.fields.items() if not _is(path, parameter)} for row in rows]
    short = [{path: text for path, text in rest.items() if kind_of(path) != "fingerprint"} for rest in rests]
    keys = [(row.dataset, row.method, key_of(own)) for row, own in zip(rows, short, strict=True)]
    places = Counter((*key, row.trial.params[parameter]) for key, row in zip(keys, rows, strict=True))
    doubled = {place[:3] for place, count in places.items() if count > 1}
    return [rest if key in doubled else own for key, rest, own in zip(keys, rests, short, strict=True)]


def _is(path: Path, parameter: str) -> bool:
    return kind_of(path) == "params" and path[-1] == parameter


def _lines(members: Sequence[tuple[Row, Fields]], parameter: str, metric: str) -> list[Line]:
    by_line: dict[tuple[str, str], dict[float | str, Row]] = {}
    fields: dict[tuple[str, str], Fields] = {}
    for row, rest in members:
        key = (row.method, key_of(rest))
        by_line.setdefault(key, {})[_number(row.trial.params[parameter])] = row
        fields[key] = rest
    settings = describe_each([(key[0], "", own) for key, own in fields.items()])
    return [_line(rows, metric, text) for rows, text in zip(by_line.values(), settings, strict=True)]


def _headings(firsts: Sequence[tuple[Row, Fields]]) -> list[str]:
    """``cmnist, val=0``: a data set, and in what its groups of lines differ."""
    texts = describe_each([("", row.dataset, data_of(rest)) for row, rest in firsts])
    return [f"{row.dataset}, {text}" if text else row.dataset for (row, _), text in zip(firsts, texts, strict=True)]


def robustness_sheet(table: Table, parameter: str, metric: str) -> Sheet:
    """One row a method, one column a value of the parameter."""
    groups = lines(table, parameter, metric)
    every = {value for of_group in groups.values() for line in of_group for value in line.values}
    places = sorted(
        every, key=lambda value: (isinstance(value, str), value if isinstance(value, float) else 0.0, str(value))
    )
    columns = [Column("method", "Method", text=True)]
    columns += [Column(f"{parameter}={shown(place)}", f"{parameter}={shown(place)}") for place in places]
    sections = []
    for heading, of_group in groups.items():
        rows = [
            (
                Cell(line.name, {"": line.row.method, "setting": line.setting}),
                *[_cell(line.values.get(place)) for place in places],
            )
            for line in of_group
        ]
        sections.append(Section(heading if len(groups) > 1 else "", tuple(rows)))
    shown_rows = [row for row in table.rows if parameter in row.trial.params]
    notes = (*conditions(shown_rows), selection_sentence(table), tuning(shown_rows))
    title = f"{TITLES[metric]} against {parameter}, in per cent"
    return Sheet(f"robustness-{metric}", title, tuple(columns), tuple(sections), notes)


def shown(value: float | str) -> str:
    """A value of the parameter as it is written on the command line, to the last digit."""
    if isinstance(value, str):
        return value
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _line(rows: Mapping[float | str, Row], metric: str, setting: str) -> Line:
    values = {place: value for place, row in rows.items() if (value := row.values[metric]) is not None}
    return Line(next(iter(rows.values())), values, setting)


def _number(value: object) -> float | str:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _cell(value: Value | None) -> Cell:
    if value is None:
        return Cell(NOTHING)
    return Cell(f"{percent(value.mean)}{spread(value.std)}", {"": value.mean, "std": value.std})
