"""What methods share that unlearn a bias with a predictor h: their stages and optimizers."""

from __future__ import annotations

from torch import nn

from debias_zoo.method import Optim, Stage


def unlearning_stages(pretrain_share: float) -> list[Stage]:
    """``pretrain``, of this share of the epochs, where f and g learn alone, then ``unlearn``; 0: only the latter."""
    unlearning = Stage("unlearn", 1.0 - pretrain_share)
    return [Stage("pretrain", pretrain_share), unlearning] if pretrain_share else [unlearning]


def unlearning_optimizers(net: nn.Module, bias: nn.Module, bias_lr_scale: float) -> dict[str, Optim]:
    """``net`` for f and g together, ``bias`` for h with a learning rate of its own."""
    return {"net": Optim(net.parameters()), "bias": Optim(bias.parameters(), lr_scale=bias_lr_scale)}
