"""ERM: empirical risk minimisation, the baseline that learns the bias."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from debias_zoo.method import Batch, Clock, Method, Paper, Recipe, Settings

from .losses.precision import wide

BASELINE = Settings(
    epochs=100,
    batch_size=128,
    optimizer="sgd",
    lr=0.01,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="step",
    step_epochs=40,
    gamma=0.1,
)
"""LNL's baseline on Colored MNIST (authors' ``option.py``, ``baseline_train.sh``)."""


class ERM(Method):
    """Minimise the mean cross-entropy, L = mean_i CE(f(x_i), y_i), over all parameters; no bias labels."""

    name = "erm"
    version = 1
    is_baseline = True
    paper = Paper(
        title="Principles of Risk Minimization for Learning Theory",
        authors="Vapnik",
        venue="NeurIPS",
        year=1991,
    )
    recipes = (
        Recipe(
            protocol="paper",
            dataset="cmnist",
            source="Baseline of LNL: feidfoe/learning-not-to-learn, baseline_train.sh, option.py",
            backbone="lnl_convnet",
            normalize="cifar",
            settings=BASELINE,
        ),
    )

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(wide(self.net(batch.image)), batch.label)}
