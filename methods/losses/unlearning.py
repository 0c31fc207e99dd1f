"""What methods share that unlearn a bias with a predictor h: their stages and optimizers."""

from __future__ import annotations

from torch import nn

from debias_zoo.method import Optim, Stage


def unlearning_stages(pretrain_share: float) -> list[Stage]:
    """``pretrain``, of this share of the epochs, where f and g learn alone, then ``unlearn``; 0: only the latter."""
    pretraining = Stage("pretrain", pretrain_share, shared_as="cross-entropy of f and g")
    unlearning = Stage("unlearn", 1.0 - pretrain_share)
    return [pretraining, unlearning] if pretrain_share else [unlearning]


def unlearning_optimizers(net: nn.Module, bias: nn.Module, bias_lr_scale: float) -> dict[str, Optim]:
    """``net`` for f and g together, ``bias`` for h with a learning rate of its own."""
    return {"net": Optim(net.parameters()), "bias": Optim(bias.parameters(), lr_scale=bias_lr_scale)}
