"""Several seeds of one configuration as one program (``--stack-seeds``): one batched forward and backward for all.

The weights and buffers of K methods are stacked, and ``torch.func.vmap`` runs the method's own ``forward`` on K batches
at once, each with its own weights. Optimizers, orders of images, hooks, evaluation, checkpoints and files stay those of
each trial, so that a trial is what it is alone, but for the order in which floats are added.

Whether a method allows it is not declared but proved: at the first step of each stage every trial computes its step
alone as well, and losses, gradients and buffers must agree. What cannot be batched (random numbers inside a step,
numbers read back from the device, several updates a batch) is trained one after the other, and the reason is told.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from .course import Course, Made, Step, after, torch_as_it_was
from .engine import Engine
from .errors import ZooError
from .method import Batch, Method, Update
from .trial import STACKED

TOLERANCE = 1e-4
"""How far a step in a stack may be from the same step alone: the norm of the difference over the norm.

In float64, where sums in another order show as 1e-15; a method that goes over to float32 may show as 1e-6. In float32
itself a ReLU that is all but 0 may come out on the other side, which moves a gradient by a per cent and proves nothing.
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

    with torch_as_it_was():
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
        self._refused: set[str] = set()

    def make(self, steps: Sequence[Step]) -> list[Callable[[], Made]]:
        """What makes each of the steps."""
        stage = steps[0].clock.stage
        if len(steps) == 1 or stage in self._refused:
            return [step.make for step in steps]
        try:
            made = _stacked(steps, self.prove(steps))
        except UnstackableError as error:
            self._refused.add(stage)
            name = steps[0].engine.method.name
            self.warn(f"{name}: in stage {stage!r} seeds are trained one after the other: {error}")
            return [step.make for step in steps]
        seeds = len(steps)
        for step in steps:
            step.note(f"{STACKED} {seeds - 1} other seed{'s' * (seeds > 2)} (--stack-seeds)")
        return [lambda one=one: one for one in made]  # type: ignore[misc]

    def prove(self, steps: Sequence[Step]) -> Update:
        """The one update of these steps; an UnstackableError where all at once would not be the same as each alone."""
        update = _only_update(steps)
        key = (steps[0].clock.stage, update.loss)
        if key not in self._proved:
            _prove(steps, update)
            self._proved.add(key)
        return update


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
    engines = [step.engine for step in steps]
    before = engines[0].forwards()
    with engines[0].autocast():
        found = _batched([engine.method for engine in engines], steps, _stepped(engines[0], update), update)
    logged = []
    for step, one in zip(steps, found, strict=True):
        engine = step.engine
        parameters = dict(engine.method.named_parameters())
        for name, grad in one.grads.items():
            # laid out as the parameter: fused optimizers read both in the order of memory
            parameters[name].grad = None if grad is None else torch.empty_like(parameters[name]).copy_(grad)
        for name, buffer in engine.method.named_buffers():
            buffer.copy_(one.buffers[name])
        engine.set_rates(step.clock)
        engine.apply(update)
        logged.append(engine.logged(update, one.numbers))
    passes = (engines[0].forwards() - before, 1)
    for engine in engines:
        engine.passes = passes
    share = (time.monotonic() - started) / len(steps)
    return [Made(numbers, share) for numbers in logged]


def _stepped(engine: Engine, update: Update) -> list[str]:
    """The names of the parameters that an update steps."""
    stepped = {id(parameter) for parameter in engine.stepped(update)}
    return [name for name, parameter in engine.method.named_parameters() if id(parameter) in stepped]


def _batched(methods: Sequence[Method], steps: Sequence[Step], names: list[str], update: Update) -> list[_Backward]:
    """The update's forward and backward for all at once, with the gradients of the parameters called ``names``.

    The methods stay as they are. Raises an UnstackableError where vmap cannot do it.
    """
    parameters, buffers = stack_module_state(list(methods))
    held = {part: [getattr(step.batch, part) for step in steps] for part in PARTS}
    parts = {part: torch.stack(found) for part, found in held.items() if found[0] is not None}
    clock, generator, kind = steps[0].clock, steps[0].batch.generator, _float_type(methods[0])
    parts["image"] = parts["image"].to(kind)

    def forward(own: dict[str, Tensor], state: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        one = Batch(**{part: batch.get(part) for part in PARTS}, generator=generator)  # type: ignore[arg-type]
        found: dict[str, Tensor] = functional_call(methods[0], (own, state), (update.loss, one, clock))
        return found

    try:
        numbers = vmap(forward)(parameters, buffers, parts)
        grads = torch.autograd.grad(numbers["loss"].sum(), [parameters[name] for name in names], allow_unused=True)
    except Exception as error:  # whatever vmap does not know, or too little memory
        reason = str(error).strip().splitlines()
        raise UnstackableError(f"{type(error).__name__}: {reason[0] if reason else 'no reason given'}") from error
    found = []
    for k in range(len(steps)):
        own = {name: None if grad is None else grad[k] for name, grad in zip(names, grads, strict=True)}
        rest = {name: state[k] for name, state in buffers.items()}
        found.append(_Backward({name: value.detach()[k] for name, value in numbers.items()}, own, rest))
    return found


def _prove(steps: Sequence[Step], update: Update) -> None:
    """Raise an UnstackableError unless all at once gives what each gives alone; on copies, in float64."""
    names = _stepped(steps[0].engine, update)
    kind = torch.float32 if steps[0].engine.device.type == "mps" else torch.float64
    methods = [copy.deepcopy(step.engine.method).to(kind) for step in steps]
    found = _batched(methods, steps, names, update)
    for method, step, stacked in zip(methods, steps, found, strict=True):
        step.engine.seed(step.seed)
        own = _alone(method, step, names, update)
        for what, one, other in (
            ("numbers", own.numbers, stacked.numbers),
            ("gradients", own.grads, stacked.grads),
            ("buffers", own.buffers, stacked.buffers),
        ):
            if (off := _distance(one, other)) > TOLERANCE:
                raise UnstackableError(
                    f"{what} differ from those of a step alone by {off:.1e}, more than {TOLERANCE:.0e}"
                )


def _alone(method: Method, step: Step, names: list[str], update: Update) -> _Backward:
    """The same of one seed; the method's buffers move."""
    batch = replace(step.batch, image=step.batch.image.to(_float_type(method)), scratch={})
    numbers = method(update.loss, batch, step.clock)
    parameters = dict(method.named_parameters())
    grads = torch.autograd.grad(numbers["loss"], [parameters[name] for name in names], allow_unused=True)
    held = dict(method.named_buffers())
    return _Backward(
        {name: value.detach() for name, value in numbers.items()}, dict(zip(names, grads, strict=True)), held
    )


def _float_type(method: Method) -> torch.dtype:
    return next(parameter.dtype for parameter in method.parameters())


def _distance(one: Mapping[str, Tensor | None], other: Mapping[str, Tensor | None]) -> float:
    """The norm of the difference over the norm, of all tensors together; infinities that agree do not count."""
    square, whole = 0.0, 0.0
    for name, value in one.items():
        paired = other[name]
        if (value is None) != (paired is None):
            return math.inf
        if value is not None and paired is not None:
            a, b = value.double(), paired.double()
            square += float(torch.where(a == b, 0.0, a - b).square().sum())
            whole += float(torch.where(a.isfinite(), a, 0.0).square().sum())
    return math.sqrt(square / whole) if whole else math.sqrt(square)
