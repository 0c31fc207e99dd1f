"""Check that a method is not ERM in disguise."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone
from ..engine import quiet
from ..method import Method, Repeats, Weights
from .bench import EPOCHS, Bench, CheckFailure, Moment

NEAR = 1e-4
"""A gradient that differs from a multiple of ERM's by less than this, relatively, is ERM's."""


def check_not_erm(bench: Bench) -> None:
    """Somewhere it differs from ERM: in a gradient, the sampling, the image its network sees, or what ``finish`` does.

    ERM is cross-entropy of the method's own ``predict``, from the same weights and on the same batch; a method that
    says ``is_baseline`` must not differ. Failing means that what is reported under the method's name is ERM. Usual
    causes: the loss is computed and then overwritten by plain cross-entropy, a weight that stays 1, a term multiplied
    by 0 in the default configuration.
    """
    seen = next((words for moment in bench.moments if (words := _differs(bench, moment))), "")
    seen = seen or _finish_differs(bench)
    if bench.cls.is_baseline and seen:
        raise CheckFailure(f"is_baseline is True, but it differs from ERM: {seen}")
    if not bench.cls.is_baseline and not seen:
        raise CheckFailure(
            "this is ERM: every gradient on the network that predicts is that of plain cross-entropy, up to a factor, "
            "images are drawn uniformly, the network sees them as they are, and finish changes no prediction "
            f"({EPOCHS} epochs a stage; if it warms up for longer, give a configuration that does not)"
        )


def _differs(bench: Bench, moment: Moment) -> str:
    """In what the method differs from ERM at this moment, in words; "" for nothing."""
    if _is_uneven(moment.method.sampling()):
        return f"{moment}: the sampling"
    engine, batch = moment.engine(), bench.batch()
    erm, transformed = _erm_gradients(engine.method, batch.image, batch.label)
    if transformed:
        return f"{moment}: the image that the network sees"
    reached = False
    for update in engine.method.updates(moment.clock):
        torch.manual_seed(0)
        engine.backward(update, batch, moment.clock)
        own = {name: p.grad for name, p in engine.method.named_parameters() if p.grad is not None and name in erm}
        reached = reached or bool(own)
        if own and not _is_multiple(own, erm):
            return f"{moment}: the gradient of update {update.loss!r}"
        engine.method.zero_grad()  # not stepped: the next update is compared at the same weights
    return "" if reached else f"{moment}: no update trains what predict reads"


def _is_uneven(how: Weights | Repeats | None) -> bool:
    if how is None:
        return False
    shares = how.w if isinstance(how, Weights) else how.counts
    return bool((shares != shares.flatten()[0]).any())


def _erm_gradients(method: Method, image: Tensor, label: Tensor) -> tuple[dict[str, Tensor], bool]:
    """The gradients of plain cross-entropy on a copy of ``method``, and whether its network sees another image."""
    twin = copy.deepcopy(method).train()
    twin.requires_grad_(True)
    seen: list[bool] = []

    def look(module: nn.Module, args: Any) -> None:
        given: Tensor = args[0]
        seen.append(given.shape == image.shape and torch.equal(given, image))

    for module in twin.modules():
        if isinstance(module, Backbone):
            module.normalize.register_forward_pre_hook(look)
    torch.manual_seed(0)  # the same dropout on both sides
    loss = F.cross_entropy(twin.predict(image).float(), label)
    loss.backward()  # type: ignore[no-untyped-call]
    grads = {name: p.grad for name, p in twin.named_parameters() if p.grad is not None}
    return grads, bool(seen) and not any(seen)


def _is_multiple(own: dict[str, Tensor], erm: dict[str, Tensor]) -> bool:
    """Whether the gradients ``own`` are a multiple of ERM's on the same parameters; 0 is one."""
    mine = torch.cat([grad.flatten().double() for grad in own.values()])
    theirs = torch.cat([erm[name].flatten().double() for name in own])
    if not bool(mine.any()):
        return True
    factor = mine @ theirs / (theirs @ theirs).clamp(min=1e-300)
    return bool((mine - factor * theirs).norm() <= NEAR * mine.norm())


def _finish_differs(bench: Bench) -> str:
    """Whether ``finish`` changes a prediction, in words."""
    method = bench.build()
    image = bench.view(bench.val).image(slice(None))
    before: list[Tensor] = []
    finish = method.finish

    def watched(*args: Any) -> None:
        before.append(method.predict(image))
        finish(*args)

    setattr(method, "finish", watched)  # noqa: B010  (a method of this one object)
    bench.fit(epochs=1, method=method)
    with quiet(method):
        after = method.predict(image)
    return "" if all(torch.allclose(one, after) for one in before) else "finish changes the predictions"
