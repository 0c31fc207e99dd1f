"""The course of a trial: a generator that asks for its steps one by one, so that who makes them can be exchanged.

A trainer yields each step and is sent what came of it; everything else of a trial (its order, hooks, evaluation,
checkpoints, files) goes on inside. ``alone`` makes the steps of one trial; ``stacking.py`` those of several at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from .engine import Engine
from .method import Batch, Clock

T = TypeVar("T")


@dataclass(frozen=True)
class Made:
    """What came of a step: the scalars that ``Engine.step`` logs, and the seconds it took."""

    logged: dict[str, Tensor]
    seconds: float


@dataclass(frozen=True)
class Step:
    """A step that a trial is waiting for.

    Attributes:
        engine, batch, clock: as in ``Engine.step``. seed: of the device's global generator.
        at: (stage, epoch, step) of the trial, each from 0.
        note: takes what a reader of the trial's numbers should know.
    """

    engine: Engine
    batch: Batch
    clock: Clock
    seed: int
    at: tuple[int, int, int]
    note: Callable[[str], None]

    def make(self) -> Made:
        """Make it."""
        started = time.monotonic()
        self.engine.seed(self.seed)
        logged = self.engine.step(self.batch, self.clock)
        return Made(logged, time.monotonic() - started)


Course = Generator[Step, Made, T]
"""Yields steps, is sent what came of each, and returns its outcome."""


@contextmanager
def torch_as_it_was() -> Iterator[None]:
    """Around courses: torch's global random state, and how it takes denormal numbers, are afterwards as before.

    Inside they count as 0. What a network is certain of has gradients and moments of 1e-40, with which processors
    reckon many times slower than with any other number, and which change nothing.
    """
    flushed = _flushes_denormals()
    torch.set_flush_denormal(True)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_flush_denormal(flushed)


def _flushes_denormals() -> bool:
    return not bool((torch.full((1,), 2e-38) * 0.25).any())


def alone(course: Course[T]) -> T:
    """Go through a course, one step after the other.

    What a step raises is raised where the course waits for it, so that it can note why it failed.
    """
    with torch_as_it_was():
        try:
            step = next(course)
            while True:
                step = after(course, step.make)
        except StopIteration as end:
            outcome: T = end.value
            return outcome


def after(course: Course[T], make: Callable[[], Made]) -> Step:
    """The step that a course asks for after the one that ``make`` makes; StopIteration holds its outcome."""
    try:
        made = make()
    except (Exception, SystemExit) as error:  # a method may raise anything
        return course.throw(error)
    return course.send(made)
