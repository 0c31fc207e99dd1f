"""What tests of whole runs share: an engine that remembers which images it saw and what the weights were."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from debias_zoo.engine import Engine
from debias_zoo.method import Batch, Clock, Method


@dataclass
class Seen:
    """A step: when it was, the rows of its images, and the weights and buffers before it."""

    clock: Clock
    rows: Tensor
    state: dict[str, Tensor] = field(repr=False)


class WatchingEngine(Engine):
    """An engine that remembers every step."""

    def __init__(self, method: Method, device: torch.device | str = "cpu", precision: str = "fp32") -> None:
        super().__init__(method, device, precision)
        self.seen: list[Seen] = []

    def step(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        state = {name: value.detach().clone() for name, value in self.method.state_dict().items()}
        self.seen.append(Seen(clock, batch.index.clone(), state))
        return super().step(batch, clock)

    def first(self, stage: str) -> Seen:
        """The first step of a stage."""
        return next(seen for seen in self.seen if seen.clock.stage == stage)

    def draws(self, stage: str, epoch: int, size: int) -> Tensor:
        """How often each of ``size`` images was shown in an epoch."""
        rows = [seen.rows for seen in self.seen if (seen.clock.stage, seen.clock.epoch) == (stage, epoch)]
        return torch.bincount(torch.cat(rows), minlength=size)


def same(one: dict[str, Tensor], other: dict[str, Tensor], prefix: str) -> bool:
    """Whether all entries below a prefix are equal bit for bit; there must be some."""
    names = [name for name in one if name.startswith(prefix)]
    assert names, f"nothing below {prefix}"
    return all(torch.equal(one[name], other[name]) for name in names)
