"""Check that a method works on any device, without having one: a step on the ``meta`` device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .bench import Bench, CheckFailure, Moment
from .history import explain

META = torch.device("meta")

MOVES = {"aten::_to_copy", "aten::copy_", "aten::set_"}
"""Operations that are meant to see two devices."""


def check_any_device(bench: Bench) -> None:
    """Every update of every stage runs on the ``meta`` device, all tensors there, without asking for a value.

    Failing means a crash on a GPU, or a wait for it in every step. Usual causes: ``.cuda()``, a tensor made without
    ``device=``, state in a plain attribute (only parameters and buffers move with the method), ``.item()``, ``if`` on
    a tensor, a boolean mask as an index, ``bincount``, ``unique``, ``nonzero``.
    """
    with _NoDeviceOfItsOwn():
        bench.build()
    for moment in bench.moments:
        _step(bench, moment)


def _step(bench: Bench, moment: Moment) -> None:
    engine = moment.engine(META)
    batch = bench.batch(device=META)
    try:
        with _autocast_off_on_meta(), _NoDeviceOfItsOwn(), _OneDevice():  # type: ignore[no-untyped-call]
            engine.step(batch, moment.clock)
    except (NotImplementedError, RuntimeError) as error:
        words = "cannot run without the values of a tensor, which a GPU would have to be waited for"
        raise CheckFailure(f"{moment}: {words}: {explain(error)}") from error


@contextmanager
def _autocast_off_on_meta() -> Iterator[None]:
    """Lets ``torch.autocast(x.device.type, enabled=False)`` pass, which knows no ``meta`` device."""
    real = torch.autocast

    def tolerant(device_type: str, *args: Any, **kwargs: Any) -> AbstractContextManager[Any]:
        return nullcontext() if device_type == META.type else real(device_type, *args, **kwargs)

    with patch.object(torch, "autocast", tolerant), patch.object(torch.amp, "autocast", tolerant):
        yield


class _OneDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises where tensors with dimensions sit on two devices; ``meta`` alone lets some of that pass."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.dim()]
        devices = sorted({leaf.device.type for leaf in tensors})
        name = func._schema.name
        if len(devices) > 1 and name not in MOVES:
            shapes = ", ".join(f"{tuple(leaf.shape)} on {leaf.device.type}" for leaf in tensors)
            raise CheckFailure(f"{name} mixes devices: {shapes}. Make it a buffer, or give device= of the batch")
        return func(*args, **kwargs)


class _NoDeviceOfItsOwn(TorchFunctionMode):
    """Raises where a method chooses its device itself."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        asked = [kwargs.get("device"), *(args[1:] if func is torch.Tensor.to else ())]
        named = [str(value) for value in asked if isinstance(value, str | torch.device)]
        if func is torch.Tensor.cuda or any("cuda" in name for name in named):
            raise CheckFailure("asks for CUDA by itself: the trainer moves the method, and batches come on its device")
        return func(*args, **kwargs)
