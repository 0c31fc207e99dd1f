"""Checks of single updates: what gets a gradient, what moves, and what must be left alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..method import Method
from .bench import Bench, CheckFailure, listing
from .history import STRANGER, Record, history_of

CERTAIN = 200.0
"""Logits this far apart: in float32 a probability below exp(-104) is exactly 0."""

SQUASHING = {"softmax", "log_softmax", "cross_entropy", "logsumexp", "sigmoid", "logsigmoid", "log_sigmoid"}


def check_finite_loss(bench: Bench) -> None:
    """Every update gives a finite scalar loss with a finite gradient, and at some time one that is not zero.

    Failing means that an update cannot train. Usual causes: a loss that does not depend on what it steps (a ``detach``
    too many, the wrong optimizer named), a mean over no element, a logarithm of 0.
    """
    history = history_of(bench)
    alive: dict[tuple[str, str], bool] = defaultdict(bool)
    for record in history.records:
        if not isfinite(record.loss):
            raise CheckFailure(f"{record}: the loss is {record.loss}")
        if record.odd:
            raise CheckFailure(f"{record}: {listing(record.odd)} must be a tensor without dimensions")
        for name, norm in record.gradients.items():
            if norm is not None and not isfinite(norm):
                raise CheckFailure(f"{record}: the gradient of {name} is {norm}")
        key = (record.stage, record.update.loss)
        alive[key] = alive[key] or any(record.gradients.values())
    for stage, loss in [key for key, has in alive.items() if not has and history.error is None]:
        raise CheckFailure(f"update {loss!r} of stage {stage!r} never gives a gradient to what it steps")
    history.finished()


def check_finite_when_certain(bench: Bench) -> None:
    """The loss and its gradients stay finite where a network is so certain that a probability is exactly 0.

    Failing means NaN in the middle of a long run, where networks are certain. Usual cause: a softmax, and then its
    logarithm; use ``log_softmax``, ``torch.special.entr`` or ``torch.xlogy``.
    """
    for moment in bench.moments:
        engine, batch = moment.engine(), bench.batch()
        for update in engine.method.updates(moment.clock):
            with _Certain():
                loss = engine.backward(update, batch, moment.clock)["loss"]
            grads = [p.grad for p in engine.stepped(update) if p.grad is not None]
            if not bool(torch.isfinite(loss)) or not all(bool(torch.isfinite(grad).all()) for grad in grads):
                raise CheckFailure(f"update {update.loss!r}, {moment}: NaN or infinite where a probability is 0")
            engine.method.zero_grad()


class _Certain(TorchFunctionMode):
    """Stretches what goes into a softmax or a sigmoid until its smallest probability is 0 in float32."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in SQUASHING and args and isinstance(args[0], Tensor) and args[0].is_floating_point():
            scale = CERTAIN / args[0].detach().abs().amax().clamp(min=1e-6)
            args = (args[0] * scale.clamp(min=1.0), *args[1:])
        return func(*args, **(kwargs or {}))


def check_all_in_optimizers(bench: Bench) -> None:
    """Every trainable parameter of the method is in some optimizer, and every optimizer holds nothing else.

    Failing means that a part keeps its random initial weights for ever, or that weights outside the method are
    trained and never saved. Usual causes: a head that was forgotten in ``optimizers``, the wrong module's
    ``parameters()``, modules kept in a plain list instead of ``nn.ModuleList``.
    """
    method = bench.build()
    held = {id(p) for optim in method.optimizers().values() for p in optim.parameters}
    names = {id(p): name for name, p in method.named_parameters()}
    if strangers := len(held - set(names)):
        raise CheckFailure(f"the optimizers hold {strangers} tensors that are no parameters of the method: not saved")
    frozen = bench.cls.frozen
    lost = [n for n, p in method.named_parameters() if p.requires_grad and id(p) not in held and not _is_in(n, frozen)]
    if lost:
        raise CheckFailure(f"in no optimizer: {listing(lost)}. Name them in optimizers(), or in frozen with a reason")


def _is_in(name: str, prefixes: Iterable[str]) -> bool:
    return any(name == prefix or name.startswith(prefix.rstrip(".") + ".") for prefix in prefixes)


def check_moves_what_it_names(bench: Bench) -> None:
    """Each update moves something in each optimizer it names, each parameter once, and no other parameter.

    Bit for bit. Buffers move only where batch norm belongs to what is stepped, or where ``moves_buffers`` says. Failing
    means that the method does something that its ``updates`` do not say. Usual causes: weights changed by hand in
    ``forward``, an optimizer named whose parameters the loss does not reach, one network's batch norm running in
    training mode inside another's update.
    """
    history = history_of(bench)
    records = history.finished()
    _check_each_is_moved(records, history.optimizers)
    declared = bench.cls.moves_buffers
    if unknown := set(declared) - {record.update.loss for record in records}:
        raise CheckFailure(f"moves_buffers names {listing(sorted(unknown))}, which is no loss of any update")
    for record in records:
        _check_stepped_once(record, history.optimizers)
        if other := record.moved - record.reached:
            raise CheckFailure(f"{record} moves {listing(sorted(other))}, which it does not step")
        allowed = _norm_statistics(history.method, record.reached)
        told = tuple(declared.get(record.update.loss, ()))
        if moved := [name for name in record.buffers if name not in allowed and not name.startswith(told)]:
            raise CheckFailure(
                f"{record} moves the buffer {listing(sorted(moved))}: say so in moves_buffers, or do not"
            )


def _check_stepped_once(record: Record, optimizers: dict[str, list[str]]) -> None:
    named = [name for optimizer in record.update.steps for name in optimizers[optimizer] if name in record.reached]
    if twice := {name for name in named if named.count(name) > 1}:
        raise CheckFailure(f"{record} steps {listing(sorted(twice))} twice: several of its optimizers hold it")


def _check_each_is_moved(records: list[Record], optimizers: dict[str, list[str]]) -> None:
    moved: dict[tuple[str, str, str], bool] = defaultdict(bool)
    for record in records:
        for optimizer in record.update.steps:
            own = [n for n in optimizers[optimizer] if n in record.moved and record.gradients.get(n)]
            moved[record.stage, record.update.loss, optimizer] |= bool(own)
    for stage, loss, optimizer in [key for key, has in moved.items() if not has]:
        raise CheckFailure(f"update {loss!r} of stage {stage!r} steps {optimizer!r} and never moves anything in it")


def _norm_statistics(method: Method, reached: frozenset[str]) -> set[str]:
    """The batch norm statistics that may move when the parameters ``reached`` are stepped."""
    found: set[str] = set()
    for name, module in method.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            owner = name if module.affine else name.rpartition(".")[0]
            if any(parameter.startswith(owner + ".") for parameter in reached):
                found.update(f"{name}.{buffer}" for buffer, _ in module.named_buffers(recurse=False))
    return found


def check_leaves_batch_alone(bench: Bench) -> None:
    """Neither the batch nor the training split is modified.

    Failing means that a later update of the batch, or every later epoch, sees other images or labels than the data's.
    Usual cause: an operation in place (``clamp_``, ``+=``, an index assignment) on what was handed over.
    """
    history = history_of(bench)
    if history.modified:
        raise CheckFailure(f"modified: {listing(dict.fromkeys(history.modified))}")
    history.finished()


def check_everything_trains(bench: Bench) -> None:
    """Over the whole schedule every trainable tensor gets a gradient that is not zero and moves somewhere.

    Failing means that a part of the network is dead weight. ``frozen = {name: reason}`` names what is meant to stand
    still, and it must. Usual causes: ``requires_grad`` switched off and never on again, a layer that nothing reads.
    """
    history = history_of(bench)
    records = history.finished()
    frozen = bench.cls.frozen
    trainable = [name for name, p in bench.build().named_parameters() if p.requires_grad]
    still_are = {name for name, p in history.method.named_parameters() if p.requires_grad}
    graded = {name for record in records for name, norm in record.gradients.items() if norm}
    moved = {name for record in records for name in record.moved}
    if STRANGER in graded:
        raise CheckFailure("an optimizer steps tensors that are no parameters of the method")
    if off := [name for name in trainable if name not in still_are]:
        raise CheckFailure(f"requires_grad was switched off while training, and never on again: {listing(off)}")
    if loose := [name for name in sorted(moved) if _is_in(name, frozen)]:
        raise CheckFailure(f"said to be frozen, but moves: {listing(loose)}")
    if dead := [name for name in trainable if name not in graded and not _is_in(name, frozen)]:
        raise CheckFailure(f"never gets a gradient in any update of any stage: {listing(dead)}")
    if still := [name for name in trainable if name not in moved and not _is_in(name, frozen)]:
        raise CheckFailure(f"never moves in any update of any stage: {listing(still)}")
