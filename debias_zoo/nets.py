"""The papers' own small nets, with the interface of timm's models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["StagedNet", "lnl_convnet", "mlp", "register_model", "resnet20", "simple_convnet"]

Build = TypeVar("Build", bound=Callable[..., nn.Module])


def register_model(build: Build) -> Build:
    """Mark a function as a backbone: ``--plugin FILE`` finds it by that. timm's decorator of this name does as well.

    The function takes ``num_classes`` (0: no classifier), ``in_chans``, the options of the command line and, if it
    names it, ``img_size``, (height, width).
    """
    return build


class StagedNet(nn.Module):
    """A plain stack of stages with timm's interface: taps, pooled features, a replaceable classifier.

    Args:
        stages: modules in order; their outputs are what can be tapped, (B, C_k, H_k, W_k) or (B, C_k).
        channels: C_k of each stage.
        num_classes: outputs of the classifier; 0: no classifier.
    """

    def __init__(self, stages: Sequence[nn.Module], channels: list[int], num_classes: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.feature_info = [
            {"num_chs": width, "reduction": 1, "module": f"stages.{k}"} for k, width in enumerate(channels)
        ]
        self.num_features = channels[-1]
        self.num_classes = num_classes
        self.fc: nn.Module = nn.Linear(channels[-1], num_classes) if num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.fc

    def reset_classifier(self, num_classes: int) -> None:
        """A fresh last layer with ``num_classes`` outputs; 0: none."""
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_intermediates(
        self,
        x: Float[Tensor, "b c h w"],
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The outputs of the stages in ``indices``, after the last stage's output unless only they are asked."""
        count = len(self.stages)
        if isinstance(indices, int):
            indices = list(range(count - indices, count))
        wanted = sorted(k % count for k in indices) if indices is not None else list(range(count))
        found = []
        for k, stage in enumerate(self.stages[: wanted[-1] + 1] if stop_early else self.stages):
            x = stage(x)
            if k in wanted:
                found.append(x)
        return found if intermediates_only else (x, found)

    def forward_features(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d *grid"]:
        """The last stage's output, not pooled."""
        for stage in self.stages:
            x = stage(x)
        return x

    def forward_head(self, x: Float[Tensor, "b d *grid"], pre_logits: bool = False) -> Float[Tensor, "b e"]:
        """Global average pooling, then the last layer unless ``pre_logits``. Returns (B, d) or (B, num_classes)."""
        if x.dim() == 4:
            # seen with the channels last, which gives a gradient that lies in memory as the map does; it is else copied
            x = x.permute(0, 2, 3, 1).mean((1, 2))  # (B, C)
        if pre_logits:
            return x
        logits: Tensor = self.fc(x)
        return logits

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """(B, num_classes) logits."""
        return self.forward_head(self.forward_features(x))


class MaxPool(nn.MaxPool2d):
    """Max pooling of 3 x 3 windows, stride 2, padding 1; without gradients by comparing rows, then columns.

    Torch's pooling looks for the place of each maximum as well, which only a backward pass needs: on one core that
    takes 2.1 ms for a batch of LNL's net, this 1.2 ms. The values are the same bits.
    """

    def __init__(self) -> None:
        super().__init__(3, 2, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c p q"]:
        """(B, C, H, W) -> (B, C, (H + 1) // 2, (W + 1) // 2)."""
        if torch.is_grad_enabled() or x.shape[2] % 2 or x.shape[3] % 2:
            pooled: Tensor = super().forward(x)
            return pooled
        rows = torch.maximum(x[:, :, 0::2], x[:, :, 1::2])
        rows[:, :, 1:] = torch.maximum(rows[:, :, 1:], x[:, :, 1:-1:2])
        pooled = torch.maximum(rows[..., 0::2], rows[..., 1::2])
        pooled[..., 1:] = torch.maximum(pooled[..., 1:], rows[..., 1:-1:2])
        return pooled


class InputStage(nn.Sequential):
    """Batch norm of the image, then a convolution and what follows it; no gradient of the image is needed.

    The norm's scale and shift are put into the convolution, the shift as the weights of a further channel of ones:

        W * (gamma x^ + beta) = [W gamma, sum_c W beta] * [x^, 1]

    (zero padding pads the ones as well, so that borders come out the same). Their gradients then follow from that of
    the weights, and the gradient with respect to the convolution's input, a third of a step, is not computed.
    """

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d p q"]:
        """(B, C, H, W) -> what the last module gives."""
        norm, conv, *rest = self
        if not (isinstance(norm, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d)):
            raise TypeError("an input stage begins with a batch norm and a convolution")
        if norm.training and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        x = F.batch_norm(
            x, norm.running_mean, norm.running_var, None, None, norm.training, norm.momentum or 0.1, norm.eps
        )
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)  # (B, C + 1, H, W)
        scaled = conv.weight * norm.weight.view(1, -1, 1, 1)
        shift = (conv.weight * norm.bias.view(1, -1, 1, 1)).sum(1, keepdim=True)
        # seen with the channels last while they are joined, so that they lie in memory so
        weight = torch.cat([scaled.permute(0, 2, 3, 1), shift.permute(0, 2, 3, 1)], 3).permute(0, 3, 1, 2)
        x = F.conv2d(x, weight, conv.bias, conv.stride, conv.padding)
        for module in rest:
            x = module(x)
        return x


class CifarBlock(nn.Module):
    """relu(x + BN(conv(relu(BN(conv(x)))))); where it halves the size, x is subsampled and gets empty channels."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.stride, self.more = (2, outer - inner) if outer > inner else (1, 0)
        self.conv1 = nn.Conv2d(inner, outer, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)

    def forward(self, x: Float[Tensor, "b inner h w"]) -> Float[Tensor, "b outer p q"]:
        """(B, inner, H, W) -> (B, outer, H / stride, W / stride)."""
        found = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.more:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more // 2, self.more // 2))
        return F.relu(found + x)


@register_model
def lnl_convnet(num_classes: int = 10, in_chans: int = 3, **options: Any) -> StagedNet:
    """The four-layer net of LNL's Colored MNIST (authors' ``models.py``); its tap is the map after the second layer.

    ReLU stands after the max pooling: the same values and gradients as before it, on a quarter of the pixels.
    """
    _refuse(options, "lnl_convnet")
    conv1 = nn.Conv2d(in_chans, 32, 5, padding=2)
    conv2 = nn.Conv2d(32, 32, 3, padding=1)
    conv3 = nn.Conv2d(32, 64, 3, stride=2, padding=1)
    conv4 = nn.Conv2d(64, 64, 3, padding=1)
    for conv in (conv1, conv2, conv3, conv4):
        size, _ = conv.kernel_size
        nn.init.normal_(conv.weight, 0.0, math.sqrt(2.0 / (size * size * conv.out_channels)))
    stages = [
        InputStage(nn.BatchNorm2d(in_chans), conv1, MaxPool(), nn.ReLU(inplace=True)),
        nn.Sequential(conv2, nn.ReLU(inplace=True)),
        nn.Sequential(conv3, nn.ReLU(inplace=True)),
        nn.Sequential(conv4, nn.ReLU(inplace=True)),
    ]
    return StagedNet(stages, [32, 32, 64, 64], num_classes)


@register_model
def simple_convnet(
    num_classes: int = 10, in_chans: int = 3, kernel: int = 7, stride: int = 1, **options: Any
) -> StagedNet:
    """ReBias's SimpleConvNet: four conv-BN-ReLU layers of one kernel size (7: the target net, 1: the colour net).

    ``stride`` is that of the first layer: with kernel 1 it looks at every ``stride``-th pixel.
    """
    _refuse(options, "simple_convnet")
    widths = [in_chans, 16, 32, 64, 128]
    stages: list[nn.Module] = []
    for k in range(4):
        conv = nn.Conv2d(widths[k], widths[k + 1], kernel, stride if k == 0 else 1, kernel // 2)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        stages.append(nn.Sequential(conv, nn.BatchNorm2d(widths[k + 1]), nn.ReLU(inplace=True)))
    return StagedNet(stages, widths[1:], num_classes)


@register_model
def mlp(
    num_classes: int = 10,
    in_chans: int = 3,
    depth: int = 3,
    width: int | Sequence[int] = 100,
    img_size: tuple[int, int] = (28, 28),
    **options: Any,
) -> StagedNet:
    """A multi-layer perceptron on the flattened image: ``depth`` hidden layers of ``width`` units with ReLU.

    A list of widths, one for each hidden layer, stands for both.
    """
    _refuse(options, "mlp")
    widths = [width] * depth if isinstance(width, int) else list(width)
    inputs = in_chans * img_size[0] * img_size[1]
    stages: list[nn.Module] = []
    for k, units in enumerate(widths):
        linear = nn.Linear(inputs if k == 0 else widths[k - 1], units)
        flatten: list[nn.Module] = [nn.Flatten()] if k == 0 else []
        stages.append(nn.Sequential(*flatten, linear, nn.ReLU(inplace=True)))
    return StagedNet(stages, widths, num_classes)


@register_model
def resnet20(num_classes: int = 10, in_chans: int = 3, **options: Any) -> StagedNet:
    """ResNet-20 for images of 32 x 32 (He et al., CVPR 2016), as LfF trains it on Corrupted CIFAR-10.

    Three groups of three blocks with 16, 32 and 64 channels; 269,722 parameters for ten classes. Taps: the groups.
    """
    _refuse(options, "resnet20")
    stem = [nn.Conv2d(in_chans, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    widths = (16, 16, 32, 64)
    stages = []
    for k, (inner, outer) in enumerate(pairwise(widths)):
        blocks = [CifarBlock(inner, outer), CifarBlock(outer, outer), CifarBlock(outer, outer)]
        stages.append(nn.Sequential(*([] if k else stem), *blocks))
    net = StagedNet(stages, list(widths[1:]), num_classes)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    return net


def _refuse(options: dict[str, Any], net: str) -> None:
    if options:
        raise TypeError(f"{net} does not take {', '.join(sorted(options))}")
