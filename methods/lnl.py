"""LNL: Learning Not to Learn (Kim et al., CVPR 2019, arXiv:1812.10352), and its adaptive gradient reversal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from debias_zoo.method import (
    Backbones,
    Batch,
    Clock,
    Method,
    Optim,
    Paper,
    Recipe,
    Settings,
    Stage,
    Task,
    Update,
    setting,
)

from .losses.bias_heads import bias_loss, bias_predictor, negative_entropy
from .losses.grl import reverse_gradient
from .losses.precision import wide
from .losses.unlearning import unlearning_optimizers, unlearning_stages
from .schedules import LNL_CMNIST

AUTHORS = "authors' trainer.py"

PAPER_RECIPE = Recipe(
    protocol="paper",
    dataset="cmnist",
    source="feidfoe/learning-not-to-learn: option.py, baseline_train.sh, train.sh",
    backbone="lnl_convnet",
    normalize="cifar",
    settings=LNL_CMNIST,
    stages={"pretrain": Settings(epochs=100, lr=0.01), "unlearn": Settings(epochs=100, lr=0.001)},
    deviations=(
        "the authors restore the pre-trained optimizer's state with its decayed rate for one epoch",
        "classifier g untouched by the unlearn update",
    ),
)


class LNL(Method):
    """Unlearn a known bias: minimise the mutual information between the features f(x) and the bias b.

    f is the backbone up to the tap, g the rest of it, h predicts the bias from the tapped map. On every batch, in turn:

        classify:  L_A = CE(y, g(f(x))) + lambda mean sum_k p_k log p_k,  p = softmax(h(f(x)))     steps f and g
        unlearn:   L_B = sum_heads CE(b, h(R(f(x)))),  R reverses the gradient times s             steps f and h

    The second forward sees the f that the first update has just moved. ``classify`` raises the entropy of h without
    moving h; ``unlearn`` trains h to read the bias and f, through R, to hide it; g gets no gradient there and is not
    stepped. A pre-training stage trains f and g alone. Reads bias labels of the training split. Prediction: g(f(x)).

    Differs from the paper: log-softmax instead of softmax, then log (NaN at p = 0); g is untouched by ``unlearn``, as
    in the equations, while under the torch of 2019 weight decay and momentum still moved it; h is saved with the rest;
    the optimizer starts fresh after pre-training. As published: h runs in training mode in both updates, and the
    entropy is averaged over all pixels although h learns on the digit alone.
    """

    name = "lnl"
    version = 1
    sees_bias = True
    reads_bias_map = True
    moves_buffers = {"classify": ("bias.",)}
    paper = Paper(
        title="Learning Not to Learn: Training Deep Neural Networks with Biased Data",
        authors="Kim, Kim, Kim, Kim, Kim",
        venue="CVPR",
        year=2019,
        arxiv="1812.10352",
        code="https://github.com/feidfoe/learning-not-to-learn",
    )

    class Config(Method.Config):
        """Settings; each says where its default comes from."""

        lambda_entropy: float = setting(
            0.01, "weight of the negative entropy of h", source=AUTHORS, search=(1e-3, 1.0, "log"), ge=0
        )
        reversal: Literal["fixed", "epoch", "progress"] = setting(
            "fixed", "how the reversal's scale grows: not, with the unlearning epoch, or with progress", source=AUTHORS
        )
        scale: float = setting(
            0.1,
            "scale s of the reversed gradient, or what it grows to",
            source=AUTHORS,
            search=(1e-2, 2.0, "log"),
            ge=0,
        )
        gamma_rate: float = setting(10.0, "gamma at the end, for reversal = progress", source="DANN", gt=0)
        bias_lr_scale: float = setting(
            1.0, "learning rate of h over that of f and g", source=AUTHORS, search=(1.0, 30.0, "log"), gt=0
        )
        pretrain_share: float = setting(
            0.5, "share of the epochs that pre-train f and g", source="train.sh", ge=0, lt=1
        )
        tap: int | None = setting(None, "stage whose map f(x) is; None: the backbone's middle one", source="models.py")

    recipes = (
        Recipe(
            protocol="standard",
            dataset="cmnist",
            source="ours: two epochs of pre-training and three of unlearning at one rate, with a stronger reversal",
            config={"scale": 0.3, "pretrain_share": 0.4},
            tuned_on="val_unbiased",
            deviations=("scale 0.3 for 0.1, unlearning at lr 0.01 for 0.001: a hundred epochs have become three",),
        ),
        PAPER_RECIPE,
    )

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.bias = bias_predictor(task, self.net.tap_shape(config.tap))

    def stages(self) -> Sequence[Stage]:
        return unlearning_stages(self.config.pretrain_share)

    def optimizers(self) -> Mapping[str, Optim]:
        return unlearning_optimizers(self.net, self.bias, self.config.bias_lr_scale)

    def updates(self, clock: Clock) -> Sequence[Update]:
        if clock.stage == "pretrain":
            return [Update("pretrain", ("net",))]
        return [Update("classify", ("net",)), Update("unlearn", ("net", "bias"))]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        if loss == "pretrain":
            return {"loss": F.cross_entropy(wide(self.net(batch.image)), batch.label)}
        if loss == "classify":
            features, z = self.net.features_and_tap(batch.image, self.config.tap)
            task_loss = F.cross_entropy(wide(self.net.classify(features)), batch.label)
            negentropy = negative_entropy(self.bias(z))
            return {"loss": task_loss + self.config.lambda_entropy * negentropy, "entropy": -negentropy}
        z = self.net.tap(batch.image, self.config.tap)
        return {"loss": bias_loss(self.bias(reverse_gradient(z, self.reversal_scale(clock))), batch)}

    def reversal_scale(self, clock: Clock) -> float:
        """s: fixed, or s (2 / (1 + exp(-gamma)) - 1) with gamma the epoch of the stage, or gamma_rate x progress."""
        if self.config.reversal == "fixed":
            return float(self.config.scale)
        gamma = clock.epoch if self.config.reversal == "epoch" else self.config.gamma_rate * clock.progress
        return float(self.config.scale) * (2.0 / (1.0 + math.exp(-gamma)) - 1.0)


class AdaptiveLNL(LNL):
    """LNL whose gradient reversal grows from 0 with the epoch, so that h can converge first (SZU-AdvTech-2022/156).

    The scale is s (2 / (1 + exp(-gamma)) - 1) with gamma the epoch of the unlearning stage, counted from 0, and s = 1:
    in the first epoch f gets a zero gradient from ``unlearn`` and only h learns. Everything else is LNL.

    Differs from the report: its released code holds no schedule at all, so this is its formula. The paper's recipe has
    ``scale`` 0.1, the other reading (the schedule times the constant of the released code): with 1 the adversary gives
    up within four epochs (``docs/results/README.md``).
    """

    name = "lnl_adaptive"
    paper = Paper(
        title="Learning Not to Learn: Training Deep Neural Networks With Biased Data (reproduction report)",
        authors="SZU-AdvTech-2022/156",
        venue="report",
        year=2022,
        code="https://github.com/SZU-AdvTech-2022/156-Learning-Not-to-Learn-Training-Deep-Neural-Networks-with-Biased-Data",
    )

    class Config(LNL.Config):
        """LNL's settings, with a growing reversal."""

        reversal: Literal["fixed", "epoch", "progress"] = setting(
            "epoch", "how the reversal's scale grows: not, with the unlearning epoch, or with progress", source="report"
        )
        scale: float = setting(
            1.0, "what the reversal's scale grows to", source="report: from 0 to 1", search=(1e-2, 2.0, "log"), ge=0
        )

    recipes = (
        Recipe(
            protocol="standard",
            dataset="cmnist",
            source="ours: one epoch of pre-training and four of unlearning, the first of them without reversal",
            stages={"unlearn": Settings(lr=0.005)},
            config={"pretrain_share": 0.2, "bias_lr_scale": 3.0},
            tuned_on="val_unbiased",
            deviations=("unlearning at lr 0.005 for 0.001, three times that for h: a hundred epochs have become four",),
        ),
        PAPER_RECIPE.model_copy(
            update={
                "source": "SZU-AdvTech-2022/156: the authors' code, schedule and data with its own reversal",
                "config": {"scale": 0.1},
                "tuned_on": "val_unbiased",
                "deviations": (
                    *PAPER_RECIPE.deviations,
                    "pre-trained like LNL, although the released options default to no pre-training",
                    "the reversal grows to 0.1, the released code's constant: growing to 1 the adversary gives up",
                ),
            }
        ),
    )
