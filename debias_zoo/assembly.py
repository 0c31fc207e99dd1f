"""From a trial's configuration to its objects: the data set and the method with its initial weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import torch

from .backbones import BackboneFactory
from .dataset import BiasDataset
from .errors import ZooError
from .method import Method, Task
from .registry import code_digest, entry, load_dataset, load_method
from .seeds import seed_for
from .trial import Trial


def dataset_of(trial: Trial) -> BiasDataset:
    """The data set of a trial, with its parameters; trials on the same data share one, with what it has read."""
    cls: Any = load_dataset(trial.dataset)
    return _dataset(cls, json.dumps(trial.params, sort_keys=True), trial.fingerprint)


@lru_cache(maxsize=8)
def _dataset(cls: Any, params: str, fingerprint: str) -> BiasDataset:
    found: BiasDataset = cls(cls.Params.model_validate_json(params))
    return found


def check_code(trial: Trial) -> None:
    """Raise a ZooError where method, data set or backbone come from another plugin file than the trial's did."""
    for kind, name, then in (
        ("method", trial.method, trial.method_code),
        ("dataset", trial.dataset, trial.dataset_code),
        ("backbone", trial.backbone, trial.backbone_code),
    ):
        now = code_digest(kind, name)
        if now == then:
            continue
        where = entry(kind, name).origin if now or kind != "backbone" else "timm"
        if now and then:
            why = f"{where} has changed since: run the command again"
        else:
            why = f"it came from {'a file' if then else 'a package'}, here it comes from {where}"
        raise ZooError(f"{trial.label}: the code of {kind} {name!r} is not that of the trial: {why}")


@runtime_checkable
class Blueprint(Protocol):
    """What of a trial a method's networks and settings follow from; attributes as in ``Trial``."""

    @property
    def method(self) -> str: ...
    @property
    def backbone(self) -> str: ...
    @property
    def backbone_options(self) -> dict[str, Any]: ...
    @property
    def normalize(self) -> str: ...
    @property
    def weights(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def config(self) -> dict[str, Any]: ...
    @property
    def needs(self) -> Mapping[str, Blueprint]: ...


def build_method(
    trial: Blueprint, task: Any, teachers: dict[str, Any] | None = None, cls: type[Method] | None = None
) -> Method:
    """The method of a trial with its initial weights, on the current default device; ``cls``: one that has no name."""
    cls = cls or load_method(trial.method)
    factory = BackboneFactory(
        trial.backbone,
        task.classes,
        task.image_shape,
        trial.normalize,
        trial.seed,
        trial.backbone_options,
        teachers,
        trial.weights,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(trial.seed, "method", "heads"))
        return cls(factory, task, cls.Config.model_validate(trial.config))


def untrained(trial: Blueprint, task: Task, cls: type[Method] | None = None) -> Method:
    """The method of a trial with its initial weights, its teachers untrained too; each sees of the task what it may."""
    cls = cls or load_method(trial.method)
    teachers = {role: untrained(needed, task) for role, needed in trial.needs.items()}
    return build_method(trial, task if cls.sees_bias else task.hidden(), teachers, cls)
