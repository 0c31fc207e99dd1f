"""LfF: Learning from Failure (Nam et al., NeurIPS 2020, arXiv:2007.02561)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from debias_zoo.method import Backbones, Batch, Clock, Method, Optim, Paper, Recipe, Task, Update, setting

from .losses.ema import RelativeDifficulty
from .losses.gce import generalized_cross_entropy
from .losses.precision import wide
from .schedules import LFF_CMNIST


class LfF(Method):
    """Train a network to be biased, and beside it one that is shown what the biased one finds hard.

    f_B and f_D have the same architecture. What is easy is learnt first, and the bias is: f_B's loss favours images it
    already gets right. On every batch, both at once:

        L_B = mean_i q stopgrad(p_B(y_i|x_i))^q CE(f_B(x_i), y_i)                                      steps f_B
        L_D = mean_i stopgrad(W_i) CE(f_D(x_i), y_i)                                                   steps f_D
        W_i = l_B,i / (l_B,i + l_D,i),  l_i = m_i / max_{j: y_j = y_i} m_j,
        m_i <- CE_i at the first visit of image i, then alpha m_i + (1 - alpha) CE_i, before W is taken

    with the running means m kept for every training image and either network; those never seen count as 0 in the
    maximum, which is over the training split. One backward of L_B + L_D. No bias labels. Prediction: f_D(x).

    Differs from the paper: L_B is the authors' code, q times the gradient of the generalised cross-entropy; a class
    whose means are all 0 gives a weight of 0 instead of NaN.
    """

    name = "lff"
    version = 1
    moves_buffers = {"both": ("difficulty.",)}
    paper = Paper(
        title="Learning from Failure: Training Debiased Classifier from Biased Classifier",
        authors="Nam, Cha, Ahn, Lee, Shin",
        venue="NeurIPS",
        year=2020,
        arxiv="2007.02561",
        code="https://github.com/alinlab/LfF",
    )

    class Config(Method.Config):
        """Settings; each says where its default comes from."""

        q: float = setting(
            0.7, "how much f_B favours what it gets right", source="paper", search=(0.1, 0.9, "linear"), gt=0, le=1
        )
        alpha: float = setting(0.7, "weight of the past in the running means", source="authors' train.py", ge=0, lt=1)

    recipes = (
        Recipe(
            protocol="paper",
            dataset="cmnist-lff",
            source="alinlab/LfF: config.py, train.py, module/mlp.py (pixels divided by 255 twice)",
            backbone="mlp",
            backbone_options={"depth": 3, "width": 100},
            normalize="bytes",
            settings=LFF_CMNIST,
        ),
    )

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.biased = backbones(role="biased")
        self.difficulty = RelativeDifficulty(task.train_size, task.classes, config.alpha)

    def optimizers(self) -> Mapping[str, Optim]:
        return {"biased": Optim(self.biased.parameters()), "net": Optim(self.net.parameters())}

    def updates(self, clock: Clock) -> Sequence[Update]:
        return [Update("both", ("biased", "net"))]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        biased, debiased = wide(self.biased(batch.image)), wide(self.net(batch.image))
        easy, hard = (F.cross_entropy(logits, batch.label, reduction="none") for logits in (biased, debiased))
        weight = self.difficulty(easy, hard, batch.label, batch.index)
        bias_loss = generalized_cross_entropy(biased, batch.label, self.config.q).mean()
        task_loss = (weight * hard).mean()
        return {"loss": bias_loss + task_loss, "task_loss": task_loss, "weight": weight.mean()}
