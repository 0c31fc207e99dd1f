"""LC: Avoiding Spurious Correlations via Logit Correction (Liu et al., ICLR 2023, arXiv:2212.01433)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from debias_zoo.method import Backbones, Batch, Clock, Method, Optim, Paper, Recipe, Settings, Task, Update, setting

from .losses.gce import generalized_cross_entropy
from .losses.precision import full_precision, wide
from .schedules import DFA_CMNIST

FLOOR = 1e-4
"""Added to a prior before its logarithm is taken (authors' loss.py)."""


class LC(Method):
    """Correct the logits by how a label goes with a pseudo attribute, on mixtures of two images of one class.

    The biased network f_B gives p = softmax(f_B(x) / tau) and each image's pseudo attribute a = argmax p. On every
    batch, both networks at once, p and P without gradients:

        P[y, a] <- running mean of p_i[y_i] over the images with y_i = y, a_i = a;     c_i = P[:, a_i]
        x^_i = s x_i + (1 - s) x_j,  c^_i = s c_i + (1 - s) c_j,  j random with y_j = y_i and a_j != y_j
        L_T = mean_i CE(f_T(x^_i) + log(c^_i + 1e-4), y_i)                                             steps f_T
        L_B = lambda mean_i q stopgrad(p_B(y_i|x_i))^q CE(f_B(x_i), y_i)                               steps f_B

    P is renewed before it is used; its columns are made to sum to 1. One s ~ U(1 - 2 mu, 1 - mu) a batch with
    mu = exp(-5 (1 - t / T)^2) / 2 at step t, 1/2 from T on. Where the batch has no image of the class with another
    attribute, j is any of the class. One backward of L_T + L_B. No bias labels. Prediction: f_T(x), not corrected.

    Differs from the paper: P is by default the first of four estimates in the authors' code, ``mv``, a running mean
    over single images (``batch`` is the mean of this batch alone, theirs on Waterbirds; the other two are left out);
    the ramp goes by steps, theirs on Waterbirds by epochs; without another attribute j is drawn with replacement; a
    column of zeros stays 0 instead of NaN; the exponent of P, 1 in all their runs, is left out.
    """

    name = "lc"
    version = 1
    moves_buffers = {"both": ("prior",)}
    paper = Paper(
        title="Avoiding spurious correlations via logit correction",
        authors="Liu, Zhang, Sekhar, Wu, Singhal, Fernandez-Granda",
        venue="ICLR",
        year=2023,
        arxiv="2212.01433",
        code="https://github.com/shengliu66/LC",
    )

    class Config(Method.Config):
        """Settings; each says where its default comes from."""

        average: Literal["mv", "batch"] = setting(
            "mv", "what P is: a running mean over images, or the mean of the batch", source="authors' train.py"
        )
        alpha: float = setting(
            0.995,
            "weight of the past in the running mean",
            source="authors' train.py",
            search=[0.5, 0.9, 0.995],
            ge=0,
            lt=1,
        )
        normalize: bool = setting(
            True, "whether columns of P sum to 1", source="paper; not on Colored MNIST, learner.py"
        )
        tau: float = setting(1.0, "temperature of p", source="authors' train.py", search=(0.1, 1.0, "log"), gt=0)
        ramp_share: float = setting(
            1 / 6, "share of the steps T in which mu rises", source="authors' README: 50 of 300 epochs", ge=0, le=1
        )
        lambda_biased: float = setting(1.0, "weight of L_B", source="authors' train.py", search=(0.1, 2.0, "log"), gt=0)
        biased_lr_scale: float = setting(
            0.1, "learning rate of f_B over that of f_T", source="authors' learner.py", gt=0
        )
        biased_weight_decay: float | None = setting(
            None, "weight decay of f_B; None: that of f_T", source="authors' learner.py; 0 on Waterbirds", ge=0
        )
        q: float = setting(0.7, "how much f_B favours what it gets right", source="authors' train.py", gt=0, le=1)

    prior: Tensor

    recipes = (
        Recipe(
            protocol="paper",
            dataset="cmnist-lff",
            source="shengliu66/LC: learner.py, train.py, module/mlp.py (pixels divided by 255 twice)",
            backbone="mlp",
            backbone_options={"width": [100, 100, 16]},
            normalize="bytes",
            settings=Settings(schedule="constant").over(DFA_CMNIST),
            config={"normalize": False},
            deviations=(
                "learning rate, steps and weight decay are DFA's; the ramp is Waterbirds'; LC's train.py has defaults "
                "alone: lr 1e-3, 300 epochs, no decay; like it, ours does not lower the rate",
                "the last, smaller batch of an epoch is trained on as well",
            ),
        ),
        Recipe(
            protocol="paper",
            dataset="waterbirds",
            source="shengliu66/LC: README.md, learner.py",
            backbone="resnet50",
            pretrained=True,
            normalize="imagenet",
            settings=Settings(
                epochs=300,
                batch_size=32,
                optimizer="sgd",
                lr=1e-3,
                momentum=0.0,
                weight_decay=1e-4,
                schedule="step",
                step_epochs=50,
                gamma=0.1,
            ),
            config={"average": "batch", "tau": 0.1, "lambda_biased": 2.0, "biased_weight_decay": 0.0, "q": 0.8},
        ),
    )

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.biased = backbones(role="biased")
        self.register_buffer("prior", torch.full((task.classes, task.classes), -1.0))  # P[y, a]; -1: never seen

    def optimizers(self) -> Mapping[str, Optim]:
        scale, decay = self.config.biased_lr_scale, self.config.biased_weight_decay
        biased = Optim(self.biased.parameters(), lr_scale=scale, weight_decay=decay)
        return {"biased": biased, "net": Optim(self.net.parameters())}

    def updates(self, clock: Clock) -> Sequence[Update]:
        return [Update("both", ("biased", "net"))]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        with full_precision(batch.image):  # what is mixed with what hangs on an argmax
            biased = wide(self.biased(batch.image))
        p = F.softmax(biased.detach() / self.config.tau, 1)  # (B, classes)
        attribute = p.argmax(1)
        self.estimate_prior(p.gather(1, batch.label.unsqueeze(1)).squeeze(1), batch.label, attribute)
        correction = self.correction()[attribute]  # (B, classes)
        partner = draw_partners(batch.label, attribute, batch.generator)
        mu = mixing_limit(clock, self.config.ramp_share)
        s = 1.0 - mu - mu * torch.rand((), generator=batch.generator, device=batch.image.device)
        image = s * batch.image + (1.0 - s) * batch.image[partner]
        correction = s * correction + (1.0 - s) * correction[partner]
        target = wide(self.net(image)) + torch.log(correction + FLOOR)
        task_loss = F.cross_entropy(target, batch.label)
        bias_loss = generalized_cross_entropy(biased, batch.label, self.config.q).mean()
        conflicting = (attribute != batch.label).float().mean()
        total = task_loss + self.config.lambda_biased * bias_loss
        return {"loss": total, "task_loss": task_loss, "conflicting": conflicting}

    def estimate_prior(self, p: Float[Tensor, " b"], label: Int[Tensor, " b"], attribute: Int[Tensor, " b"]) -> None:
        """Take p_i[y_i] of the images with these labels and attributes into P, in their order. (B,) each."""
        alpha, classes = self.config.alpha, self.task.classes
        cell = label * classes + attribute
        empty = torch.zeros(classes * classes, dtype=p.dtype, device=p.device)
        count = empty.index_add(0, cell, torch.ones_like(p))
        if self.config.average == "batch":
            found = empty.index_add(0, cell, p) / count.clamp(min=1)
        else:
            later = (cell.unsqueeze(1) == cell).triu(1).sum(1)  # images of the same cell still to come, (B,)
            first = empty.index_add(0, cell, torch.where(later == count[cell] - 1, p, 0.0))
            past = torch.where(self.prior.flatten() < 0, first, self.prior.flatten())
            found = alpha**count * past + empty.index_add(0, cell, (1.0 - alpha) * alpha**later * p)
            found = torch.where(count > 0, found, self.prior.flatten())
        self.prior.copy_(found.view_as(self.prior))

    def correction(self) -> Float[Tensor, "attributes classes"]:
        """(attributes, classes): P transposed, 0 where never seen."""
        prior = self.prior.clamp(min=0.0)
        if self.config.normalize:
            prior = prior / prior.sum(0, keepdim=True).clamp(min=torch.finfo(prior.dtype).tiny)
        return prior.T


def mixing_limit(clock: Clock, ramp_share: float) -> float:
    """mu: exp(-5 (1 - t / T)^2) / 2, T the steps of this share of training; 1/2 from then on."""
    rising = ramp_share * clock.steps
    left = max(0.0, 1.0 - clock.step / rising) if rising else 0.0
    return 0.5 * math.exp(-5.0 * left * left)


def draw_partners(
    label: Int[Tensor, " b"], attribute: Int[Tensor, " b"], generator: torch.Generator
) -> Int[Tensor, " b"]:
    """int64 (B,): for each image a random one of its class whose attribute is another, or else any of its class."""
    same = label.unsqueeze(1) == label  # (B, B)
    conflicting = same & (attribute != label)
    candidates = torch.where(conflicting.any(1, keepdim=True), conflicting, same)
    lots = torch.rand(candidates.shape, generator=generator, device=label.device)
    return torch.where(candidates, lots, -1.0).argmax(1)
