"""EnD: Entangling and Disentangling deep representations (Tartaglione et al., CVPR 2021, arXiv:2103.02023)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from debias_zoo.method import Backbones, Batch, Clock, Method, Paper, Recipe, Task, setting

from .losses.groups import batch_bias
from .losses.precision import full_precision, wide
from .schedules import REBIAS_MNIST


class EnD(Method):
    """Disentangle images of one bias and entangle images of one class that differ in their bias.

    z are the pooled features, scaled to length 1, which the classifier reads too. Over the pairs i > j of a batch:

        R_perp = 1/M sum_b | sum_{b_i = b_j = b} z_i z_j |                M  = pairs with b_i = b_j
        R_par  = 1 - 1/M' sum_{y_i = y_j, b_i != b_j} (1 + z_i z_j) / 2   M' = pairs of that sum; without any, R_par = 0
        L = CE(f(z), y) + alpha R_perp + beta R_par                       steps the network, by all three terms

    Reads bias labels of the training split. Prediction: f(z).

    The paper's net ends in tanh, not ReLU, so that features can point apart; here a backbone that is a plain stack
    ending in ReLU gets a tanh there, others stay as they are. Differs from the authors' code: it counts a pair of
    R_par only where the later image has the smaller bias, about half of them; here all count, as in the paper.
    """

    name = "end"
    version = 1
    sees_bias = True
    needs_conflicting = True
    paper = Paper(
        title="EnD: Entangling and Disentangling deep representations for bias correction",
        authors="Tartaglione, Barbano, Grangetto",
        venue="CVPR",
        year=2021,
        arxiv="2103.02023",
        code="https://github.com/EIDOSLAB/entangling-disentangling-bias",
    )

    class Config(Method.Config):
        """Settings; each says where its default comes from."""

        alpha: float = setting(0.1, "weight of R_perp", source="authors' configs.py", search=(1e-2, 50.0, "log"), ge=0)
        beta: float = setting(0.1, "weight of R_par", source="authors' configs.py", search=(1e-2, 50.0, "log"), ge=0)

    recipes = (
        Recipe(
            protocol="paper",
            dataset="biased-mnist",
            source="EIDOSLAB/entangling-disentangling-bias: configs.py, EnD_rebias_mnist_sweep.py",
            backbone="simple_convnet",
            backbone_options={"kernel": 7},
            normalize="half",
            settings=REBIAS_MNIST,
            deviations=(
                "alpha = beta = 0.1 of the released options: the published numbers are those of a sweep over both, up "
                "to 1 (rho 0.999: up to 50), chosen on unbiased validation labels",
            ),
        ),
    )

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        stages = getattr(self.net.model, "stages", None)
        if stages is not None and isinstance(stages[-1], nn.Sequential) and isinstance(stages[-1][-1], nn.ReLU):
            stages[-1][-1] = nn.Tanh()

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        z = self.features(batch.image)
        task_loss = F.cross_entropy(wide(self.net.classify(z)), batch.label)
        apart, together = regularisers(z, batch.label, batch_bias(batch), self.task.biases)
        total = task_loss + self.config.alpha * apart + self.config.beta * together
        return {"loss": total, "apart": apart, "together": together}

    def features(self, image: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b d"]:
        return F.normalize(wide(self.net.features(image)), dim=1)

    def predict(self, image: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b classes"]:
        return self.net.classify(self.features(image))


def regularisers(
    z: Float[Tensor, "b d"], label: Int[Tensor, " b"], bias: Int[Tensor, " b"], biases: int
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """R_perp and R_par of z (B, d) of length 1, label and bias int64 (B,)."""
    with full_precision(z):
        gram = z @ z.T  # (B, B)
    below = torch.ones_like(gram).tril(-1)
    same_bias = (bias[:, None] == bias) * below
    conflicting = (label[:, None] == label) * below - (label[:, None] == label) * same_bias
    by_bias = gram.new_zeros(biases).index_add(0, bias, (gram * same_bias).sum(1))
    apart = by_bias.abs().sum() / same_bias.sum().clamp(min=1)
    together = (conflicting * (1.0 - gram) / 2.0).sum() / conflicting.sum().clamp(min=1)
    return apart, together
