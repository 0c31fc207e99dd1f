"""Rows of several blocks that are one method in one setting: lines of a table, or what is pooled over data sets.

``lines_of``, for tables in which data sets are columns: a line never goes on with another backbone, precision,
protocol, version or configuration. What a protocol takes for each data set by itself (epochs, batch size, learning
rates, normalisation) may differ along it, unless it was set by hand or tells two rows of one block apart.

``pooled``, for statistics over data sets, where each method is compared with others of the same block: a method as the
protocol has it on each data set, be it with another backbone or other defaults. What was set by hand stays apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from debias_zoo.trial import Trial

from .settings import Path, Setting, describe_each, key_of, kind_of

if TYPE_CHECKING:
    from .rows import Block, Row

_OF_DATA = {"dataset", "dataset_version", "dataset_code", "params", "fingerprint", "split"}
_BY_PROTOCOL = {"settings", "stages", "normalize"}
_TRAINING: Path = ("training",)


@dataclass(frozen=True)
class Line:
    """A line of such a table.

    Attributes:
        method: registry name. setting: what tells it from other lines of the method; "" where there are none.
        rows: by the place of their block.
    """

    method: str
    setting: str
    rows: dict[int, Row]

    @property
    def name(self) -> str:
        """The method, with what tells the line from others."""
        return f"{self.method} ({self.setting})" if self.setting else self.method

    @property
    def first(self) -> Row:
        """Its row in the first block that has one."""
        return self.rows[min(self.rows)]

    @property
    def trained_alike(self) -> bool:
        """Whether all its rows have the same training settings."""
        kinds = [
            {path: t for path, t in row.fields.items() if kind_of(path) in _BY_PROTOCOL} for row in self.rows.values()
        ]
        return all(kind == kinds[0] for kind in kinds)


def lines_of(blocks: Sequence[Block]) -> list[Line]:
    """The lines in the order of their first rows; no two of them have the same name."""
    return _lines(blocks, _shared)


def pooled(blocks: Sequence[Block]) -> list[Line]:
    """Likewise, as statistics pool them; where nothing was set by hand, a method has its bare name."""
    lines = _lines(blocks, _by_hand)
    plain = [line for line in lines if not _options(line.first.trial)]
    bare = [line for line in plain if [other.method for other in plain].count(line.method) == 1]
    return [replace(line, setting="") if line in bare else line for line in lines]


def _lines(blocks: Sequence[Block], loosely: Callable[[Row], dict[Path, str]]) -> list[Line]:
    """Rows that ``loosely`` finds alike are a line; all that differs counts where two would be of one block."""
    loose: dict[tuple[str, str], list[tuple[int, Row]]] = {}
    for place, block in enumerate(blocks):
        for row in block.rows:
            loose.setdefault((row.method, key_of(loosely(row))), []).append((place, row))
    found: dict[tuple[str, str], dict[int, Row]] = {}
    fields: dict[tuple[str, str], Setting] = {}
    for members in loose.values():
        places = [place for place, _ in members]
        for place, row in members:
            own = loosely(row) if len(set(places)) == len(places) else {**_own(row), **loosely(row)}
            key = (row.method, key_of(own))
            found.setdefault(key, {})[place] = row
            fields[key] = own
    settings = describe_each([(method, "", own) for (method, _), own in fields.items()])
    return [Line(key[0], text, rows) for (key, rows), text in zip(found.items(), settings, strict=True)]


def _own(row: Row) -> dict[Path, str]:
    """All of a row's setting but what belongs to the data, of its own or of a trial it needs."""
    return {path: text for path, text in row.fields.items() if kind_of(path) not in _OF_DATA}


def _shared(row: Row) -> dict[Path, str]:
    """The same without the training settings that the protocol chose; what was set by hand stays."""
    own = {path: text for path, text in _own(row).items() if kind_of(path) not in _BY_PROTOCOL}
    return {**own, _TRAINING: json.dumps(", ".join(_training_options(row.trial)) or "as the protocol has it")}


def _by_hand(row: Row) -> dict[Path, str]:
    """Versions, and the options of the command line."""
    found = {path: text for path, text in row.fields.items() if kind_of(path) in {"method_version", "method_code"}}
    options = _options(row.trial)
    return {**found, ("set",): json.dumps(", ".join(options))} if options else found


def _options(trial: Trial) -> list[str]:
    own = [option.removeprefix("--set ") for option in trial.options]
    return own + [option for needed in trial.needs.values() for option in _options(needed)]


def _training_options(trial: Trial) -> list[str]:
    """``lnl.train.lr=0.1``: the training settings among the options; those of the configuration have one dot less."""
    return [option for option in _options(trial) if option.partition("=")[0].count(".") > 1]
