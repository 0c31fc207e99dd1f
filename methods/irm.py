"""IRM: Invariant Risk Minimization, as IRMv1 (Arjovsky, Bottou, Gulrajani, Lopez-Paz, 2019, arXiv:1907.02893)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from debias_zoo.method import Batch, Clock, Method, Paper, Settings, Stage, setting

from .losses.groups import batch_bias, group_means
from .losses.irm import scale_gradient
from .losses.precision import wide

CLIPPED = Settings(clip=1.0)
"""The penalty is quadratic in the logits: unlike cross-entropy's, its gradient grows with them, and SGD diverges."""


class IRM(Method):
    """Learn features on which one classifier is optimal in every environment; an environment is a value of the bias.

    R_e is the mean CE of environment e on the logits w z, w a scalar, and g_e its derivative at w = 1: in closed form
    the mean of sum_c p_c z_c - z_y, p = softmax(z), an ordinary function of z. Means are over what the batch holds:

        L = (mean_e R_e + lambda_t mean_e P_e) / max(1, lambda_t)                         steps the network
        squared:   P_e = g_e^2
        unbiased:  P_e = g_e(even rows of e) g_e(odd rows of e), where e has two images   (DomainBed)

    lambda_t is 1 in a first stage and lambda in a second one, which begins with a fresh optimizer (DomainBed); the
    division keeps the gradient's size. Reads bias labels of the training split. Prediction: f(x).

    Differs from the paper: gradients are clipped to norm 1 (``irm.train.clip``), or SGD diverges. As in its code the
    penalty is squared by default, which overestimates g_e^2 in small batches. The unbiased form may be negative and has
    no lower bound on a finite training split: with a large lambda and few images a network learns to disagree with
    itself there.
    """

    name = "irm"
    version = 1
    sees_bias = True
    needs_conflicting = True
    expected_failed = {
        "groups": "the penalty is a product of derivatives over an environment: raising the loss of one group changes "
        "the weights of all groups with its bias, and that is the method"
    }
    paper = Paper(
        title="Invariant Risk Minimization",
        authors="Arjovsky, Bottou, Gulrajani, Lopez-Paz",
        venue="arXiv",
        year=2019,
        arxiv="1907.02893",
        code="https://github.com/facebookresearch/InvariantRiskMinimization",
    )

    class Config(Method.Config):
        """Settings; each says where its default comes from."""

        penalty_weight: float = setting(
            1e2, "lambda, after annealing", source="DomainBed", search=(1e-1, 1e5, "log"), ge=0
        )
        penalty: Literal["squared", "unbiased"] = setting(
            "squared", "square of one derivative, or product of those of two halves", source="authors' code"
        )
        anneal_share: float = setting(
            0.1,
            "share of the epochs with lambda = 1",
            source="DomainBed: 500 of 5000 steps",
            search=(0.0, 0.9, "linear"),
            ge=0,
            lt=1,
        )

    def stages(self) -> Sequence[Stage]:
        share = self.config.anneal_share
        penalise = Stage("penalise", 1.0 - share, CLIPPED)
        return [Stage("anneal", share, CLIPPED), penalise] if share else [penalise]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        logits, bias = wide(self.net(batch.image)), batch_bias(batch)
        losses = F.cross_entropy(logits, batch.label, reduction="none")
        risks, sizes = group_means(losses, bias, self.task.biases)
        risk = risks.sum() / (sizes > 0).sum()
        penalise = squares if self.config.penalty == "squared" else half_products
        penalties, measured = penalise(scale_gradient(logits, batch.label), bias, self.task.biases)
        penalty = penalties.sum() / measured.sum().clamp(min=1)
        weight = 1.0 if clock.stage == "anneal" else self.config.penalty_weight
        return {"loss": (risk + weight * penalty) / max(1.0, weight), "risk": risk, "penalty": penalty}


def squares(
    gradient: Float[Tensor, " b"], environment: Int[Tensor, " b"], count: int
) -> tuple[Float[Tensor, " {count}"], Bool[Tensor, " {count}"]]:
    """For each environment the square of the mean over its rows, and whether it has any; both (E,).

    gradient: (B,). environment: int64 (B,), in 0 ... count - 1.
    """
    means, sizes = group_means(gradient, environment, count)
    return means.square(), sizes > 0


def half_products(
    gradient: Float[Tensor, " b"], environment: Int[Tensor, " b"], count: int
) -> tuple[Float[Tensor, " {count}"], Bool[Tensor, " {count}"]]:
    """For each environment the mean over its even rows times that over its odd rows, and whether it has both."""
    member = environment.unsqueeze(1) == torch.arange(count, device=environment.device)  # (B, E)
    rank = member.cumsum(0).gather(1, environment.unsqueeze(1)).squeeze(1) - 1  # of a row in its environment, (B,)
    means, sizes = group_means(gradient, 2 * environment + rank % 2, 2 * count)
    return means[0::2] * means[1::2], sizes[1::2] > 0  # a mean over no row is 0
