"""What can be said before any work: whether a trial can run at all, and what its user should know.

The method is built without data, on the sizes that the data card states and the groups that the training split has.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from .assembly import dataset_of, untrained
from .dataset import BiasDataset, Ints, count_groups
from .errors import ZooError
from .method import Method, Task
from .plans import plan_stages
from .registry import load_method
from .trainer import validation_split
from .trial import Trial


def dry_run(trial: Trial, root: Path | None) -> Method:
    """Build a trial's method without data. Raises a ZooError for what cannot work, with what would help."""
    cls, task = load_method(trial.method), task_before_data(trial, root)
    refuse_missing_labels(dataset_of(trial), cls, root)
    try:
        method = untrained(trial, task)
        with torch.no_grad():
            copy.deepcopy(method).to("meta").eval().predict(torch.zeros(2, *task.image_shape, device="meta"))
    except ZooError:
        raise
    except (Exception, SystemExit) as error:  # a method or a network may raise anything
        raise ZooError(
            f"method {cls.name!r} cannot work with backbone {trial.backbone!r} on images of {task.image_shape}: "
            f"{type(error).__name__}: {error}"
        ) from error
    check_batches(method, trial, len(labels_of(dataset_of(trial), root, "train")[0]))
    return method


def check_batches(method: Method, trial: Trial, images: int) -> None:
    """Raise a ZooError where so many training images, or the batches of a stage, are too few for the method."""
    cls = type(method)
    if images < cls.min_batch:
        raise ZooError(f"method {cls.name!r} needs batches of at least {cls.min_batch}; there are {images} images")
    for plan in plan_stages(method, trial.settings, trial.stages):
        if (plan.settings.batch_size or 0) < cls.min_batch:
            raise ZooError(
                f"method {cls.name!r} needs batches of at least {cls.min_batch}; got {plan.settings.batch_size} in "
                f"stage {plan.stage.name!r}"
            )


def task_before_data(trial: Trial, root: Path | None) -> Task:
    """The task as the card states it; groups are counted only where a method of the trial may see them."""
    dataset = dataset_of(trial)
    card = dataset.card
    counts = training_counts(dataset, root) if _anyone_sees(trial) else None
    shown = counts.tolist() if counts is not None else [[1] * len(card.biases) for _ in card.classes]
    size = int(counts.sum()) if counts is not None else 1000
    groups = tuple(tuple(row) for row in shown)
    return Task(len(card.classes), len(card.biases), size, card.image_shape, card.bias_parts, card.bias_map, groups)


def _anyone_sees(trial: Trial) -> bool:
    return load_method(trial.method).sees_bias or any(_anyone_sees(needed) for needed in trial.needs.values())


def refuse_missing_labels(dataset: BiasDataset, cls: type[Method], root: Path | None) -> None:
    """Raise a ZooError where a data set lacks the bias labels or images that a method needs."""
    card, name = dataset.card, dataset.name
    others = "`debias-zoo list methods` shows those that need no bias labels"
    if cls.sees_bias and len(card.biases) < 2:
        raise ZooError(f"method {cls.name!r} needs bias labels; data set {name!r} has none. {others}")
    if cls.sees_bias and training_counts(dataset, root) is None:
        raise ZooError(f"method {cls.name!r} needs bias labels; training images of {name!r} have none. {others}")
    if cls.needs_val_bias and not {"val", "val_unbiased"} & set(card.eval_splits):
        raise ZooError(
            f"method {cls.name!r} needs a validation split with bias labels; data set {name!r} has none with these "
            "parameters: let it hold out validation images (val=6000 for the bundled data sets, val=(images, labels, "
            "biases) in debias_zoo.fit)"
        )
    if cls.needs_val_bias:
        _refuse_unfit_validation(cls, dataset, root)
    if cls.needs_conflicting and not has_conflicting(dataset, root):
        raise ZooError(
            f"method {cls.name!r} needs bias-conflicting training images; in {name!r} every training image of a class "
            "has one bias. Take a data set with a share of conflicting images, such as cmnist-lff"
        )


def _refuse_unfit_validation(cls: type[Method], dataset: BiasDataset, root: Path | None) -> None:
    """The validation split that ``finish`` is handed must have every class, and a class with several biases."""
    card, split = dataset.card, validation_split(dataset.card.eval_splits)
    labels, biases = labels_of(dataset, root, split)
    who = f"method {cls.name!r} needs bias labels of the validation split, which in {dataset.name!r} is {split!r}"
    if biases is None:
        raise ZooError(f"{who}; it has none")
    counts = count_groups(labels, biases, len(card.classes), len(card.biases))
    if missing := [card.classes[k] for k in np.flatnonzero(counts.sum(1) == 0)]:
        raise ZooError(f"{who}; it has no image of class {', '.join(missing)}: make it larger")
    if (counts > 0).sum(1).max() < 2:
        raise ZooError(f"{who}; every class has one bias there, so there is nothing to balance")


def check_classes(dataset: BiasDataset, root: Path | None) -> None:
    """Raise a ZooError where there is nothing to tell apart: fewer than two classes in training."""
    if (present := len(np.unique(labels_of(dataset, root, "train")[0]))) < 2:
        raise ZooError(f"data set {dataset.name!r} has {present} class in its training split; there must be two")


def training_counts(dataset: BiasDataset, root: Path | None) -> Ints | None:
    """int64 (classes, biases): training images of each group; None without bias labels."""
    labels, biases = labels_of(dataset, root, "train")
    card = dataset.card
    return None if biases is None else count_groups(labels, biases, len(card.classes), len(card.biases))


@lru_cache(maxsize=64)
def labels_of(dataset: BiasDataset, root: Path | None, split: str) -> tuple[Ints, Ints | None]:
    """Labels and biases of a split, read once of each data set object."""
    return dataset.annotations(root, split)


def has_conflicting(dataset: BiasDataset, root: Path | None) -> bool:
    """Whether some class has training images of several biases, as far as bias labels tell."""
    counts = training_counts(dataset, root)
    return counts is None or bool(((counts > 0).sum(1) > 1).any())


def bias_warnings(method: Method, dataset: BiasDataset, root: Path | None) -> list[str]:
    """Where the bias is the label: a categorical adversary unlearns the label, and groups are classes."""
    net = getattr(method, "net", None)
    dense = dataset.card.bias_map is not None and (net is None or len(net.tap_shape()) == 3)
    if not method.sees_bias or (dense and method.reads_bias_map) or has_conflicting(dataset, root):
        return []
    return [
        f"{method.name} on {dataset.name}: every training image of a class has one bias, so groups are classes: "
        "balancing them changes little, and an adversary on the bias label unlearns the label itself"
    ]
