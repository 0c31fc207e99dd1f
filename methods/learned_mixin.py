"""LearnedMixin(+H): Don't Take the Easy Way Out (Clark, Yatskar, Zettlemoyer, EMNLP 2019, arXiv:1909.03683)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
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

from .losses.bias_heads import negative_entropy
from .losses.precision import wide
from .schedules import REBIAS_MNIST


class LearnedMixin(Method):
    """Train beside a frozen network that sees the bias alone, so that what it explains need not be learnt.

    g is of small capacity (1x1 convolutions see colour alone) and learns first; then the network f that is wanted
    learns with g's logits, let in by a gate s(x) > 0 that reads f's features:

        stage biased:    L_g = CE(g(x), y)                                                            steps g
        stage debiased:  L = CE(f(x) + s g(x), y) + lambda mean H(softmax(s g(x))),
                         s = softplus(w' f_feat(x) + c)                                               steps f, w and c

    g is constant and in eval mode in the second stage; the entropy H keeps the gate from closing (lambda = 0: without
    the H of the name). The gradient of s reaches f. No bias labels, but the architecture of g must fit the kind of
    bias. Prediction: f(x) alone, which may be wrong where g is right.

    Differs from the paper: logits stand for log-probabilities (both terms are blind to a constant), and g is a network
    on the image (ReBias) instead of a model of a part of a text. Differs from ReBias' code: the gate is trained, as the
    paper writes (there it reaches no optimizer), and the frozen g does not go on moving its batch norm statistics.
    """

    name = "learned_mixin"
    version = 1
    knows_bias_kind = True
    paper = Paper(
        title="Don't Take the Easy Way Out: Ensemble Based Methods for Avoiding Known Dataset Biases",
        authors="Clark, Yatskar, Zettlemoyer",
        venue="EMNLP",
        year=2019,
        arxiv="1909.03683",
        code="https://github.com/chrisc36/debias",
    )

    class Config(Method.Config):
        """Settings; each says where its default comes from."""

        lambda_entropy: float = setting(
            0.36, "weight of the entropy H of the gated g; 0: none", source="ReBias", search=(1e-2, 3.0, "log"), ge=0
        )
        biased_share: float = setting(
            0.06, "share of the epochs that train g", source="ReBias: 5 before 80 epochs", gt=0, lt=1
        )
        biased_backbone: str = setting("simple_convnet", "architecture of g", source="ReBias")
        biased_options: dict[str, Any] = setting({"kernel": 1}, "options of g's architecture", source="ReBias")

    recipes = (
        Recipe(
            protocol="standard",
            dataset="cmnist",
            source="ReBias' architecture of g, at every second pixel: a flat colour is seen there as well",
            config={"biased_options": {"kernel": 1, "stride": 2}},
        ),
        Recipe(
            protocol="paper",
            dataset="biased-mnist",
            source="LearnedMixin of ReBias' comparison: clovaai/rebias, main_biased_mnist.py, comparison_methods.py",
            backbone="simple_convnet",
            backbone_options={"kernel": 7},
            normalize="half",
            settings=REBIAS_MNIST,
            stages={"biased": Settings(epochs=5), "debiased": Settings(epochs=80)},
            deviations=("the gate is trained", "the frozen g runs in eval mode"),
        ),
    )

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.biased = backbones(config.biased_backbone, role="biased", **config.biased_options)
        self.gate = nn.Linear(self.net.dim, 1)

    def stages(self) -> Sequence[Stage]:
        share = self.config.biased_share
        return [Stage("biased", share), Stage("debiased", 1.0 - share)]

    def optimizers(self) -> Mapping[str, Optim]:
        return {
            "biased": Optim(self.biased.parameters()),
            "debiased": Optim([*self.net.parameters(), *self.gate.parameters()]),
        }

    def updates(self, clock: Clock) -> Sequence[Update]:
        return [Update(clock.stage, (clock.stage,))]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        self.biased.train(loss == "biased")
        if loss == "biased":
            return {"loss": F.cross_entropy(wide(self.biased(batch.image)), batch.label)}
        with torch.no_grad():
            theirs = self.biased(batch.image)
        own = self.net.features(batch.image)
        return mixed_losses(self.net.classify(own), theirs, self.gate(own), batch.label, self.config.lambda_entropy)


def mixed_losses(
    own: Float[Tensor, "b c"],
    theirs: Float[Tensor, "b c"],
    gate: Float[Tensor, "b 1"],
    label: Int[Tensor, " b"],
    weight: float,
) -> dict[str, Float[Tensor, ""]]:
    """``loss`` CE(own + s theirs, y) + weight H(softmax(s theirs)), s = softplus(gate); its mean as ``gate``.

    own, theirs: (B, classes) logits of f and g. gate: (B, 1), before the softplus. label: int64 (B,).
    """
    openness = F.softplus(wide(gate))  # (B, 1)
    gated = openness * wide(theirs)
    loss = F.cross_entropy(wide(own) + gated, label)
    if weight:
        loss = loss - weight * negative_entropy([gated])
    return {"loss": loss, "gate": openness.mean()}
