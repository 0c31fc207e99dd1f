"""ReBias: Learning De-biased Representations with Biased Representations (Bahng et al., ICML 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from debias_zoo.method import (
    Backbones,
    Batch,
    Clock,
    Method,
    Optim,
    Paper,
    Recipe,
    Stage,
    Task,
    Update,
    View,
    setting,
)

from .losses.hsic import median_sigma, rbf_kernel, unbiased_hsic
from .losses.precision import wide
from .schedules import REBIAS_MNIST

SIGMA_BATCH = 256


class ReBias(Method):
    """Make the features independent of those of a network that can see nothing but the bias.

    f is the network that is wanted, g one of small capacity (1x1 convolutions see colour alone). HSIC is Song's
    unbiased estimator with RBF kernels on the pooled features. On every batch, in turn:

        biased:    L_g = CE(g(x), y) - lambda_inner HSIC(g_feat(x), stopgrad f_feat(x))                 steps g
        debiased:  L_f = CE(f(x), y) + lambda_outer HSIC(f_feat(x), stopgrad g_feat(x))                 steps f

    f's forward serves both updates, since ``biased`` does not move f; g is run again after its step. No bias labels,
    but the architecture of g must fit the kind of bias. Prediction: f(x).

    Differs from the paper: the other network is detached (its gradients were computed and thrown away) and each
    network's batch norm statistics move once for each of its own forwards in training mode (g's second forward uses
    batch statistics and moves them too, as published); each kernel gets its own network's radius (the authors' code
    swaps them in L_g); radii are re-estimated in eval mode without gradients. Radii are by default the median
    distance, since sigma = 1, the paper's on Biased-MNIST, saturates on unnormalised features.
    """

    name = "rebias"
    version = 2
    knows_bias_kind = True
    min_batch = 4
    moves_buffers = {"biased": ("net.",), "debiased": ("biased.",)}
    paper = Paper(
        title="Learning De-biased Representations with Biased Representations",
        authors="Bahng, Chun, Yun, Choo, Oh",
        venue="ICML",
        year=2020,
        arxiv="1910.02806",
        code="https://github.com/clovaai/rebias",
    )

    class Config(Method.Config):
        """Settings; each says where its default comes from."""

        lambda_inner: float = setting(1.0, "weight of HSIC in L_g", source="paper", search=(0.1, 10, "log"), ge=0)
        lambda_outer: float = setting(1.0, "weight of HSIC in L_f", source="paper", search=(0.1, 10, "log"), ge=0)
        sigma: Literal["median"] | Annotated[float, Field(gt=0)] = setting(
            "median", "radius of the kernels, or estimated", source="ours; paper: 1 on Biased-MNIST, median on ImageNet"
        )
        sigma_share: float = setting(0.05, "share of the images radii are estimated on", source="ours", gt=0, le=1)
        biased_updates: int = setting(1, "steps of g before one of f", source="paper", ge=1)
        biased_backbone: str = setting("simple_convnet", "architecture of g", source="paper")
        biased_options: dict[str, Any] = setting({"kernel": 1}, "options of g's architecture", source="paper")

    sigma: Tensor

    recipes = (
        Recipe(
            protocol="standard",
            dataset="cmnist",
            source="paper's architecture of g, at every second pixel: a flat colour is seen there as well",
            config={"biased_options": {"kernel": 1, "stride": 2}},
        ),
        Recipe(
            protocol="paper",
            dataset="cmnist",
            source="clovaai/rebias, main_biased_mnist.py",
            backbone="simple_convnet",
            backbone_options={"kernel": 7},
            normalize="half",
            settings=REBIAS_MNIST,
            config={"sigma": 1.0},
            deviations=("the paper's data set is Biased-MNIST, coloured in the background",),
        ),
        Recipe(
            protocol="paper",
            dataset="biased-mnist",
            source="clovaai/rebias, main_biased_mnist.py",
            backbone="simple_convnet",
            backbone_options={"kernel": 7},
            normalize="half",
            settings=REBIAS_MNIST,
            config={"sigma": 1.0},
        ),
    )

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.biased = backbones(config.biased_backbone, role="biased", **config.biased_options)
        start = 1.0 if config.sigma == "median" else float(config.sigma)
        self.register_buffer("sigma", torch.tensor([start, start]))  # of f, of g

    def optimizers(self) -> Mapping[str, Optim]:
        return {"net": Optim(self.net.parameters()), "biased": Optim(self.biased.parameters())}

    def updates(self, clock: Clock) -> Sequence[Update]:
        return [Update("biased", ("biased",))] * self.config.biased_updates + [Update("debiased", ("net",))]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        if "features" not in batch.scratch:
            batch.scratch["features"] = self.net.features(batch.image)
        own = batch.scratch["features"]
        if loss == "biased":
            theirs = self.biased.features(batch.image)
            dependence = self.dependence(own.detach(), theirs)
            task_loss = F.cross_entropy(wide(self.biased.classify(theirs)), batch.label)
            return {"loss": task_loss - self.config.lambda_inner * dependence, "hsic": dependence}
        with torch.no_grad():
            theirs = self.biased.features(batch.image)
        dependence = self.dependence(own, theirs)
        task_loss = F.cross_entropy(wide(self.net.classify(own)), batch.label)
        return {"loss": task_loss + self.config.lambda_outer * dependence, "hsic": dependence}

    def dependence(self, own: Float[Tensor, "b d"], theirs: Float[Tensor, "b e"]) -> Float[Tensor, ""]:
        """HSIC between f's features (B, d) and g's (B, d')."""
        return unbiased_hsic(rbf_kernel(own, self.sigma[0]), rbf_kernel(theirs, self.sigma[1]))

    def start_stage(self, stage: Stage, train: View) -> None:
        self._estimate_sigma(train)

    def end_epoch(self, clock: Clock, train: View) -> None:
        self._estimate_sigma(train)

    def _estimate_sigma(self, train: View) -> None:
        if self.config.sigma != "median":
            return
        own, theirs = [], []
        every = min(round(1.0 / self.config.sigma_share), len(train.labels) // SIGMA_BATCH)  # a batch at least
        for batch in train.batches(SIGMA_BATCH, every=max(1, every)):
            own.append(self.net.features(batch.image))
            theirs.append(self.biased.features(batch.image))
        self.sigma.copy_(torch.stack([median_sigma(own), median_sigma(theirs)]).clamp(min=1e-6))
