"""Small classifiers that read the label from an early map of a network: DeDiER's readout, the sieve's auxiliary net."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from debias_zoo.method import Backbone


class ReadoutBlock(nn.Module):
    """conv3x3-BN-ReLU-conv3x3-BN-ReLU; with ``skip`` its input is added before the last ReLU."""

    def __init__(self, channels: int, width: int, skip: bool) -> None:
        super().__init__()
        self.skip = skip
        first, second = (nn.Conv2d(c, width, 3, padding=1, bias=False) for c in (channels, width))
        for conv in (first, second):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        self.layers = nn.Sequential(first, nn.BatchNorm2d(width), nn.ReLU(inplace=True), second, nn.BatchNorm2d(width))

    def forward(self, z: Float[Tensor, "b channels h w"]) -> Float[Tensor, "b width h w"]:
        """(B, channels, h, w) -> (B, width, h, w)."""
        found: Tensor = self.layers(z)
        return F.relu(found + z if self.skip else found)


def readout(shape: tuple[int, ...], classes: int, depth: int, width: int) -> nn.Sequential:
    """Logits (B, classes) of a map (C, h, w): ``depth`` blocks, the first without skip, then pooled, then linear.

    Where the ``shape`` of the tap is (C,), the blocks are linear layers with ReLU.
    """
    layers: list[nn.Module] = []
    channels = shape[0]
    for k in range(depth):
        if len(shape) == 3:
            layers.append(ReadoutBlock(channels, width, skip=k > 0))
        else:
            layers += [nn.Linear(channels, width), nn.ReLU(inplace=True)]
        channels = width
    if len(shape) == 3:
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(channels, classes))


def early_tap(net: Backbone, stage: int | None) -> int:
    """The tap called ``stage``; None: the one before the middle, which is after layer1 of a ResNet."""
    return net.tap_index(stage) if stage is not None else max(0, net.default_tap - 1)
