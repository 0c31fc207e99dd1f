"""``debias-zoo explain``: where trained methods look, on the same bias-conflicting images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .assembly import dataset_of
from .dataset import BiasDataset, Card, Ints, Masks, Split
from .errors import ZooError, unknown
from .gradcam import Heat, Of, heat_of, inside
from .heatsheet import HeatColumn, HeatSheet, draw
from .reports.heat import heat_sheet, told_apart
from .reports.settings import key_of, setting_of
from .reports.sheets import Sheet
from .runner import trained_method
from .seeds import seed_for
from .store import Run
from .trial import Explained, Trial
from .writing import write_bytes

SHARED = 200
"""Images over which the share of the heat inside the object is taken."""


@dataclass(frozen=True)
class Line:
    """The trials of one method in one setting, by seed."""

    method: str
    label: str
    runs: dict[int, Run]


@dataclass(frozen=True)
class Explanation:
    """What came of it.

    Attributes:
        file: the picture. seed: of the trials in it.
        shares: the table of heat inside the object; None where no mask is known.
        problems: what is missing, a line each.
    """

    file: Path
    seed: int
    shares: Sheet | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Look:
    """On what trained networks are looked at: images that all methods share.

    Attributes:
        dataset: its name. split: name of the split. images: some of it. masks: bool (n, H, W) of them, or None.
        train: the training split. of: for which class. device: where networks are asked. problems: found on the way.
    """

    dataset: str
    card: Card
    split: str
    images: Split
    masks: Masks | None
    train: Split
    of: Of
    device: str
    problems: list[str] = field(default_factory=list)


def explain(
    runs: list[Run],
    file: Path,
    *,
    methods: Sequence[str] | None = None,
    seed: int | None = None,
    images: int = 8,
    root: Path | None = None,
    device: str = "cpu",
    of: Of = "predicted",
    say: Callable[[str], None] = lambda text: None,
) -> Explanation:
    """Draw the sheet, and measure the share of the heat inside the object where the data set knows the object.

    The share is taken for every seed, over ``SHARED`` images, and written to ``explain.json`` in each trial's folder.

    Args:
        runs: finished trials of one data set with one set of parameters, as ``of_one_dataset`` gives them.
        file: the picture, a PNG.
        methods: only these, in this order; None: all, by name.
        seed: of the trials in the picture; None: the smallest that all have.
        images: rows of the picture.
        root: where downloaded data lie, or None.
        device: where networks are asked.
        of: for which class's logit, as in ``heat_of``.
        say: is told about every trial.

    Raises:
        ZooError: what is asked for is not there, or no trial can be explained.
    """
    lines = lines_of(runs, methods)
    seed, lines, problems = _of_seed(lines, seed)
    look = _look(dataset_of(runs[0].result.trial), lines, images, root, of, device)
    columns, shown = [], []
    for line in lines:
        heats = {
            own: _explained(run, look, say) for own, run in line.runs.items() if own == seed or look.masks is not None
        }
        if (heat := heats[seed]) is not None:
            columns.append(HeatColumn(line.method, line.label, heat.maps[:images], heat.predicted[:images]))
        shown += [line.runs[own] for own, found in heats.items() if found is not None]
    if not columns:
        raise ZooError(look.problems[0])
    write_bytes(file.resolve(), draw(_picture(look, columns, seed, images)))
    shares = None if look.masks is None else heat_sheet(shown)
    return Explanation(file, seed, shares, (*problems, *look.problems))


def of_one_dataset(runs: list[Run], dataset: BiasDataset | None, name: str | None) -> list[Run]:
    """The runs of one data set: of the only one there is, or of the one asked for.

    Args:
        runs: of any number of data sets.
        dataset: with its parameters, or None where only its name is given.
        name: of the data set; None: the only one there is.
    """
    known = {run.result.trial.dataset for run in runs}
    if name is not None and name not in known:
        raise unknown("data set", name, known, "these have finished results")
    found = [run for run in runs if name is None or run.result.trial.dataset == name]
    if dataset is not None:
        params = dataset.params.model_dump(mode="json")
        found = [run for run in found if run.result.trial.params == params] or found
    kinds = {(trial.dataset, str(trial.params), trial.fingerprint): trial for trial in _trials(found)}
    if len(kinds) > 1:
        raise ZooError(
            f"there are runs of {len(kinds)} data sets, of which a sheet shows one: --dataset "
            + " or ".join(sorted(_on_command_line(trial) for trial in kinds.values()))
        )
    return found


def lines_of(runs: list[Run], methods: Sequence[str] | None = None) -> list[Line]:
    """The runs by method and setting, which name a column of the picture."""
    known = {run.result.trial.method for run in runs}
    if missing := [name for name in methods or () if name not in known]:
        raise unknown("method", missing[0], known, "these have finished results")
    members: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        trial = run.result.trial
        if methods is None or trial.method in methods:
            members.setdefault((trial.method, key_of(setting_of(trial, ""))), []).append(run)
    order = {name: k for k, name in enumerate(methods or ())}
    found = [members[key] for key in sorted(members, key=lambda key: (order.get(key[0], 0), key))]
    firsts = [same[0].result.trial for same in found]
    labels = told_apart([(trial.method, setting_of(trial, "")) for trial in firsts], firsts[0].dataset)
    return [
        Line(trial.method, label, {run.result.trial.seed: run for run in sorted(same, key=_seed)})
        for trial, label, same in zip(firsts, labels, found, strict=True)
    ]


def conflicting(split: Split, card: Card, name: str, count: int) -> Ints:
    """int64 (n,), n <= count: rows of bias-conflicting images, the classes in turn; of any image without bias labels.

    The order within a class is drawn once for a data set's split (its ``name``): the first few are the same whatever
    the count, the method and the seed.
    """
    order = np.random.default_rng(seed_for("explain", name)).permutation(len(split))
    labels = split.labels[order]
    fits = np.ones(len(order), bool)
    if split.biases is not None:
        aligned = np.zeros((len(card.classes), len(card.biases)), bool)
        for label, biases in enumerate(card.aligned):
            aligned[label, list(biases)] = True
        fits = ~aligned[labels, split.biases[order]]
    own = [order[fits & (labels == label)] for label in range(len(card.classes))]
    turns = [rows[k] for k in range(max(map(len, own), default=0)) for rows in own if k < len(rows)]
    return np.array(turns[:count], np.int64)


def _seed(run: Run) -> int:
    return run.result.trial.seed


def _trials(runs: Sequence[Run]) -> list[Trial]:
    return [run.result.trial for run in runs]


def _on_command_line(trial: Trial) -> str:
    params = ",".join(f"{name}={value}" for name, value in trial.params.items())
    return f"{trial.dataset}:{params}" if params else trial.dataset


def _of_seed(lines: list[Line], seed: int | None) -> tuple[int, list[Line], list[str]]:
    """The seed of the picture, the lines that have it, and what is left out."""
    seeds = [set(line.runs) for line in lines]
    if seed is None:
        common = set.intersection(*seeds)
        if not common:
            each = "; ".join(f"{line.method}: {', '.join(map(str, line.runs))}" for line in lines)
            raise ZooError(f"no seed is common to all methods ({each}): choose --methods, or --seed")
        return min(common), lines, []
    if all(seed not in own for own in seeds):
        there = ", ".join(map(str, sorted(set.union(*seeds))))
        raise ZooError(f"no finished result has seed {seed}; there are: {there}")
    left = [f"left out: {line.method} has no seed {seed}" for line in lines if seed not in line.runs]
    return seed, [line for line in lines if seed in line.runs], left


def _look(dataset: BiasDataset, lines: list[Line], images: int, root: Path | None, of: Of, device: str) -> Look:
    trials = [trial for line in lines for trial in _trials(list(line.runs.values()))]
    if (now := dataset.fingerprint(root)) != trials[0].fingerprint:
        raise ZooError(
            f"data set {dataset.name!r} is not what the runs were trained on (now {now}, then "
            f"{trials[0].fingerprint}): run them again, or name the right --data-root"
        )
    card = dataset.card
    split = card.test_splits[0]
    limit = min((trial.eval_limit for trial in trials if trial.eval_limit is not None), default=None)
    whole = dataset.load(root, split).head(limit)
    rows = conflicting(whole, card, f"{dataset.name} {split}", max(images, SHARED))
    if not len(rows):
        raise ZooError(f"split {split!r} of {dataset.name!r} has no bias-conflicting image to look at")
    if (masks := dataset.mask(root, split, rows)) is None:
        rows = rows[:images]
    biases = None if whole.biases is None else whole.biases[rows]
    shown = Split(np.asarray(whole.images[rows]), whole.labels[rows], biases)
    return Look(dataset.name, card, split, shown, masks, dataset.load(root, "train"), of, device)


def _explained(run: Run, look: Look, say: Callable[[str], None]) -> Heat | None:
    """The heat of a trial, its share inside the object noted in its folder; None, and a problem, if it has none."""
    trial = run.result.trial
    say(trial.label)
    try:
        method = trained_method(trial, look.train.head(trial.train_limit), run.path, look.device)
        found = heat_of(method, np.asarray(look.images.images), look.images.labels, look.of)
    except ZooError as error:
        look.problems.append(f"left out: {trial.label}: {error}")
        return None
    if look.masks is not None:
        note = _share(trial, found, look, look.masks)
        run.save(note)
    return found


def _share(trial: Trial, heat: Heat, look: Look, masks: Masks) -> Explained:
    shares = inside(heat.maps[:SHARED], masks[:SHARED])
    with_heat = shares[~np.isnan(shares)]
    return Explained(
        identity=trial.identity,
        split=look.split,
        count=len(shares),
        without_heat=len(shares) - len(with_heat),
        explained=look.of,
        layer=heat.layer,
        map_size=heat.map_size,
        inside=float(with_heat.mean()) if len(with_heat) else None,
        area=float(masks[:SHARED].mean()),
    )


def _picture(look: Look, columns: list[HeatColumn], seed: int, images: int) -> HeatSheet:
    split, card = look.images.head(images), look.card
    kind = "images" if split.biases is None else "bias-conflicting images"
    of = "of the predicted class" if look.of == "predicted" else "of the label"
    note = (
        f"Grad-CAM {of}, each heat divided by its maximum, over the grey image. Left: label, bias"
        + (" and the class it is tied to" if split.biases is not None else "")
        + f". Below: predicted class. Seed {seed}."
    )
    title = f"{look.dataset}: {kind} of {look.split!r}"
    return HeatSheet(title, note, card, np.asarray(split.images), split.labels, split.biases, tuple(columns))
