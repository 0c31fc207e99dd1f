"""Bias leakage: what linear probes read in frozen features, one row a method and setting, over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from debias_zoo.errors import ZooError
from debias_zoo.store import Run
from debias_zoo.trial import Probe, Trial

from .cells import NOTHING, percent, spread
from .rows import LEVELS, Value, over_seeds
from .settings import Setting, data_of, describe, describe_each, differences, key_of, order_of, setting_of
from .sheets import Cell, Column, Section, Sheet

TARGETS = ("bias", "label")
"""What is read."""

LAST = "embedding"
"""The layer that comes after all taps."""


@dataclass(frozen=True)
class Leak:
    """One method in one setting.

    Attributes:
        trial: of the smallest seed. probe: its probe; images and chance in it hold for the whole row.
        fields: what the row's results share. seeds: ascending.
        values: (target, layer) -> balanced accuracy over chance, or None where a seed has none.
        setting: what tells it from the block's other rows of its method; "" where there are none.
    """

    trial: Trial
    probe: Probe
    fields: Setting
    seeds: tuple[int, ...]
    values: dict[tuple[str, str], Value | None]
    setting: str = ""

    @property
    def data(self) -> tuple[str, str]:
        """On what it was measured; rows that share it can be compared."""
        return self.trial.dataset, key_of(data_of(self.fields))

    @property
    def name(self) -> str:
        """``lnl (lnl.scale=0.3)``."""
        return f"{self.trial.method} ({self.setting})" if self.setting else self.trial.method


def leaks_of(runs: Iterable[Run], problems: Iterable[str] = ()) -> tuple[list[tuple[str, list[Leak]]], list[str]]:
    """Comparable rows under the title of their data, and what is missing; neither depends on the order of ``runs``."""
    told = list(dict.fromkeys(problems))
    cells: dict[tuple[str, str, str], dict[int, tuple[Trial, Probe]]] = {}
    for run in sorted(runs, key=lambda run: (run.result.trial.folder, str(run.path))):
        trial = run.result.trial
        try:
            probe = run.probe()
        except ZooError as error:
            told.append(f"not read: {error}")
            continue
        if probe is None:
            told.append(f"not probed: {trial.label} ({trial.folder})")
            continue
        cell = cells.setdefault((trial.dataset, trial.method, key_of(_fields(trial, probe))), {})
        cell.setdefault(trial.seed, (trial, probe))
    return _blocks([_leak([cell[seed] for seed in sorted(cell)]) for cell in cells.values()]), told


def build_leakage(runs: Iterable[Run], problems: Iterable[str] = ()) -> Sheet:
    """The sheet of all probed runs: bias and label over chance at each layer. Its cells' values are fractions."""
    blocks, told = leaks_of(runs, problems)
    leaks = [leak for _, members in blocks for leak in members]
    layers = layers_in(leaks)
    settings = any(leak.setting for leak in leaks)
    columns = [Column("method", "Method", text=True)]
    columns += [Column("setting", "Setting", text=True)] if settings else []
    columns.append(Column("supervision", "Supervision", text=True))
    columns += [Column(f"{what}_{layer}", f"{what.capitalize()} {layer}") for what in TARGETS for layer in layers]
    sections = []
    for title, members in blocks:
        rows = [_cells(leak, layers, settings) for leak in members]
        sections.append(Section(title if len(blocks) > 1 else "", tuple(rows)))
    title = "Bias leakage: what can be read in frozen features, over chance"
    return Sheet("leakage", title, tuple(columns), tuple(sections), tuple(_notes(leaks)), tuple(told))


def layers_in(leaks: Iterable[Leak]) -> list[str]:
    """All layers that any row has, from the first tap to the embedding."""
    found = {layer for leak in leaks for _, layer in leak.values}
    return sorted(found, key=lambda name: (name == LAST, len(name), name))


def _fields(trial: Trial, probe: Probe) -> dict[tuple[str, ...], str]:
    return {**setting_of(trial, probe.split), ("probe", "limit"): str(probe.limit)}


def _leak(members: Sequence[tuple[Trial, Probe]]) -> Leak:
    """A row of one setting; ``members``: one a seed, ascending."""
    trial, probe = members[0]
    values: dict[tuple[str, str], Value | None] = {}
    for layer in probe.layers:
        for what in TARGETS:
            values[what, layer.name] = over_seeds([over_chance(found, layer.name, what) for _, found in members])
    return Leak(trial, probe, _fields(trial, probe), tuple(found.seed for found, _ in members), values)


def over_chance(probe: Probe, layer: str, what: str) -> float | None:
    """Balanced accuracy over chance of one of ``TARGETS`` at a layer, or None where it was not probed."""
    for found in probe.layers:
        if found.name == layer:
            readout = found.bias if what == "bias" else found.label
            return None if readout is None else readout.over_chance
    return None


def _blocks(leaks: list[Leak]) -> list[tuple[str, list[Leak]]]:
    by_data: dict[tuple[str, str], list[Leak]] = {}
    for leak in sorted(leaks, key=lambda leak: (leak.trial.dataset, order_of(data_of(leak.fields)))):
        by_data.setdefault(leak.data, []).append(leak)
    firsts = [members[0] for members in by_data.values()]
    blocks = []
    for members in by_data.values():
        trial, fields = members[0].trial, members[0].fields
        others = [data_of(first.fields) for first in firsts if first.trial.dataset == trial.dataset]
        text = describe(data_of(fields), differences(others), trial.method, trial.dataset)
        title = f"{trial.dataset}, {text}" if text else trial.dataset
        blocks.append((title, sorted(_told_apart(members), key=_place)))
    return blocks


def _told_apart(leaks: list[Leak]) -> list[Leak]:
    texts = describe_each([(leak.trial.method, leak.trial.dataset, leak.fields) for leak in leaks])
    return [replace(leak, setting=text) for leak, text in zip(leaks, texts, strict=True)]


def _place(leak: Leak) -> tuple[int, str, object]:
    return LEVELS.index(leak.trial.supervision.level), leak.trial.method, order_of(leak.fields)


def _cells(leak: Leak, layers: Sequence[str], settings: bool) -> tuple[Cell, ...]:
    level = leak.trial.supervision.level
    cells = [Cell(leak.trial.method, leak.trial.method)]
    cells += [Cell(leak.setting, leak.setting)] if settings else []
    numbers = [_number(leak.values.get((what, layer))) for what in TARGETS for layer in layers]
    return (*cells, Cell(level, level), *numbers)


def _number(value: Value | None) -> Cell:
    if value is None:
        return Cell(NOTHING)
    return Cell(f"{percent(value.mean)}{spread(value.std)}", {"": value.mean, "std": value.std})


def _notes(leaks: Sequence[Leak]) -> list[str]:
    if not leaks:
        return ["No probed trial."]
    notes = [
        "Balanced accuracy of logistic regression on standardised, frozen features, minus that of a constant guess "
        f"(1/K), in percentage points: mean over {leaks[0].probe.folds} folds. 0: it cannot be read.",
    ]
    notes += dict.fromkeys(_images(leak) for leak in leaks)
    counts = sorted({len(leak.seeds) for leak in leaks})
    if counts == [1]:
        notes.append("One seed, so no ±.")
    else:
        notes.append(f"Mean ± sample standard deviation over {' or '.join(map(str, counts))} seeds.")
    notes += dict.fromkeys(
        f"{leak.name} on {leak.trial.dataset}: {note}." for leak in leaks for note in leak.probe.notes
    )
    return notes


def _images(leak: Leak) -> str:
    """How many images were probed, and what is over chance at most."""
    tops = []
    for what in TARGETS:
        found = [layer.bias if what == "bias" else layer.label for layer in leak.probe.layers]
        tops += [f"{percent(1.0 - readout.chance)} for the {what}" for readout in found[:1] if readout is not None]
    most = f"; at most {' and '.join(tops)}" if tops else ""
    return f"{leak.trial.dataset}: {leak.probe.images} images of {leak.probe.split}{most}."
