"""DFA: Disentangled Feature Augmentation (Lee et al., NeurIPS 2021, arXiv:2107.01372)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

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

from .losses.ema import RelativeDifficulty
from .losses.gce import generalized_cross_entropy
from .losses.precision import wide
from .schedules import DFA_CMNIST

CIFAR = "paper, Corrupted CIFAR-10 at 0.5 and 5 %"


class DFA(Method):
    """Two encoders, one for the label and one for the bias; then each image is shown with the bias of another.

    E_i and E_b are backbones without a head, C_i and C_b linear layers on both features side by side, sg stops the
    gradient: z_i = E_i(x), z_b = E_b(x). On every batch of the first stage:

        L_dis  = mean W CE(C_i([z_i, sg z_b]), y) + lambda_dis mean GCE(C_b([sg z_i, z_b]), y)      steps all

    and of the second, where z~_b and y~ are those of the images in a random order, L_dis + lambda_swap L_swap:

        L_swap = mean W CE(C_i([z_i, sg z~_b]), y) + lambda_swap_biased mean GCE(C_b([sg z_i, z~_b]), y~)

    W are LfF's weights, from running means of the cross-entropies of C_b and C_i in L_dis, and constant; GCE is
    q stopgrad(p_y)^q CE. One backward; E_i and C_i have one optimizer, E_b and C_b another, and the second stage keeps
    their state. No bias labels. Prediction: C_i([E_i(x), E_b(x)]).

    Differs from the paper: swapping starts with an epoch, not after 10,000 steps; GCE is the authors' code, q times the
    gradient of the generalised cross-entropy.
    """

    name = "dfa"
    version = 1
    moves_buffers = {"disentangle": ("difficulty.",), "swap": ("difficulty.",)}
    paper = Paper(
        title="Learning Debiased Representation via Disentangled Feature Augmentation",
        authors="Lee, Kim, Lee, Lee, Choo",
        venue="NeurIPS",
        year=2021,
        arxiv="2107.01372",
        code="https://github.com/kakaoenterprise/Learning-Debiased-Disentangled",
    )

    class Config(Method.Config):
        """Settings; each says where its default comes from."""

        lambda_dis: float = setting(1.0, "weight of C_b in L_dis", source=CIFAR, search=(1.0, 10.0, "log"), ge=0)
        lambda_swap: float = setting(1.0, "weight of L_swap", source=CIFAR, search=(0.1, 1.0, "log"), ge=0)
        lambda_swap_biased: float = setting(
            1.0, "weight of C_b in L_swap", source=CIFAR, search=(1.0, 10.0, "log"), ge=0
        )
        warmup_share: float = setting(
            0.2, "share of the epochs without swapping", source="paper: 10,000 of 50,000 steps", gt=0, lt=1
        )
        q: float = setting(0.7, "how much C_b favours what it gets right", source="paper", gt=0, le=1)
        alpha: float = setting(0.7, "weight of the past in the running means of W", source="LfF", ge=0, lt=1)

    recipes = (
        Recipe(
            protocol="paper",
            dataset="cmnist-lff",
            source="kakaoenterprise/Learning-Debiased-Disentangled: run_cmnist_ours.sh, learner.py, module/mlp.py "
            "(pixels divided by 255 twice)",
            backbone="mlp",
            backbone_options={"width": [100, 100, 16]},
            normalize="bytes",
            settings=DFA_CMNIST,
            stages={"disentangle": Settings(epochs=43, schedule="constant"), "swap": Settings(epochs=170)},
            config={"lambda_dis": 10.0, "lambda_swap_biased": 10.0},
            deviations=("the last, smaller batch of an epoch is trained on as well",),
        ),
    )

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        nn.Module.__init__(self)
        self.task, self.config = task, config
        self.net = backbones(head=False)  # E_i
        self.biased = backbones(role="biased", head=False)  # E_b
        self.classifier = nn.Linear(self.net.dim + self.biased.dim, task.classes)  # C_i
        self.biased_classifier = nn.Linear(self.net.dim + self.biased.dim, task.classes)  # C_b
        self.difficulty = RelativeDifficulty(task.train_size, task.classes, config.alpha)

    def stages(self) -> Sequence[Stage]:
        warmup = self.config.warmup_share
        return [Stage("disentangle", warmup), Stage("swap", 1.0 - warmup, fresh_optimizers=False)]

    def optimizers(self) -> Mapping[str, Optim]:
        return {
            "net": Optim([*self.net.parameters(), *self.classifier.parameters()]),
            "biased": Optim([*self.biased.parameters(), *self.biased_classifier.parameters()]),
        }

    def updates(self, clock: Clock) -> Sequence[Update]:
        return [Update(clock.stage, ("net", "biased"))]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        own, theirs = self.net.features(batch.image), self.biased.features(batch.image)
        conflict, align = self.logits(own, theirs)
        task_losses = F.cross_entropy(conflict, batch.label, reduction="none")
        bias_losses = F.cross_entropy(align, batch.label, reduction="none")
        weight = self.difficulty(bias_losses, task_losses, batch.label, batch.index)
        bias_loss = generalized_cross_entropy(align, batch.label, self.config.q).mean()
        total = (weight * task_losses).mean() + self.config.lambda_dis * bias_loss
        numbers = {"weight": weight.mean(), "bias_loss": bias_loss}
        if loss == "disentangle":
            return {"loss": total, **numbers}
        order = torch.randperm(len(own), generator=batch.generator, device=own.device)
        conflict, align = self.logits(own, theirs[order])
        task_losses = F.cross_entropy(conflict, batch.label, reduction="none")
        bias_loss = generalized_cross_entropy(align, batch.label[order], self.config.q).mean()
        swapped = (weight * task_losses).mean() + self.config.lambda_swap_biased * bias_loss
        return {"loss": total + self.config.lambda_swap * swapped, **numbers, "swapped": swapped}

    def logits(
        self, own: Float[Tensor, "b d"], theirs: Float[Tensor, "b d"]
    ) -> tuple[Float[Tensor, "b classes"], Float[Tensor, "b classes"]]:
        """(B, classes) of C_i and of C_b, each with gradients for its own encoder's features alone. (B, d) each."""
        conflict = self.classifier(torch.cat([own, theirs.detach()], 1))
        align = self.biased_classifier(torch.cat([own.detach(), theirs], 1))
        return wide(conflict), wide(align)

    def features(self, image: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b d"]:
        return torch.cat([self.net.features(image), self.biased.features(image)], 1)

    def predict(self, image: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b classes"]:
        logits: Tensor = self.classifier(self.features(image))
        return logits
