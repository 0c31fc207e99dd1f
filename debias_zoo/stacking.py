"""Several seeds of one configuration as one program (``--stack-seeds``): one batched forward and backward for all.

The weights and buffers of K methods are stacked, and ``torch.func.vmap`` runs the method's own ``forward`` on K batches
at once, each with its own weights. Optimizers, orders of images, hooks, evaluation, checkpoints and files stay those of
each trial, so that a trial is what it is alone, but for the order in which floats are added.

Whether a method allows it is not declared but proved: at the first step of each stage every trial computes its step
alone as well, and losses, gradients and buffers must agree. What cannot be batched (random numbers inside a step,
numbers read back from the device, several updates a batch) is trained one after the other, and the reason is told.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from .course import Course, Made, Step, after
from .engine import Engine
from .errors import ZooError
from .method import Batch, Update

TOLERANCE = 1e-2
"""How far a step in a stack may be from the same step alone, in fp32: the norm of the difference over the norm.

A mistake shows as a difference of about 1. Sums in another order show as 1e-6, and as 1e-3 where they cancel, as the
gradients of a convolution do on images that are noise.
"""

PARTS = ("image", "label", "bias", "bias_map", "index")


class UnstackableError(ZooError):
    """A step that cannot be made for several seeds at once, with the reason."""


def together(courses: Sequence[Course[Any]], ended: Callable[[int, str], None], warn: Callable[[str], None]) -> None:
    """Go through courses side by side, with one program for steps that are alike.

    Those that are behind go first, so that trials that were resumed from different moments meet. ``ended`` is told the
    number of each that has ended, and why it failed, or ""; ``warn`` why steps are made one after the other.
    """
    stacker = Stacker(warn)
    waiting: dict[int, Step] = {}

    def go_on(k: int, move: Callable[[], Step]) -> None:
        waiting.pop(k, None)
        failed = ""
        try:
            waiting[k] = move()
            return
        except StopIteration:
            pass
        except ZooError as error:
            failed = str(error)
        except Exception as error:  # such as a lock that cannot be taken
            failed = f"{type(error).__name__}: {error}"
        ended(k, failed)  # the error is forgotten here, and with it what it held

    with torch.random.fork_rng(devices=[]):
        for k, course in enumerate(courses):
            go_on(k, lambda course=course: next(course))  # type: ignore[misc]
        while waiting:
            first = min(step.at for step in waiting.values())
            ready = {k: step for k, step in waiting.items() if step.at == first}
            for group in _alike(ready):
                made = stacker.make([ready[k] for k in group])
                for k, make in zip(group, made, strict=True):
                    go_on(k, lambda k=k, make=make: after(courses[k], make))  # type: ignore[misc]


def _alike(steps: Mapping[int, Step]) -> list[list[int]]:
    """The keys of steps that one program can make: of one clock, with batches of one size."""
    groups: dict[Any, list[int]] = {}
    for k, step in steps.items():
        groups.setdefault((step.clock, step.batch.image.shape), []).append(k)
    return list(groups.values())


class Stacker:
    """Makes steps of several seeds at once where that was proved to be the same, and one after the other elsewhere."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.warn = warn
        self._proved: set[tuple[str, str]] = set()
        self._refused: str = ""

    def make(self, steps: Sequence[Step]) -> list[Callable[[], Made]]:
        """What makes each of the steps."""
        if len(steps) == 1 or self._refused:
            return [step.make for step in steps]
        try:
            update = self.prove(steps)
        except UnstackableError as error:
            self._refuse(steps, str(error))
            return [step.make for step in steps]
        seeds = len(steps)
        for step in steps:
            step.note(f"trained in one program with {seeds - 1} other seed{'s' * (seeds > 2)} (--stack-seeds)")
        try:
            made = _stacked(steps, update)
        except Exception as error:  # such as too little memory: each of them fails by it
            return [_raising(error)] * seeds
        return [lambda one=one: one for one in made]  # type: ignore[misc]

    def prove(self, steps: Sequence[Step]) -> Update:
        """The one update of these steps; an UnstackableError where all at once would not be the same as each alone."""
        update = _only_update(steps)
        key = (steps[0].clock.stage, update.loss)
        if key not in self._proved:
            _prove(steps, update)
            self._proved.add(key)
        return update

    def _refuse(self, steps: Sequence[Step], reason: str) -> None:
        self._refused = reason
        self.warn(f"{steps[0].engine.method.name}: seeds are trained one after the other: {reason}")


def _raising(error: Exception) -> Callable[[], Made]:
    def fail() -> Made:
        raise error

    return fail


def _only_update(steps: Sequence[Step]) -> Update:
    found = {tuple(step.engine.method.updates(step.clock)) for step in steps}
    if len(found) != 1 or len(next(iter(found))) != 1:
        raise UnstackableError("a batch has several updates, and what they share cannot be batched")
    return next(iter(found))[0]


@dataclass(frozen=True)
class _Backward:
    """What the backward of one update gives for one seed: numbers, gradients by parameter, buffers by name."""

    numbers: Mapping[str, Tensor]
    grads: Mapping[str, Tensor | None]
    buffers: Mapping[str, Tensor]


def _stacked(steps: Sequence[Step], update: Update) -> list[Made]:
    """One step of each, the forward and the backward of all at once."""
    started = time.monotonic()
    logged = []
    engines = [step.engine for step in steps]
    before = engines[0].forwards()
    for step in steps:
        step.engine.set_rates(step.clock)
    for engine, found in zip(engines, _batched(steps, update), strict=True):
        parameters = dict(engine.method.named_parameters())
        for name, grad in found.grads.items():
            # laid out as the parameter: fused optimizers read both in the order of memory
            parameters[name].grad = None if grad is None else torch.empty_like(parameters[name]).copy_(grad)
        for name, buffer in engine.method.named_buffers():
            buffer.copy_(found.buffers[name])
        engine.apply(update)
        logged.append(engine.logged(update, found.numbers))
    passes = (engines[0].forwards() - before, 1)
    for engine in engines:
        engine.passes = passes
    share = (time.monotonic() - started) / len(steps)
    return [Made(numbers, share) for numbers in logged]


def _batched(steps: Sequence[Step], update: Update) -> list[_Backward]:
    """The update's forward and backward for all seeds at once; the methods themselves stay as they are."""
    methods = [step.engine.method for step in steps]
    parameters, buffers = stack_module_state(methods)
    parts = {
        part: torch.stack([getattr(step.batch, part) for step in steps])
        for part in PARTS
        if getattr(steps[0].batch, part) is not None
    }
    clock, generator = steps[0].clock, steps[0].batch.generator

    def forward(own: dict[str, Tensor], held: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        one = Batch(**{part: batch.get(part) for part in PARTS}, generator=generator)  # type: ignore[arg-type]
        found: dict[str, Tensor] = functional_call(methods[0], (own, held), (update.loss, one, clock))
        return found

    with steps[0].engine.autocast():
        numbers = vmap(forward)(parameters, buffers, parts)
    names = _stepped_names(steps[0].engine, update)
    grads = torch.autograd.grad(numbers["loss"].sum(), [parameters[name] for name in names], allow_unused=True)
    found = []
    for k in range(len(steps)):
        own = {name: None if grad is None else grad[k] for name, grad in zip(names, grads, strict=True)}
        rest = {name: held[k] for name, held in buffers.items()}
        found.append(_Backward({name: value.detach()[k] for name, value in numbers.items()}, own, rest))
    return found


def _stepped_names(engine: Engine, update: Update) -> list[str]:
    stepped = {id(parameter) for parameter in engine.stepped(update)}
    return [name for name, parameter in engine.method.named_parameters() if id(parameter) in stepped]


def _prove(steps: Sequence[Step], update: Update) -> None:
    """Raise an UnstackableError unless all at once gives what each gives alone; nothing is changed.

    In fp32, whatever the run's precision: gradients in bf16 may differ by a tenth, and nothing would be proved.
    """
    with _in_fp32(steps):
        try:
            found = _batched(steps, update)
        except Exception as error:  # whatever vmap does not know
            reason = str(error).strip().splitlines()
            raise UnstackableError(f"{type(error).__name__}: {reason[0] if reason else 'no reason given'}") from error
        own = [_alone(step, update) for step in steps]
    for one, stacked in zip(own, found, strict=True):
        _compare(one, stacked)


@contextmanager
def _in_fp32(steps: Sequence[Step]) -> Iterator[None]:
    before = [step.engine.precision for step in steps]
    for step in steps:
        step.engine.precision = "fp32"
    try:
        yield
    finally:
        for step, precision in zip(steps, before, strict=True):
            step.engine.precision = precision


def _compare(own: _Backward, stacked: _Backward) -> None:
    for what, one, other in (
        ("numbers", own.numbers, stacked.numbers),
        ("gradients", own.grads, stacked.grads),
        ("buffers", own.buffers, stacked.buffers),
    ):
        if any((one[name] is None) != (other[name] is None) for name in one):
            raise UnstackableError(f"{what} differ from those of a step alone")
        if (off := _distance(one, other)) > TOLERANCE:
            raise UnstackableError(f"{what} differ from those of a step alone by {off:.1e}, more than {TOLERANCE:.0e}")


def _alone(step: Step, update: Update) -> _Backward:
    """The same of one seed, made as ever; its buffers and gradients are put back."""
    engine, method = step.engine, step.engine.method
    before = {name: buffer.clone() for name, buffer in method.named_buffers()}
    engine.seed(step.seed)
    numbers = engine.backward(update, step.batch, step.clock)
    parameters = dict(method.named_parameters())
    grads = {name: parameters[name].grad for name in _stepped_names(engine, update)}
    after_it = {name: buffer.clone() for name, buffer in method.named_buffers()}
    with torch.no_grad():
        for name, buffer in method.named_buffers():
            buffer.copy_(before[name])
    for parameter in parameters.values():
        parameter.grad = None
    step.batch.scratch.clear()
    return _Backward({name: value.detach() for name, value in numbers.items()}, grads, after_it)


def _distance(one: Mapping[str, Tensor | None], other: Mapping[str, Tensor | None]) -> float:
    """The norm of the difference over the norm, of all tensors together; infinities that agree do not count."""
    square, whole = 0.0, 0.0
    for name, value in one.items():
        paired = other[name]
        if value is not None and paired is not None:
            a, b = value.double(), paired.double()
            square += float(torch.where(a == b, 0.0, a - b).square().sum())
            whole += float(torch.where(a.isfinite(), a, 0.0).square().sum())
    return math.sqrt(square / whole) if whole else math.sqrt(square)
