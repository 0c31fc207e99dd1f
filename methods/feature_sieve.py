"""Feature sieve, SiFeR (Tiwari, Shenoy: Overcoming Simplicity Bias, ICML 2023, arXiv:2301.13293)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
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
    Task,
    Update,
    setting,
)

from .losses.bias_heads import uniform_cross_entropy
from .losses.precision import wide
from .losses.readout import early_tap, readout
from .schedules import CELEBA, WATERBIRDS

PARAMS = "authors' params.py"


class FeatureSieve(Method):
    """Find the features that an early layer computes for the label, and make that layer forget them again and again.

    f is the network, l its layers below the tap, a an auxiliary net on the map l(x). On every batch, in turn:

        identify:  L_a = CE(y, a(stopgrad l(x)))                                                          steps a
        forget:    L_f = mean_i -1/C sum_c log softmax(a(l(x_i)))_c    every ``forget_every``-th step     steps l
        main:      L = CE(y, f(x))                                                                        steps f

    ``forget`` reads the a that ``identify`` has just moved and steps l alone, by plain SGD. One forward serves all that
    comes before its weights move: l's serves ``identify`` and ``forget``, or ``identify`` and ``main``; after
    ``forget`` f is run again. No bias labels. Prediction: f(x), without a.

    Differs from the paper: as in its code, three losses with steps of their own, not one sum (in which a would learn
    the label and to be ignorant of it at once); the batch norm of f runs in training mode unless ``freeze_norm``, which
    is the code's and meant for pretrained nets; a is as wide as the map unless ``aux_width`` says otherwise, since 256
    channels cost many times as much as a small f; on taps without pixels a is a multi-layer perceptron. As published,
    the batch norm of a runs in training mode in ``forget``.
    """

    name = "feature_sieve"
    version = 1
    moves_buffers = {"identify": ("net.",), "forget": ("aux.",)}
    paper = Paper(
        title="Overcoming Simplicity Bias in Deep Networks using a Feature Sieve",
        authors="Tiwari, Shenoy",
        venue="ICML",
        year=2023,
        arxiv="2301.13293",
        code="https://github.com/google-research/google-research/tree/master/sifer",
    )

    class Config(Method.Config):
        """Settings; each says where its default comes from."""

        forget_every: int = setting(
            5, "steps from one forgetting to the next; 0: never, which is ERM", source=PARAMS, search=[0, 5, 15], ge=0
        )
        forget_lr_scale: float = setting(
            10.0, "learning rate of forgetting over that of f", source=PARAMS, search=(0.1, 100.0, "log"), gt=0
        )
        aux_lr_scale: float = setting(
            10.0, "learning rate of a over that of f", source=PARAMS, search=(0.1, 100.0, "log"), gt=0
        )
        tap: int | None = setting(
            None, "stage that a reads; None: the one before the middle, layer1 of a ResNet", source=PARAMS, ge=0
        )
        aux_depth: int = setting(
            2, "blocks of a; 0: linear on the pooled map", source=PARAMS, search=[0, 1, 2, 3, 4, 5], ge=0
        )
        aux_width: int | None = setting(
            None, "channels of a; None: as many as the map's", source="ours; authors: 256 on 64 channels", ge=1
        )
        freeze_norm: bool = setting(False, "batch norm of f in eval mode, for pretrained nets", source="ours")

    recipes = (
        Recipe(
            protocol="paper",
            dataset="waterbirds",
            source="google-research/sifer: params.py, train.py",
            backbone="resnet18",
            pretrained=True,
            normalize="imagenet",
            settings=Settings(epochs=67, batch_size=32).over(WATERBIRDS),
            config={"aux_width": 256, "freeze_norm": True},
            deviations=("10,001 steps as 67 epochs, the last one kept",),
        ),
        Recipe(
            protocol="paper",
            dataset="celeba",
            source="google-research/sifer: params.py, train.py",
            backbone="resnet18",
            pretrained=True,
            normalize="imagenet",
            settings=Settings(epochs=6, batch_size=32, lr=1e-3).over(CELEBA),
            config={"aux_width": 256, "freeze_norm": True},
            deviations=("30,001 steps as 6 epochs, the last one kept",),
        ),
    )

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.tap = early_tap(self.net, config.tap)
        shape = self.net.tap_shape(self.tap)
        self.aux = readout(shape, task.classes, config.aux_depth, config.aux_width or shape[0])

    def optimizers(self) -> Mapping[str, Optim]:
        below, scale = self.net.parameters_below(self.tap), self.config.forget_lr_scale
        return {
            "aux": Optim(self.aux.parameters(), lr_scale=self.config.aux_lr_scale),
            "forget": Optim(below, algorithm="sgd", lr_scale=scale, momentum=0.0, weight_decay=0.0),
            "main": Optim(self.net.parameters()),
        }

    def updates(self, clock: Clock) -> Sequence[Update]:
        if not self.config.forget_every:
            return [Update("main", ("main",))]
        forget = [Update("forget", ("forget",))] if self.forgets(clock) else []
        return [Update("identify", ("aux",)), *forget, Update("main", ("main",))]

    def forgets(self, clock: Clock) -> bool:
        """Whether the lower layers forget in this step."""
        return bool(clock.step % self.config.forget_every == 0)

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        shared = batch.scratch
        if loss == "identify":
            if self.forgets(clock):  # the layers above are not needed before the ones below have moved
                shared["tap"] = self.net.tap(batch.image, self.tap)
            else:
                shared["features"], shared["tap"] = self.net.features_and_tap(batch.image, self.tap)
            return {"loss": F.cross_entropy(wide(self.aux(shared["tap"].detach())), batch.label)}
        if loss == "forget":
            return {"loss": uniform_cross_entropy([self.aux(shared["tap"])])}
        features = shared["features"] if "features" in shared else self.net.features(batch.image)
        return {"loss": F.cross_entropy(wide(self.net.classify(features)), batch.label)}

    def train(self, mode: bool = True) -> FeatureSieve:
        super().train(mode)
        for module in self.net.modules() if self.config.freeze_norm else ():
            if isinstance(module, nn.modules.batchnorm._NormBase):
                module.eval()
        return self
