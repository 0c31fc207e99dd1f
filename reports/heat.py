"""How much of the heat lies inside the object: a sheet of what ``debias-zoo explain`` measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from debias_zoo.errors import ZooError
from debias_zoo.store import Run
from debias_zoo.trial import Explained

from .cells import NOTHING, percent, spread
from .rows import over_seeds
from .settings import Setting, data_of, describe, differences, key_of, order_of, setting_of
from .sheets import Cell, Column, Section, Sheet

COLUMNS = (
    Column("method", "Method", text=True),
    Column("setting", "Setting", text=True),
    Column("inside", "Heat inside"),
    Column("area", "Object's area"),
    Column("images", "Images"),
    Column("without_heat", "No heat"),
    Column("seeds", "Seeds"),
    Column("layer", "Layer", text=True),
)

NOTES = (
    "Heat inside: share of the Grad-CAM heat (Selvaraju et al., ICCV 2017) that lies on the object, in per cent; the "
    "mean over bias-conflicting images, then mean ± std over seeds. A network that looks everywhere alike has the "
    "object's share of the area.",
    "Where the bias is on the object itself, such as a digit's colour, heat inside does not tell its shape from it.",
    "Images without heat, on which nothing speaks for the class, are counted and left out.",
)


def heat_sheet(runs: Iterable[Run], methods: Sequence[str] | None = None) -> Sheet:
    """The sheet of all runs that have been explained; it does not depend on their order.

    Args:
        runs: finished trials.
        methods: only these; None: all.
    """
    problems: list[str] = []
    rows: dict[tuple[str, str, str, str], list[tuple[Run, Explained]]] = {}
    for run in sorted(runs, key=lambda run: (run.result.trial.folder, str(run.path))):
        trial = run.result.trial
        if methods is not None and trial.method not in methods:
            continue
        try:
            found = run.explained()
        except ZooError as error:
            problems.append(f"not read: {error}")
            continue
        if found is not None:
            how = f"{found.explained} {found.layer} {found.count}"
            key = (trial.dataset, trial.method, key_of(setting_of(trial, found.split)), how)
            rows.setdefault(key, []).append((run, found))
    return Sheet("heat", "Heat inside the object", COLUMNS, _sections(list(rows.values())), NOTES, tuple(problems))


def _sections(rows: list[list[tuple[Run, Explained]]]) -> tuple[Section, ...]:
    """One section for each data set and class explained."""
    by_data: dict[tuple[str, str], list[list[tuple[Run, Explained]]]] = {}
    for row in rows:
        by_data.setdefault((row[0][0].result.trial.dataset, row[0][1].explained), []).append(row)
    sections = []
    for (dataset, explained), members in sorted(by_data.items()):
        members.sort(key=lambda row: (row[0][0].result.trial.method, order_of(_fields(row))))
        labels = told_apart([(row[0][0].result.trial.method, _fields(row)) for row in members], dataset)
        heading = f"{dataset}, {'the predicted class' if explained == 'predicted' else 'the label'}"
        sections.append(Section(heading, tuple(_row(row, label) for row, label in zip(members, labels, strict=True))))
    return tuple(sections)


def told_apart(members: Sequence[tuple[str, Setting]], dataset: str) -> list[str]:
    """For each (method, setting), in what it differs from the others of its method and in its data from all others."""
    data = set(differences([data_of(setting) for _, setting in members]))
    texts = []
    for method, setting in members:
        own = differences([other for name, other in members if name == method])
        paths = [path for path in setting if path in data or path in own]
        texts.append(describe(setting, paths, method, dataset) if paths else "")
    return texts


def _fields(row: list[tuple[Run, Explained]]) -> Setting:
    run, found = row[0]
    return setting_of(run.result.trial, found.split)


def _row(row: list[tuple[Run, Explained]], label: str) -> tuple[Cell, ...]:
    found = [explained for _, explained in row]
    seeds = [run.result.trial.seed for run, _ in row]
    method = row[0][0].result.trial.method
    return (
        Cell(method, method),
        Cell(label, label),
        _share([one.inside for one in found]),
        _share([one.area for one in found]),
        Cell(str(found[0].count), found[0].count),
        Cell(str(sum(one.without_heat for one in found)), sum(one.without_heat for one in found)),
        Cell(", ".join(str(seed) for seed in seeds), seeds),
        Cell(f"{found[0].layer} ({found[0].map_size[0]} x {found[0].map_size[1]})", found[0].layer),
    )


def _share(values: Sequence[float | None]) -> Cell:
    """Mean ± sample standard deviation; nothing where a seed has none."""
    value = over_seeds(values)
    if value is None:
        return Cell(NOTHING, {"mean": None, "std": None})
    return Cell(f"{percent(value.mean)}{spread(value.std)}", {"mean": value.mean, "std": value.std})
