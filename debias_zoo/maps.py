"""A place in a network's forward pass where its tapped map can be looked at, and gradients taken of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .backbones import Backbone
from .errors import ZooError


class MapPoint(nn.Module):
    """Passes a map (B, C, H, W) on, cut off from what lies below it: no gradient goes further down.

    So a frozen network can be asked as well, and nothing below the map is differentiated.

    Attributes:
        calls: how often a map went through.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, z: Tensor) -> Tensor:
        self.calls += 1
        return z.detach().requires_grad_()


@contextmanager
def map_point(backbone: Backbone, stage: int) -> Iterator[MapPoint]:
    """While it lasts, the map after ``stage`` goes through the point that is given, whatever asks the network.

    A layer's own output is no map in every network: ViTs hand on tokens, Swin has its channels last. The point always
    sees (B, C, H, W), and what it passes on is given back in the layer's own form.
    """
    _, module = backbone.tap_module(stage)
    shape = _map_shape(backbone, stage)
    point = MapPoint()

    def through(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        z = as_map(output, shape)
        if z is None:
            raise ZooError(
                f"backbone {backbone.name!r}: the output {tuple(output.shape)} of its tap {stage} is no map {shape}"
            )
        return from_map(point(z).clone(), output)  # the next layer may work in place

    handle = module.register_forward_hook(through)
    try:
        yield point
    finally:
        handle.remove()


def as_map(output: Tensor, shape: tuple[int, int, int]) -> Tensor | None:
    """The map (B, C, H, W) in a layer's output, or None. shape: its (C, H, W).

    ``output`` is the map itself, (B, H, W, C), or (B, N, C) tokens, of which the last H * W are the map's.
    """
    channels, height, width = shape
    if output.shape[1:] == shape:
        return output
    if output.shape[1:] == (height, width, channels):
        return output.permute(0, 3, 1, 2)
    if output.dim() == 3 and output.shape[2] == channels and output.shape[1] >= height * width:
        tokens = output[:, output.shape[1] - height * width :]
        return tokens.transpose(1, 2).reshape(len(output), channels, height, width)
    return None


def from_map(z: Tensor, output: Tensor) -> Tensor:
    """``output`` with the map (B, C, H, W) in it replaced by ``z``: undoes ``as_map``."""
    if output.shape == z.shape:
        return z
    if output.dim() == 4:
        return z.permute(0, 2, 3, 1)
    tokens = z.flatten(2).transpose(1, 2)  # (B, H * W, C)
    return torch.cat([output[:, : output.shape[1] - tokens.shape[1]], tokens], 1)


def last_map(backbone: Backbone) -> int:
    """The last tap with a map larger than 1 x 1 that the pooled features depend on.

    A ViT that is read at its class token depends on no other token after its last block: there the block before is
    meant. Where a network has died and depends on none of them, the last map it is.

    Raises:
        ZooError: the backbone has no such map, or its tap is not the output of one of its modules.
    """
    probe = copy.deepcopy(backbone).eval()
    shapes = {stage: probe.tap_shape(stage) for stage in range(probe.taps)}
    spatial = [stage for stage, shape in shapes.items() if len(shape) == 3 and shape[1] * shape[2] > 1]
    if not spatial:
        raise ZooError(
            f"backbone {backbone.name!r} has no map larger than 1 x 1, so there is no place to point at; train with "
            "one that has, such as --backbone lnl_convnet or resnet18"
        )
    stages = spatial[::-1]
    return next((stage for stage in stages if _matters(probe, stage)), stages[0])


def _map_shape(backbone: Backbone, stage: int) -> tuple[int, int, int]:
    shape = backbone.tap_shape(stage)
    if len(shape) != 3:
        raise ZooError(f"backbone {backbone.name!r} has no map after its tap {stage}: its shape is {shape}")
    channels, height, width = shape
    return channels, height, width


def _matters(backbone: Backbone, stage: int) -> bool:
    """Whether the features change with the map; raises a ZooError where the point does not see the tapped map."""
    device = next(backbone.parameters()).device
    channels, height, width = backbone.image_shape
    image = torch.linspace(0.0, 1.0, channels * height * width, device=device).view(1, channels, height, width)
    seen: list[Tensor] = []
    with torch.enable_grad(), map_point(backbone, stage) as point:
        point.register_forward_hook(lambda module, inputs, z: seen.append(z))
        features = backbone.features(image)
    with torch.no_grad():
        tapped = backbone.tap(image, stage)
    if len(seen) != 1 or not torch.allclose(seen[0], tapped, rtol=1e-3, atol=1e-5):
        name, _ = backbone.tap_module(stage)
        raise ZooError(f"backbone {backbone.name!r}: its tap {stage} is not the output of its module {name!r}")
    if not features.requires_grad:
        return False
    weights = torch.arange(1.0, features.shape[1] + 1.0, device=device)  # a plain sum after a norm is constant
    (grad,) = torch.autograd.grad((features * weights).sum(), seen, allow_unused=True)
    return grad is not None and bool(grad.count_nonzero())
