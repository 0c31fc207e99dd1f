"""Upweight: RWG of Simple data balancing (Idrissi et al., CLeaR 2022, arXiv:2110.14503), UW of Group-DRO's paper."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from debias_zoo.method import (
    Backbones,
    Batch,
    Clock,
    Method,
    Paper,
    Recipe,
    Settings,
    Stage,
    Task,
    View,
    Weights,
    setting,
)

from .losses.groups import balancing_weights, training_counts, view_groups
from .losses.precision import wide
from .schedules import BALANCING, CELEBA, WATERBIRDS


class Upweight(Method):
    """Make all groups (label, bias) count alike, by drawing the images of small groups more often or by weighting them.

    n_k are the training images of the group k of image i, N all of them, G the groups that have any:

        sampling:  N draws an epoch with replacement, P(i) ~ 1 / n_k;  L = mean_i CE(f(x_i), y_i)     steps the network
        weights:   every image once an epoch;  L = mean_i N / (G n_k) CE(f(x_i), y_i)                 steps the network

    Both have the same expected loss, but not the same variance nor, with batch norm, the same statistics. Reads bias
    labels of the training split. Prediction: f(x).

    The paper's method is ``sampling``; ``weights`` is what others call by the same name, here with mean 1 over the
    images, so that the learning rate means the same in both.
    """

    name = "upweight"
    version = 1
    sees_bias = True
    needs_conflicting = True
    paper = Paper(
        title="Simple data balancing achieves competitive worst-group-accuracy",
        authors="Idrissi, Arjovsky, Pezeshki, Lopez-Paz",
        venue="CLeaR",
        year=2022,
        arxiv="2110.14503",
        code="https://github.com/facebookresearch/BalancingGroups",
    )

    class Config(Method.Config):
        """Settings; each says where its default comes from."""

        form: Literal["sampling", "weights"] = setting(
            "sampling", "draw small groups more often, or weight their losses", source="paper"
        )

    recipes = (
        Recipe(
            protocol="paper",
            dataset="waterbirds",
            source="facebookresearch/BalancingGroups, train.py: 360 epochs; Group-DRO, appendix C.2",
            backbone="resnet50",
            pretrained=True,
            normalize="imagenet",
            settings=Settings(epochs=360).over(WATERBIRDS),
            deviations=(BALANCING,),
        ),
        Recipe(
            protocol="paper",
            dataset="celeba",
            source="facebookresearch/BalancingGroups, train.py: 60 epochs; Group-DRO, appendix C.2",
            backbone="resnet50",
            pretrained=True,
            normalize="imagenet",
            settings=Settings(epochs=60).over(CELEBA),
            deviations=(BALANCING,),
        ),
    )

    weight: Tensor

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.register_buffer("weight", torch.ones(task.train_size))

    def start_stage(self, stage: Stage, train: View) -> None:
        counts = training_counts(self.task)
        weight = balancing_weights(view_groups(train, self.task), len(counts))
        self.weight.copy_(weight / (counts > 0).sum())  # mean 1 over the images

    def sampling(self) -> Weights | None:
        return Weights(self.weight) if self.config.form == "sampling" else None

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        logits = wide(self.net(batch.image))
        if self.config.form == "sampling":
            return {"loss": F.cross_entropy(logits, batch.label)}
        losses = F.cross_entropy(logits, batch.label, reduction="none")
        return {"loss": (self.weight[batch.index] * losses).mean()}
