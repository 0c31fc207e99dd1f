"""A bound on the tensors of a network whose settings come from a stranger's file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .errors import ZooError


class Bounded(TorchDispatchMode):
    """While it is entered, whoever makes larger tensors is stopped, before the memory is written to.

    Args:
        largest: bytes of one tensor, at most.
        total: bytes of all that are made, at most; None: any number.
        calls: of torch's functions, at most.

    Raises:
        ZooError: within, with the shape of the tensor that was too much.
    """

    def __init__(self, largest: int, total: int | None = None, calls: int = 20_000) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest = largest
        self.total = total
        self.calls = calls
        self.made = 0
        self.called = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.called += 1
        if self.called > self.calls:
            raise ZooError("it takes more steps than those of an exported model may")
        found = func(*args, **(kwargs or {}))
        before = {_place(value) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        for value in tree_leaves(found):
            if isinstance(value, Tensor) and value.device.type != "meta" and _place(value) not in before:
                size = value.untyped_storage().nbytes()
                self.made += size
                if size > self.largest or (self.total is not None and self.made > self.total):
                    raise ZooError(f"a tensor of shape {tuple(value.shape)} is more than an exported model may have")
        return found


def _place(value: Tensor) -> int:
    return int(value.untyped_storage()._cdata)
