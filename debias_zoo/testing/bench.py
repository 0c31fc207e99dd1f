"""What a method is checked on: small unequal groups, short schedules, and the zoo's own trainer and engine."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, get_args

import numpy as np
import torch
import torch.nn.functional as F
from pydantic.fields import FieldInfo
from torch import Tensor

from ..backbones import BackboneFactory
from ..dataset import Split
from ..engine import DeviceSplit, Engine
from ..method import Batch, Clock, Method, Paper
from ..plans import StagePlan, plan_stages
from ..protocol import Settings
from ..seeds import seed_for
from ..trainer import Fit, Trainer, task_of
from .synthetic import BIASES, CLASSES, MAP_BINS, MAP_HEADS, even_split, uneven_split

CPU = torch.device("cpu")
EPOCHS = 4
BATCH = 16
SETTINGS = Settings(optimizer="sgd", lr=0.03, momentum=0.9, weight_decay=5e-4, schedule="cosine")


class CheckFailure(AssertionError):  # noqa: N818  (a failure, as unittest calls it)
    """A promise of the Method contract that a method does not keep."""


class Plain(Method):
    """Cross-entropy and nothing else: stands in for the networks that a method needs from other trials."""

    name: ClassVar[str] = "plain"
    is_baseline = True
    paper = Paper("", "", "", 0)

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(self.net(batch.image).float(), batch.label)}


@dataclass(frozen=True)
class Moment:
    """A method as it stands before a step: what checks probe on copies of."""

    method: Method
    clock: Clock
    settings: Settings

    def engine(self, device: torch.device = CPU, precision: str = "fp32") -> Engine:
        """An engine on a copy of the method, on ``device``, with the stage's optimizers."""
        engine = Engine(copy.deepcopy(self.method).to(device), device, precision)
        engine.build_optimizers(self.settings)
        return engine

    def __str__(self) -> str:
        return f"stage {self.clock.stage!r}, epoch {self.clock.epoch}"


class MomentEngine(Engine):
    """Keeps a copy of the method before the first step of every stage's first and last epoch."""

    def __init__(self, method: Method) -> None:
        super().__init__(method)
        self.moments: list[Moment] = []
        self._seen: tuple[str, int] | None = None

    def step(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        if self._seen != (clock.stage, clock.epoch) and clock.epoch in (0, clock.epochs - 1):
            self.moments.append(Moment(copy.deepcopy(self.method), clock, self._settings))
        self._seen = (clock.stage, clock.epoch)
        return super().step(batch, clock)


At = tuple[int, int, int]
"""Stage, epoch and step, each from 0, that a checkpoint goes on with."""


@dataclass
class Ran:
    """A finished run: its fit, its trainer, and its checkpoints, if asked for, as bytes by (stage, epoch, step)."""

    fit: Fit
    trainer: Trainer
    checkpoints: dict[At, bytes] = field(default_factory=dict)

    def outcome(self) -> dict[str, Any]:
        """Everything that a second run of the same seed must repeat bit for bit, flat, by name."""
        engine = self.trainer.engine.state_dict()
        found = flatten({"method": engine["method"], "optimizers": engine["optimizers"]})
        found.update(flatten({"predictions": self.fit.predictions, "curves": self.fit.curves}))
        return found


@dataclass
class Bench:
    """One method with one configuration, and runs of it.

    Args:
        cls: the method. given: its configuration, a mapping of what differs from the default, or None.
        backbone: any name that ``--backbone`` takes. size: height and width of the images.
        memory: what is costly and serves several checks.
    """

    cls: type[Method]
    given: Any = None
    backbone: str = "lnl_convnet"
    size: int = 12
    memory: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def config(self) -> Any:
        """The method's configuration."""
        if self.given is None or isinstance(self.given, Mapping):
            return self.cls.Config(**(self.given or {}))
        return self.given

    def otherwise(self) -> Bench:
        """The same method with another value of every setting that changes neither its stages nor its first weights."""
        kind, now, start = type(self.config), self.config.model_dump(), self.build()
        other: dict[str, Any] = {}
        for name in now:
            for value in _other_values(kind.model_fields[name], now[name]):
                try:
                    bench = replace(self, given=kind(**{**now, name: value}), memory={})
                    if _begins_alike(start, bench.build()):
                        other[name] = value
                        break
                except Exception:  # whatever a method says to a value that it does not take
                    continue
        return replace(self, given=kind(**{**now, **other}), memory={})

    @property
    def batch_size(self) -> int:
        """Images a step: ``BATCH``, or more where the method needs more."""
        return max(BATCH, self.cls.min_batch)

    @cached_property
    def train(self) -> Split:
        """All twelve groups, all of different size, with dense bias labels; at least three batches and a rest."""
        return uneven_split(max(0, 3 * self.batch_size + self.cls.min_batch), self.size)

    @cached_property
    def val(self) -> Split:
        """Another draw, for validation."""
        return replace(uneven_split(0, self.size, seed=1), bias_map=None)

    @cached_property
    def even(self) -> Split:
        """Forty images whose bias is independent of the label, without dense bias labels."""
        return even_split(40, self.size)

    @cached_property
    def _teachers(self) -> dict[int, Method]:
        return {}

    def teacher(self, split: Split) -> Method:
        """A frozen network that has learnt ``split``."""
        if id(split) not in self._teachers:
            bench = Bench(Plain, None, self.backbone, self.size)
            found = bench.fit(split, epochs=15, settings=Settings(optimizer="adam", lr=3e-3).over(SETTINGS)).fit.method
            self._teachers[id(split)] = found.eval().requires_grad_(False)
        return self._teachers[id(split)]

    def build(self, seed: int = 0, split: Split | None = None) -> Method:
        """A fresh method for ``split`` (default: ``train``)."""
        split = self.train if split is None else split
        dense = (MAP_HEADS, MAP_BINS, self.size // 2, self.size // 2)
        task = task_of(split, CLASSES, BIASES, (), dense, self.cls.sees_bias)
        teachers = {role: copy.deepcopy(self.teacher(split)) for role in self.cls.needs(self.config)}
        factory = BackboneFactory(self.backbone, CLASSES, (3, self.size, self.size), "half", seed, teachers=teachers)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(seed, "method"))
            return self.cls(factory, task, self.config)

    def plans(self, method: Method, epochs: int, settings: Settings, batch_size: int = 0) -> list[StagePlan]:
        """The method's stages, ``epochs`` each."""
        settings = settings.over(Settings(batch_size=batch_size or self.batch_size))
        own = Settings(epochs=epochs, batch_size=settings.batch_size, lr=settings.lr, optimizer=settings.optimizer)
        return plan_stages(method, settings, {stage.name: own for stage in method.stages()})

    def fit(
        self,
        split: Split | None = None,
        *,
        seed: int = 0,
        build_seed: int | None = None,
        epochs: int = EPOCHS,
        settings: Settings = SETTINGS,
        batch_size: int = 0,
        engine: Callable[[Method], Engine] = Engine,
        method: Method | None = None,
        start: bytes | None = None,
        keep: bool | Callable[[At], bool] = False,
    ) -> Ran:
        """A run of the whole, shortened schedule through the zoo's trainer.

        Args:
            split: to train on.
            seed: of the run.
            build_seed: of the initial weights, if another.
            epochs: of each stage.
            settings: of all stages.
            batch_size: images a step; 0: ``self.batch_size``.
            engine: makes an engine that watches.
            method: instead of a fresh one.
            start: a checkpoint to go on from.
            keep: whether to keep the checkpoint of every step, or of which.
        """
        split = self.train if split is None else split
        method = method or self.build(seed if build_seed is None else build_seed, split)
        kept: dict[At, bytes] = {}

        def save(state: dict[str, Any]) -> None:
            progress = state["progress"]
            at = progress["stage"], progress["epoch"], progress["step"]
            if keep is True or (callable(keep) and keep(at)):
                kept[at] = to_bytes(state)

        plans = self.plans(method, epochs, settings, batch_size)
        trainer = Trainer(engine(method), plans, split, {"val": self.val}, seed, save if keep else None)
        trainer.checkpoint_seconds = 0.0
        return Ran(trainer.fit(None if start is None else from_bytes(start)), trainer, kept)

    @cached_property
    def moments(self) -> list[Moment]:
        """The method before the first and in the last epoch of every stage of a run."""
        engine = self.fit(engine=MomentEngine).trainer.engine
        return engine.moments if isinstance(engine, MomentEngine) else []

    def view(self, split: Split | None = None, device: torch.device = CPU) -> DeviceSplit:
        """``split`` (default: ``train``) as the method sees it."""
        return DeviceSplit(self.train if split is None else split, device, self.cls.sees_bias)

    def batch(self, rows: Any = None, device: torch.device = CPU) -> Batch:
        """A batch of these rows of ``train``; None: all of them, so every group is there."""
        view = self.view(device=device)
        wanted = torch.arange(len(view)) if rows is None else torch.as_tensor(rows)
        return view.batch(wanted.to(device), torch.Generator().manual_seed(0))

    def groups(self) -> Iterator[tuple[tuple[int, int], Tensor]]:
        """Every (label, bias) with its rows of ``train``."""
        biases = self.train.biases
        if biases is None:
            raise ValueError("the synthetic images have bias labels")
        for label in range(CLASSES):
            for bias in range(BIASES):
                members = np.flatnonzero((self.train.labels == label) & (biases == bias))
                yield (label, bias), torch.from_numpy(members)


def _other_values(about: FieldInfo, now: Any) -> list[Any]:
    """What might stand for a setting instead; not all of it need be allowed."""
    extra = about.json_schema_extra
    ranged: Any = extra.get("search") if isinstance(extra, dict) else None
    found = [*(ranged or []), *get_args(about.annotation)]
    if isinstance(now, bool):
        found.append(not now)
    elif isinstance(now, int | float):
        found += [now + 1, now * 2, now / 2, now - 1]
    return [value for value in found if value != now]


def _begins_alike(one: Method, other: Method) -> bool:
    stages = [[(stage.name, stage.shared_as) for stage in method.stages()] for method in (one, other)]
    return stages[0] == stages[1] and not differences(one.state_dict(), other.state_dict())


def to_bytes(state: Mapping[str, Any]) -> bytes:
    """A checkpoint as a file would hold it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def from_bytes(saved: bytes) -> Any:
    """A checkpoint read as the zoo reads it: tensors and plain values, no pickled objects."""
    return torch.load(io.BytesIO(saved), weights_only=True)


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of nested mappings and lists by dotted name."""
    if isinstance(tree, Mapping):
        items = [(str(key), value) for key, value in tree.items()]
    elif isinstance(tree, list | tuple):
        items = [(str(key), value) for key, value in enumerate(tree)]
    else:
        return {prefix: tree}
    found: dict[str, Any] = {}
    for key, value in items:
        found.update(flatten(value, f"{prefix}.{key}" if prefix else key))
    return found


def same_bits(one: Any, other: Any) -> bool:
    """Whether two values are the same, tensors bit for bit."""
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return bool(one == other)
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names under which two flat mappings differ."""
    names = list(dict.fromkeys([*one, *other]))
    return [name for name in names if name not in one or name not in other or not same_bits(one[name], other[name])]


def listing(names: Any, most: int = 4) -> str:
    """The first names of many, for a message."""
    known = list(names)
    return ", ".join(known[:most]) + (f" and {len(known) - most} more" if len(known) > most else "")
