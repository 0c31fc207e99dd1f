"""What every update of a run did: its loss, who got a gradient, what moved, and whether the batch was left alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..engine import Engine
from ..method import Batch, Clock, Method, Update
from .bench import Bench, CheckFailure, listing, same_bits

LONGEST = 300
"""Letters of another's error message that a verdict repeats."""

STRANGER = "a tensor that is no parameter of the method"


@dataclass
class Record:
    """One update.

    Attributes:
        stage, epoch, step: when. update: which. loss: its value. odd: logged numbers that are no scalars.
        gradients: for each parameter to be stepped, its gradient's norm, or None where the loss did not reach it.
        moved: parameters that changed. buffers: buffers that changed.
    """

    stage: str
    epoch: int
    step: int
    update: Update
    loss: float
    odd: tuple[str, ...]
    gradients: dict[str, float | None] = field(default_factory=dict)
    moved: frozenset[str] = frozenset()
    buffers: frozenset[str] = frozenset()

    @property
    def reached(self) -> frozenset[str]:
        """The parameters that the loss reaches among those to be stepped."""
        return frozenset(name for name, norm in self.gradients.items() if norm is not None)

    def __str__(self) -> str:
        return f"update {self.update.loss!r} (stage {self.stage!r}, epoch {self.epoch}, step {self.step})"


@dataclass
class History:
    """All updates of a run in order, the fields of batches that were modified, and the error that ended it, if any."""

    method: Method
    optimizers: dict[str, list[str]] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    modified: list[str] = field(default_factory=list)
    error: BaseException | None = None

    def finished(self) -> list[Record]:
        """The records of a run that came to its end."""
        if self.error is not None:
            raise CheckFailure(f"training stopped: {explain(self.error)}") from self.error
        return self.records


class HistoryEngine(Engine):
    """An engine that writes a history."""

    def __init__(self, method: Method) -> None:
        super().__init__(method)
        self.history = History(method)
        self._before: dict[str, Tensor] = {}

    def names(self, tensors: list[torch.nn.Parameter]) -> list[str]:
        """The names of parameters; those that are none of the method's have no name."""
        known = {id(p): name for name, p in self.method.named_parameters()}
        return [known.get(id(p), STRANGER) for p in tensors]

    def step(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        self.history.optimizers = {name: self.names(params) for name, params in self._parameters.items()}
        fields = {k: v for k, v in vars(batch).items() if isinstance(v, Tensor)}
        before = {name: value.clone() for name, value in fields.items()}
        logged = super().step(batch, clock)
        for name, value in fields.items():
            if not same_bits(value, before[name]):
                self.history.modified.append(f"batch.{name} in stage {clock.stage!r}")
        return logged

    def backward(self, update: Update, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        unknown = [name for name in update.steps if name not in self.optimizers]
        if unknown:
            raise CheckFailure(f"update {update.loss!r} steps {listing(unknown)}; there are {listing(self.optimizers)}")
        if off := [p for p in self.stepped(update) if not p.requires_grad]:
            names = listing(self.names(off))
            raise CheckFailure(f"update {update.loss!r} steps {names}: its requires_grad was switched off in training")
        self._before = snapshot(self.method)
        numbers = super().backward(update, batch, clock)
        stepped = self.stepped(update)
        norms = [None if p.grad is None else float(p.grad.norm()) for p in stepped]
        odd = tuple(name for name, value in numbers.items() if not isinstance(value, Tensor) or value.dim())
        record = Record(clock.stage, clock.epoch, clock.step, update, float(numbers["loss"].detach()), odd)
        record.gradients = dict(zip(self.names(stepped), norms, strict=True))
        self.history.records.append(record)
        return numbers

    def apply(self, update: Update) -> None:
        super().apply(update)
        record = self.history.records[-1]
        after = snapshot(self.method)
        changed = {name for name in after if name not in self._before or not same_bits(after[name], self._before[name])}
        parameters = {name for name, _ in self.method.named_parameters()}
        record.moved = frozenset(changed & parameters)
        record.buffers = frozenset(changed - parameters)


def snapshot(method: Method) -> dict[str, Tensor]:
    """Copies of all parameters and buffers."""
    found = {name: value.detach().clone() for name, value in method.named_parameters()}
    found.update({name: value.detach().clone() for name, value in method.named_buffers()})
    return found


def history_of(bench: Bench) -> History:
    """The history of a run of the shortened schedule; a run that fails leaves what happened until then."""
    if "history" not in bench.memory:
        engine = HistoryEngine(bench.build())
        bench.memory["history"] = engine.history
        arrays = {name: value.copy() for name, value in vars(bench.train).items()}
        try:
            bench.fit(engine=lambda method: engine, method=engine.method)
        except (Exception, SystemExit) as error:  # a method may raise anything
            engine.history.error = error
        for name, before in arrays.items():
            if not np.array_equal(before, now := getattr(bench.train, name)):
                engine.history.modified.append(f"the training split's {name}")
                np.copyto(now, before)
    found: History = bench.memory["history"]
    return found


def explain(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())[:LONGEST]
    return text if isinstance(error, CheckFailure) else f"{type(error).__name__}: {text}"
