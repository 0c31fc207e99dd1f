"""Spectral decoupling: Gradient Starvation (Pezeshki et al., NeurIPS 2021, arXiv:2011.09468)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from debias_zoo.errors import ZooError
from debias_zoo.method import Backbones, Batch, Clock, Method, Paper, Recipe, Task, setting

from .losses.precision import wide
from .schedules import SHRESTHA_CELEBA


class SpectralDecoupling(Method):
    """Keep logits small, so that no feature that is learnt first starves the others of gradient; no bias labels.

    All parameters are trained by one loss on the logits z = f(x):

        L = mean_i CE(z_i, y_i) + lambda/2 ||z_i||^2
        L = mean_i CE(z_i, y_i) + lambda/2 (z_iy - gamma_y)^2        with a target gamma for each class

    Differs from the paper: it has one logit and a logistic loss. For several classes the first form takes the norm over
    all logits, the second, the logit of the true class (Shrestha et al., WACV 2022).
    """

    name = "spectral_decoupling"
    version = 1
    paper = Paper(
        title="Gradient Starvation: A Learning Proclivity in Neural Networks",
        authors="Pezeshki, Kaba, Bengio, Courville, Precup, Lajoie",
        venue="NeurIPS",
        year=2021,
        arxiv="2011.09468",
        code="https://github.com/mohammadpz/Gradient_Starvation",
    )

    class Config(Method.Config):
        """Settings; each says where its default comes from."""

        lambda_logits: float = setting(
            0.1,
            "weight of the penalty",
            source="ours; its on CelebA, for another form",
            search=(1e-3, 10.0, "log"),
            ge=0,
        )
        gamma: tuple[float, ...] = setting(
            (), "targets of the true class's logit, one a class; none: the norm of all logits", source="paper, CMNIST"
        )

    gamma: Tensor

    recipes = (
        Recipe(
            protocol="paper",
            dataset="celeba",
            source="Shrestha et al.: erobic/bias-mitigators, spectral_decoupling_celebA.sh, celebA_experiments.py",
            backbone="resnet18",
            normalize="imagenet",
            settings=SHRESTHA_CELEBA,
            config={"lambda_logits": 10.0, "gamma": (0.44, 2.5)},
            deviations=("they report the mean of the epochs 40 to 50",),
        ),
    )

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        if len(config.gamma) not in (0, task.classes):
            raise ZooError(
                f"spectral_decoupling: gamma has {len(config.gamma)} targets for {task.classes} classes; give one a "
                "class, or none"
            )
        self.register_buffer("gamma", torch.tensor(config.gamma))

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        logits = wide(self.net(batch.image))
        penalty = self.squares(logits, batch.label).mean()
        task_loss = F.cross_entropy(logits, batch.label)
        return {"loss": task_loss + 0.5 * self.config.lambda_logits * penalty, "penalty": penalty}

    def squares(self, logits: Float[Tensor, "b c"], label: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """(B,): ||z||^2, or (z_y - gamma_y)^2. logits: (B, classes). label: int64 (B,)."""
        if not self.config.gamma:
            return logits.square().sum(1)
        return (logits.gather(1, label.unsqueeze(1)).squeeze(1) - self.gamma[label]).square()
