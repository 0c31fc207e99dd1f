"""``debias_zoo.fit``: one method on images at hand, in this process and without a store.

Settings are merged, the method built and trained, and its predictions measured by the code that trials of a comparison
run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from .arrays import own_card, whole
from .assembly import build_method, untrained
from .dataset import BiasDataset, Card, Ints, Split, unknown_split
from .decode import RowFile
from .devices import pick_device, pick_precision
from .driver import initial
from .errors import ZooError
from .executors import Event
from .feasibility import bias_warnings, check_batches, check_classes, refuse_missing_labels
from .grid import Request, check_stages, make_trial, teachers_of
from .method import Method
from .predictor import Predictor
from .progress import View, make_view
from .registry import load_method
from .runner import groups_of, make_trainer, measure, task_for, whole_task
from .trainer import Fit
from .trial import Groups, Trial

Given = Split | Sequence[Any]
"""A split, or (images, labels) or (images, labels, biases) as arrays."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Fitted(Predictor):
    """What ``fit`` gives: a predictor, with how it was trained.

    Attributes:
        metrics: split -> metric -> value, of the last epoch, as fractions; as ``debias_zoo.metrics.DEFINITIONS`` says.
        groups: what the metrics know of the data: names, which bias goes with which class, training images by group.
        curves: one dict an epoch: stage, epoch, mean losses, accuracy on each split.
        trial: the whole configuration. notes: what a reader of the numbers should know.
    """

    metrics: Mapping[str, Mapping[str, float | None]]
    groups: Groups
    curves: Sequence[Mapping[str, Any]]
    trial: Trial
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        shown = {name: found["accuracy"] for name, found in self.metrics.items()}
        said = ", ".join(f"{name} {value:.3f}" for name, value in shown.items() if value is not None)
        return super().__repr__().removesuffix(">") + (f"; accuracy: {said}>" if said else ">")


MOST_CODES = 100_000
"""Labels and biases are whole numbers below this: a network has an output for each."""


def fit(
    method: str | type[Method],
    train: Given,
    val: Given | None = None,
    tests: Given | Mapping[str, Given] | None = None,
    *,
    set: Mapping[str, Any] | None = None,  # noqa: A002  (--set)
    backbone: str = "resnet18",
    normalize: str | None = None,
    weights: str | Path | None = None,
    pretrained: bool = False,
    classes: Sequence[str] | None = None,
    bias_names: Sequence[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    progress: bool = True,
) -> Fitted:
    """Train one method on splits at hand, and measure it on the others after every epoch.

    The annotation firewall holds: a method that declares to see no bias labels is handed none. The same call gives the
    same numbers on a CPU; torch's global random state is left as it was. Teachers of a method are trained before it.

    Args:
        method: a registered name, or a subclass of ``Method``, which need not be registered.
        train: what it learns from: a ``Split``, or ``(images, labels)`` or ``(images, labels, biases)``. images: uint8
            (N, H, W, C) or (N, C, H, W) with C = 1 or 3, or grey (N, H, W), which are repeated to three channels.
            labels, biases: (N,), whole numbers from 0.
        val: the validation split, of the same kind.
        tests: one test split, or several by name.
        set: settings: ``key`` of the method, ``train.key`` or ``STAGE.key`` of training, as in ``{"train.epochs": 3}``;
            ``METHOD.key`` of a teacher. The rest is as in ``standard`` for one's own images: 10 epochs of SGD at 0.01,
            cosine, batches of 64, every second image mirrored.
        backbone: a timm model.
        normalize: of pixels in [0, 1], as in ``debias_zoo.backbones.NORMALIZATIONS``; None: ``imagenet`` for colour.
        weights: a state dict that the backbone starts from.
        pretrained: whether it starts from timm's pretrained weights.
        classes: names of the labels; None: their numbers.
        bias_names: names of the biases; None: their numbers.
        seed: of initial weights, order and sampling.
        device: ``auto``, ``cpu``, ``cuda[:i]`` or ``mps``.
        precision: of training: ``auto``, ``fp32`` or ``bf16``.
        progress: whether to show how it goes.

    Raises:
        ZooError: images, labels or settings that the method cannot work with, before any training; a loss that
            diverges. What a method's own code raises is not caught.
    """
    cls = _class_of(method)
    data = _Given(_splits(train, val, tests), classes, bias_names, normalize)
    device = pick_device(device)
    request = Request(
        methods=[cls.name],
        datasets=[],
        backbone=backbone,
        sets=[_set(cls, key, value) for key, value in _mapping(set).items()],
        precision=pick_precision(device, precision),
        weights=initial(None if weights is None else Path(weights), pretrained),
    )
    trial = make_trial(cls.name, data, seed, request, cls=cls)
    _check(trial, cls, data, request)
    with make_view(Console(quiet=not progress), [*_needed(trial), trial]) as view:
        fitted = _trained(trial, cls, data, device, view)
    groups = groups_of(data.card, data.splits["train"])
    return Fitted(
        model=fitted.method.eval().requires_grad_(False),
        classes=data.card.classes,
        image_shape=data.card.image_shape,
        metrics=measure(fitted, data.evals, groups),
        groups=groups,
        curves=fitted.curves,
        trial=trial,
        notes=tuple(fitted.notes),
    )


def _check(trial: Trial, cls: type[Method], data: _Given, request: Request) -> None:
    """Raise a ZooError for what cannot be trained."""
    check_classes(data, None)
    refuse_missing_labels(data, cls, None)
    train = data.splits["train"]
    for one, kind in [(trial, cls), *((needed, load_method(needed.method)) for needed in _needed(trial))]:
        method = untrained(one, whole_task(data.card, train), kind)
        check_stages(method, data.name, request)
        check_batches(method, one, len(train))


def _set(cls: type[Method], key: str, value: Any) -> tuple[str, str, Any]:
    """As in ``Request.sets``."""
    first, _, rest = key.partition(".")
    return (first, rest, value) if rest and first in teachers_of(cls) else (cls.name, key, value)


def _class_of(method: str | type[Method]) -> type[Method]:
    if isinstance(method, str):
        return load_method(method)
    if isinstance(method, type) and issubclass(method, Method) and isinstance(getattr(method, "name", None), str):
        return method
    raise ZooError(f"fit takes a method's name, or its class with a `name`, which fit itself builds; got {method!r}")


def _needed(trial: Trial) -> list[Trial]:
    return [one for needed in trial.needs.values() for one in (*_needed(needed), needed)]


def _trained(trial: Trial, cls: type[Method], data: _Given, device: str, view: View) -> Fit:
    found = {
        role: _trained(needed, load_method(needed.method), data, device, view) for role, needed in trial.needs.items()
    }
    teachers = {role: fitted.method.eval().requires_grad_(False) for role, fitted in found.items()}
    train = data.splits["train"]
    method = build_method(trial, task_for(cls, data.card, train), teachers, cls)
    for text in bias_warnings(method, data, None):
        view.show(Event(trial, "warning", {"text": text}))
    view.show(Event(trial, "started"))

    def report(state: dict[str, Any]) -> None:
        view.show(Event(trial, "progress", state))

    fitted = make_trainer(trial, method, train, data.evals, device, report=report).fit()
    view.show(Event(trial, "done"))
    return fitted


class _Given(BiasDataset):
    """Splits that were handed over, as a data set."""

    name = "given"
    title = "images at hand"
    bias_attribute = "as given"

    def __init__(
        self,
        splits: Mapping[str, Split],
        classes: Sequence[str] | None,
        bias_names: Sequence[str] | None,
        normalize: str | None,
    ) -> None:
        super().__init__()
        self.splits = dict(splits)
        self.evals = {name: split for name, split in splits.items() if name != "train"}
        height, width, channels = self.splits["train"].images.shape[1:]
        for name, split in self.evals.items():
            if (size := split.images.shape[1:]) != (height, width, channels):
                raise ZooError(f"images of {name!r} are {size}, those of 'train' {(height, width, channels)}")
        train = self.splits["train"]
        _check_codes(self.splits)
        self._card = own_card(
            about=f"{sum(map(len, self.splits.values()))} images at hand.",
            origin="in memory",
            classes=_named("labels", [split.labels for split in self.splits.values()], classes),
            biases=_named("biases", [split.biases for split in self.splits.values()], bias_names),
            train=(train.labels, train.biases),
            image_shape=(channels, height, width),
            splits=list(self.splits),
        )
        if normalize is not None:
            self._card = self._card.model_copy(update={"normalize": normalize})

    @property
    def card(self) -> Card:
        return self._card

    def load(self, root: Path | None, split: str) -> Split:
        if split not in self.splits:
            raise unknown_split(self, split, self.splits)
        return self.splits[split]


def _mapping(given: object) -> Mapping[str, Any]:
    if given is not None and not isinstance(given, Mapping):
        raise ZooError(f"set: give a mapping, such as {{'train.epochs': 3}}; got {given!r}")
    return given or {}


def _check_codes(splits: Mapping[str, Split]) -> None:
    """Raise a ZooError where a class has no training image, or codes are far from 0, 1, 2, ..."""
    classes = np.unique(splits["train"].labels)
    for name, split in splits.items():
        if len(classes) > 1 and len(strange := np.setdiff1d(split.labels, classes)):
            raise ZooError(f"{name}: label {strange[0]} has no training image; those have {_few(classes)}")
        for what, codes in (("labels", split.labels), ("biases", split.biases)):
            if codes is not None and codes.max() >= MOST_CODES:
                raise ZooError(f"{name}: {what} must be 0, 1, 2, ..., below {MOST_CODES}; got {_few(np.unique(codes))}")


def _few(codes: Ints) -> str:
    return ", ".join([*map(str, codes[:5].tolist()), *(["..."] if len(codes) > 5 else [])])


def _named(what: str, codes: Sequence[Ints | None], names: Sequence[str] | None) -> tuple[str, ...]:
    most = max((int(found.max(initial=-1)) for found in codes if found is not None), default=-1)
    if names is None:
        return tuple(str(code) for code in range(most + 1))
    if most >= len(names):
        raise ZooError(f"{what} go up to {most}, but there are {len(names)} names: {', '.join(names)}")
    return tuple(names)


def _splits(train: Given, val: Given | None, tests: Given | Mapping[str, Given] | None) -> dict[str, Split]:
    """By name: ``train``, ``val``, ``test`` or the names of several."""
    several: Mapping[str, Given] = tests if isinstance(tests, Mapping) else {} if tests is None else {"test": tests}
    if taken := {"train", "val"}.intersection(several):
        raise ZooError(f"no test split can be called {sorted(taken)[0]!r}")
    given = {"train": train, **({} if val is None else {"val": val}), **several}
    return {name: as_split(found, name) for name, found in given.items()}


def as_split(given: Given, name: str) -> Split:
    """A split, or a tuple of arrays as one; every label and bias checked. Raises a ZooError that says what is wrong."""
    if not isinstance(given, Split):
        if not isinstance(given, tuple | list) or not 2 <= len(given) <= 3:
            raise ZooError(f"{name}: give a Split, or (images, labels) or (images, labels, biases)")
        labels, *biases = (np.asarray(values) for values in given[1:])
        for what, values in (("labels", labels), ("biases", biases[0] if biases else labels)):
            if values.ndim != 1:
                raise ZooError(f"{name}: {what} must be (N,), one whole number an image; got {values.shape}")
        given = Split(_images(given[0], name), labels, biases[0] if biases else None)
    if not len(given):
        raise ZooError(f"{name}: there are no images")
    biases_of = None if given.biases is None else whole(given.biases, f"{name}: biases")
    return replace(given, labels=whole(given.labels, f"{name}: labels"), biases=biases_of)


def _images(given: Any, name: str) -> Any:
    """uint8 (N, H, W, C), the channels last."""
    if isinstance(given, RowFile):
        return given
    images = np.asarray(given)
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ZooError(
            f"{name}: images must be uint8 (N, H, W, C), (N, C, H, W) or (N, H, W), values 0 ... 255; got "
            f"{images.dtype} {images.shape}"
        )
    if images.ndim == 3:
        return images[..., None].repeat(3, axis=3)
    if images.shape[3] in (1, 3):
        return images
    if images.shape[1] in (1, 3):
        return np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    raise ZooError(f"{name}: images must have 1 or 3 channels, last or second; got {images.shape}")
