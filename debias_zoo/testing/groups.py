"""Check that groups are told apart: every group reaches the loss, and none shares its weight with another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..engine import Engine
from .bench import Bench, CheckFailure, Moment
from .synthetic import CLASSES

RAISED = 20.0
"""By how much the logit of the true class is lowered to raise a group's loss."""

LEAST_SHARE = 1e-6
"""A group whose gradient is less than this of the largest one does not reach the loss."""

DRIFT = 1e-3
"""By how much two groups' relative weights may drift by rounding."""

Rows = dict[str, Tensor]
"""For each output of a classifier in a step, the norm of the loss's gradient by image, (B,)."""


def check_groups(bench: Bench) -> None:
    """Every (label, bias) group reaches the loss, and raising one group's loss leaves the others' relative weights.

    The second half is for methods that see bias labels. Failing means that some groups are not trained for, or that
    two groups share one weight. Usual cause: a wrong group index; it is ``label * biases + bias``.
    """
    members = dict(bench.groups())
    for moment in bench.moments:
        if moment.clock.epoch == 0:
            continue  # warm-ups are over in the last epoch
        base = _gradients(bench, moment, None) or _image_gradients(bench, moment)
        _check_reached(base, members, moment)
        if bench.cls.sees_bias:
            for group, rows in members.items():
                _check_kept(base, _gradients(bench, moment, rows), group, members, moment)


def _check_reached(base: Rows, members: dict[tuple[int, int], Tensor], moment: Moment) -> None:
    total = {group: sum(float(row[rows].max()) for row in base.values()) for group, rows in members.items()}
    most = max(total.values())
    if lost := [group for group, value in total.items() if not value > LEAST_SHARE * most]:
        raise CheckFailure(f"{moment}: these (label, bias) groups give no gradient: {lost}")


def _check_kept(
    base: Rows, raised: Rows, group: tuple[int, int], members: dict[tuple[int, int], Tensor], moment: Moment
) -> None:
    """That between ``base`` and ``raised`` all images of other groups changed by one factor."""
    for name, before in base.items():
        if name not in raised:
            continue
        factors = {}
        for other, rows in members.items():
            if other != group and float(before[rows].max()) > LEAST_SHARE * float(before.max()):
                factors[other] = float(raised[name][rows].sum() / before[rows].sum())
        usual = sorted(factors.values())[len(factors) // 2] if factors else 1.0
        if drawn := [other for other, factor in factors.items() if not abs(factor - usual) <= DRIFT * abs(usual)]:
            raise CheckFailure(f"{moment}: raising the loss of group {group} changes the weight of {drawn} as well")


def _gradients(bench: Bench, moment: Moment, raised: Tensor | None) -> Rows:
    """Gradients at the outputs of all classifiers; the loss of the images ``raised`` is raised."""
    torch.manual_seed(0)  # the same dropout in every call
    engine, batch = moment.engine(), bench.batch()
    offset = torch.zeros(len(batch.label), CLASSES)
    if raised is not None:
        offset[raised, batch.label[raised]] = -RAISED
    found: Rows = {}
    for k, update in enumerate(engine.method.updates(moment.clock)):
        with _offset_logits(engine, offset, found, f"{k}"):
            engine.backward(update, batch, moment.clock)
        engine.method.zero_grad()
    return found


@contextmanager
def _offset_logits(engine: Engine, offset: Tensor, found: Rows, prefix: str) -> Iterator[None]:
    """Adds ``offset`` to what every linear layer with one output a class gives, and notes the gradient there."""
    calls: list[nn.Module] = []

    def shift(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        if output.shape != offset.shape or not output.requires_grad:
            return output
        calls.append(module)
        name = f"{prefix} {len(calls)}"
        moved = output + offset
        moved.register_hook(lambda grad: found.update({name: grad.norm(dim=1)}))  # type: ignore[no-untyped-call]
        return moved

    linear = [m for m in engine.method.modules() if isinstance(m, nn.Linear) and m.out_features == CLASSES]
    handles = [module.register_forward_hook(shift) for module in linear]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _image_gradients(bench: Bench, moment: Moment) -> Rows:
    """Gradients at the images, for methods whose classifier is not a linear layer; batch norm in eval mode."""
    engine, batch = moment.engine(), bench.batch()
    engine.method.eval()
    image = batch.image.requires_grad_()
    found: Rows = {}
    for k, update in enumerate(engine.method.updates(moment.clock)):
        loss = engine.method(update.loss, batch, moment.clock)["loss"]
        (grad,) = torch.autograd.grad(loss, image, allow_unused=True, retain_graph=True)
        if grad is not None:
            found[f"{k}"] = grad.flatten(1).norm(dim=1)
    return found
