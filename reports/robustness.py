"""Robustness: a metric against a parameter of the data, such as the strength of its bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from debias_zoo.errors import ZooError, unknown

from .cells import NOTHING, TITLES, percent, spread
from .rows import Row, Table, Value
from .settings import data_of, describe, differences, key_of
from .sheets import Cell, Column, Section, Sheet


@dataclass(frozen=True)
class Line:
    """A method on one data set, by the value of the parameter, which is a number or a text; ``name`` tells it apart."""

    name: str
    row: Row
    values: Mapping[float | str, Value]


def lines(table: Table, parameter: str, metric: str) -> dict[str, list[Line]]:
    """Lines by the setting of the data that they share but for ``parameter``.

    Raises:
        ZooError: no row has the parameter, or none has it at two values.
    """
    known = {name for row in table.rows for name in row.trial.params}
    if parameter not in known:
        raise unknown("data set parameter", parameter, known, "these are in the runs")
    found: dict[str, dict[str, dict[float | str, Row]]] = {}
    for row in table.rows:
        if parameter in row.trial.params:
            rest = {path: text for path, text in row.fields.items() if path[:2] != ("params", parameter)}
            rest = {path: text for path, text in rest.items() if path != ("fingerprint",)}
            group = found.setdefault(f"{row.dataset} {key_of(data_of(rest))}", {})
            group.setdefault(f"{row.method} {key_of(rest)}", {})[_number(row.trial.params[parameter])] = row
    made = {group: _lines(list(by_line.values()), parameter, metric) for group, by_line in found.items()}
    if all(len(line.values) < 2 for of_group in made.values() for line in of_group):
        raise ZooError(
            f"no method was run at two values of {parameter!r}: sweep it, as in --dataset "
            f"{next(row.dataset for row in table.rows if parameter in row.trial.params)}:{parameter}=A,B,C"
        )
    return made


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
    for of_group in groups.values():
        first = of_group[0].row
        rows = [
            (Cell(line.name, {"": line.row.method, "name": line.name}), *[_cell(line.values.get(p)) for p in places])
            for line in of_group
        ]
        sections.append(Section(first.dataset if len(groups) > 1 else "", tuple(rows)))
    notes = (f"{TITLES[metric]} in per cent against {parameter} of the data; mean ± sample standard deviation.",)
    return Sheet("robustness", f"{TITLES[metric]} against {parameter}", tuple(columns), tuple(sections), notes)


def _cells(line: Line, places: Sequence[float | str]) -> tuple[Cell, ...]:
    name = Cell(line.name, {"": line.row.method, "name": line.name})
    return (name, *[_cell(line.values.get(place)) for place in places])


def shown(value: float | str) -> str:
    """A value of the parameter as it is written on the command line."""
    return value if isinstance(value, str) else f"{value:g}"


def _lines(lines: Sequence[Mapping[float | str, Row]], parameter: str, metric: str) -> list[Line]:
    """Lines of one group; of a method with several, named with what tells them apart."""
    firsts = [next(iter(rows.values())) for rows in lines]
    fields = [{path: text for path, text in row.fields.items() if path[:2] != ("params", parameter)} for row in firsts]
    made = []
    for rows, row, own in zip(lines, firsts, fields, strict=True):
        paths = differences([other for first, other in zip(firsts, fields, strict=True) if first.method == row.method])
        text = describe(own, paths, row.method, row.dataset) if paths else ""
        values = {place: value for place, found in rows.items() if (value := found.values[metric]) is not None}
        made.append(Line(f"{row.method} ({text})" if text else row.method, row, values))
    return made


def _number(value: object) -> float | str:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _cell(value: Value | None) -> Cell:
    if value is None:
        return Cell(NOTHING)
    return Cell(f"{percent(value.mean)}{spread(value.std)}", {"": value.mean, "std": value.std})
