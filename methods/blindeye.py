"""BlindEye: Turning a Blind Eye (Alvi, Zisserman, Nellaker, ECCV Workshops 2018, arXiv:1809.02169)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

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

from .losses.bias_heads import bias_loss, bias_predictor, uniform_cross_entropy
from .losses.precision import wide
from .losses.unlearning import unlearning_optimizers, unlearning_stages
from .schedules import LNL_CMNIST


class BlindEye(Method):
    """Confuse a bias classifier: pull its prediction on the features towards the uniform distribution.

    f is the backbone up to the tap, g the rest of it, h predicts the bias from the tapped map. On every batch, in turn:

        recognise:  L_s = sum_heads CE(b, h(stopgrad f(x)))                                            steps h
        confuse:    L = CE(y, g(f(x))) + alpha mean_heads -1/K sum_k log softmax(h(f(x)))_k            steps f and g

    The weights of h are constant in ``confuse``, there is no gradient reversal. Its batch norm takes the statistics of
    the batch in both updates, as the predictors of LNL's code do: on ``val_unbiased`` that unlearns more than its
    running ones do at the same alpha (docs/results). One forward of f serves both updates, since ``recognise`` does not
    move f. Reads bias labels of the training split. Prediction: g(f(x)).

    Differs from the paper: it fine-tunes a face network and gives no weight for the confusion; here, as in LNL's
    comparison, it is LNL's net with LNL's heads and pre-training, and alpha is ours. The confusion target is uniform,
    not the random noise of a public re-implementation.
    """

    name = "blindeye"
    version = 1
    sees_bias = True
    reads_bias_map = True
    moves_buffers = {"recognise": ("net.",), "confuse": ("bias.",)}
    paper = Paper(
        title="Turning a Blind Eye: Explicit Removal of Biases and Variation from Deep Neural Network Embeddings",
        authors="Alvi, Zisserman, Nellaker",
        venue="ECCV Workshops",
        year=2018,
        arxiv="1809.02169",
    )

    class Config(Method.Config):
        """Settings; each says where its default comes from."""

        alpha: float = setting(0.1, "weight of the confusion", source="ours", search=(1e-2, 3.0, "log"), ge=0)
        bias_lr_scale: float = setting(
            10.0,
            "learning rate of h over that of f and g",
            source="pbevan1/Skin-Deep-Unlearning",
            search=(1, 30, "log"),
            gt=0,
        )
        warmup_epochs: int = setting(
            1, "first epochs of the unlearning stage without confusion, for h to learn", source="ours", ge=0
        )
        bias_norm: Literal["batch", "running"] = setting(
            "batch",
            "statistics of h's batch norm in confuse; running: h in eval mode",
            source="ours, as LNL's trainer.py has it",
        )
        pretrain_share: float = setting(0.5, "share of the epochs that pre-train f and g", source="LNL", ge=0, lt=1)
        tap: int | None = setting(None, "stage whose map f(x) is; None: the backbone's middle one", source="LNL")

    recipes = (
        Recipe(
            protocol="standard",
            dataset="cmnist",
            source="ours: two epochs of pre-training and three of unlearning at one rate",
            config={
                "alpha": 0.03,
                "bias_lr_scale": 10.0,
                "warmup_epochs": 0,
                "bias_norm": "running",
                "pretrain_share": 0.4,
            },
            tuned_on="val_unbiased",
        ),
        Recipe(
            protocol="paper",
            dataset="cmnist",
            source="LNL's comparison: its net, heads and schedule; no code of its BlindEye exists",
            backbone="lnl_convnet",
            normalize="cifar",
            settings=LNL_CMNIST,
            stages={"pretrain": Settings(epochs=100, lr=0.01), "unlearn": Settings(epochs=100, lr=0.001)},
            config={"alpha": 0.3, "bias_lr_scale": 1.0},
            tuned_on="val_unbiased",
            deviations=(
                "alpha, the rate of h, its batch norm and its epoch alone were not found anywhere: these are ours",
            ),
        ),
    )

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.bias = bias_predictor(task, self.net.tap_shape(config.tap))

    def stages(self) -> Sequence[Stage]:
        return unlearning_stages(self.config.pretrain_share)

    def optimizers(self) -> Mapping[str, Optim]:
        return unlearning_optimizers(self.net, self.bias, self.config.bias_lr_scale)

    def updates(self, clock: Clock) -> Sequence[Update]:
        if clock.stage == "pretrain":
            return [Update("pretrain", ("net",))]
        return [Update("recognise", ("bias",)), Update("confuse", ("net",))]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        if loss == "pretrain":
            return {"loss": F.cross_entropy(wide(self.net(batch.image)), batch.label)}
        self.bias.train(loss == "recognise" or self.config.bias_norm == "batch")
        if loss == "recognise":
            batch.scratch["features"], z = self.net.features_and_tap(batch.image, self.config.tap)
            batch.scratch["tap"] = z
            return {"loss": bias_loss(self.bias(z.detach()), batch)}
        task_loss = F.cross_entropy(wide(self.net.classify(batch.scratch["features"])), batch.label)
        confusion = uniform_cross_entropy(self.bias(batch.scratch["tap"]))
        alpha = self.config.alpha if clock.epoch >= self.config.warmup_epochs else 0.0
        return {"loss": task_loss + alpha * confusion, "confusion": confusion}
