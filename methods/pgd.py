"""PGD: Per-sample Gradient-based Debiasing (Ahn, Kim, Yun, ICLR 2023, arXiv:2205.15704)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from debias_zoo.method import (
    Backbones,
    Batch,
    Clock,
    Method,
    Paper,
    Stage,
    Task,
    Update,
    View,
    Weights,
    setting,
)

from .losses.gce import generalized_cross_entropy
from .losses.precision import wide


class PGD(Method):
    """Train a biased network, then go on with images drawn in proportion to the norm of their gradient.

    Both stages train all parameters of one network f; h are its pooled features, W its last layer:

        biased:    L = mean_i q stopgrad(p(y_i|x_i))^q CE(f(x_i), y_i),  each image once an epoch
        between:   score_i = ||d CE(f(x_i), y_i) / dW|| = ||softmax(f(x_i)) - e_{y_i}|| ||h_i||,  in eval mode
        debiased:  L = mean_i CE(f(x_i), y_i),  images drawn with replacement, image i with probability
                   (1 - u) score_i / sum_j score_j + u / N

    The gradient of a linear layer's weight is an outer product, and so its norm is one of norms: no backward pass is
    needed. The second stage starts from the biased weights, which the authors' code copies into a second network, with
    a fresh optimizer. No bias labels. Prediction: f(x) of the second stage.

    Differs from the paper: u is ours, 0 is the paper. Its augmentation keeps the biased stage from memorising images;
    without any, the scores of all but a few fall to 0, and what is never drawn again is forgotten. Scores are of the
    images as they are. The last epoch is kept, not the best by validation loss. The biased loss is LfF's form, as in
    the authors' code.
    """

    name = "pgd"
    version = 1
    paper = Paper(
        title="Mitigating Dataset Bias by Using Per-sample Gradient",
        authors="Ahn, Kim, Yun",
        venue="ICLR",
        year=2023,
        arxiv="2205.15704",
        code="https://github.com/sumyeongahn/PGD",
    )

    class Config(Method.Config):
        """Settings; each says where its default comes from."""

        q: float = setting(0.7, "how much the biased stage favours what is right already", source="paper", gt=0, le=1)
        norm: float = setting(
            2.0, "p of the p-norm of gradients", source="paper; authors' train.py: 0.7", search=[0.7, 1.0, 2.0], gt=0
        )
        uniform_share: float = setting(
            0.1,
            "share u of the draws that is uniform",
            source="ours; paper: 0",
            search=(0.0, 0.3, "linear"),
            ge=0,
            le=1,
        )
        biased_share: float = setting(0.5, "share of the epochs of the biased stage", source="paper", gt=0, lt=1)

    score: Tensor

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.register_buffer("score", torch.zeros(task.train_size))

    def stages(self) -> Sequence[Stage]:
        return [Stage("biased", self.config.biased_share), Stage("debiased", 1.0 - self.config.biased_share)]

    def updates(self, clock: Clock) -> Sequence[Update]:
        return [Update(clock.stage, ("main",))]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        logits = wide(self.net(batch.image))
        if loss == "biased":
            return {"loss": generalized_cross_entropy(logits, batch.label, self.config.q).mean()}
        return {"loss": F.cross_entropy(logits, batch.label)}

    def start_stage(self, stage: Stage, train: View) -> None:
        if stage.name == "debiased":
            for batch in train.batches(128):
                self.score[batch.index] = self.gradient_norms(batch).clamp(min=1e-8)

    def gradient_norms(self, batch: Batch) -> Float[Tensor, " b"]:
        """(B,): of each image's cross-entropy, with respect to the weight of the last layer."""
        features = self.net.features(batch.image)
        residual = F.softmax(wide(self.net.classify(features)), 1) - F.one_hot(batch.label, self.task.classes)
        at_logits, at_features = (x.norm(self.config.norm, 1) for x in (residual, wide(features)))
        norms: Tensor = at_logits * at_features
        return norms

    def sampling(self) -> Weights | None:
        if not bool(self.score.any()):
            return None  # the biased stage
        uniform = self.config.uniform_share
        return Weights((1.0 - uniform) * self.score / self.score.sum() + uniform / len(self.score))
