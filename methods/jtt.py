"""JTT: Just Train Twice (Liu et al., ICML 2021, arXiv:2107.09044)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from debias_zoo.method import (
    Backbones,
    Batch,
    Clock,
    Method,
    Paper,
    Recipe,
    Repeats,
    Settings,
    Stage,
    Task,
    Update,
    View,
    setting,
)

from .losses.precision import wide
from .schedules import LFF_CMNIST


class JTT(Method):
    """Train briefly, then again from the initial weights with every image repeated that was got wrong.

    Both stages minimise the mean cross-entropy, L = mean_i CE(f(x_i), y_i), over all parameters:

        identify:  each image once an epoch; E = {i : argmax f(x_i) != y_i} in the last of its T epochs
        retrain:   from the initial weights, image i shown 1 + lambda_up 1[i in E] times an epoch

    Predictions for E are those of training, each made just before the step on its batch, in training mode, as in the
    authors' code. No bias labels to train. Prediction: f(x) of the second stage.

    Differs from the paper: T and lambda_up, which it chooses by worst-group accuracy in validation, are fixed settings,
    and the last epoch is kept.
    """

    name = "jtt"
    version = 2
    moves_buffers = {"identify": ("wrong",)}
    paper = Paper(
        title="Just Train Twice: Improving Group Robustness without Training Group Information",
        authors="Liu, Haghgoo, Chen, Raghunathan, Koh, Sagawa, Liang, Finn",
        venue="ICML",
        year=2021,
        arxiv="2107.09044",
        code="https://github.com/anniesch/jtt",
    )

    class Config(Method.Config):
        """Settings; each says where its default comes from."""

        lambda_up: int = setting(
            20,
            "further times an error is shown in an epoch",
            source="paper, the least it tried",
            search=[20, 50, 100],
            ge=0,
        )
        identify_share: float = setting(
            0.2, "share of the epochs that find the errors", source="ours; paper: 60 of 360 on Waterbirds", gt=0, lt=1
        )

    wrong: Tensor
    errors: Tensor

    recipes = (
        Recipe(
            protocol="paper",
            dataset="cmnist-lff",
            source="ours; LfF's network and settings, as DeNetDM's Table 1 compares on its data, and DeNetDM's pixels",
            backbone="mlp",
            backbone_options={"depth": 3, "width": 100},
            normalize="none",
            settings=LFF_CMNIST,
            stages={"identify": Settings(epochs=2), "retrain": Settings(epochs=100)},
            config={"lambda_up": 100},
            tuned_on="val_unbiased",
            deviations=(
                "the paper has no Colored MNIST: T = 2 and lambda_up = 100 are ours, the rest is LfF's, but for pixels "
                "divided by 255 once, as in DeNetDM's code, not twice as in LfF's",
            ),
        ),
        Recipe(
            protocol="paper",
            dataset="waterbirds",
            source="anniesch/jtt: README.md",
            backbone="resnet50",
            pretrained=True,
            normalize="imagenet",
            settings=Settings(
                batch_size=64, optimizer="sgd", lr=1e-5, momentum=0.9, weight_decay=1.0, schedule="constant"
            ),
            stages={"identify": Settings(epochs=60), "retrain": Settings(epochs=300)},
            config={"lambda_up": 100},
        ),
        Recipe(
            protocol="paper",
            dataset="celeba",
            source="anniesch/jtt: README.md",
            backbone="resnet50",
            pretrained=True,
            normalize="imagenet",
            settings=Settings(
                batch_size=64, optimizer="sgd", lr=1e-5, momentum=0.9, weight_decay=0.1, schedule="constant"
            ),
            stages={"identify": Settings(epochs=1), "retrain": Settings(epochs=50)},
            config={"lambda_up": 50},
        ),
    )

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.register_buffer(
            "wrong", torch.zeros(task.train_size, dtype=torch.bool)
        )  # as far as the last epoch has got
        self.register_buffer("errors", torch.zeros(task.train_size, dtype=torch.bool))  # E

    def stages(self) -> Sequence[Stage]:
        share = self.config.identify_share
        identifying = Stage("identify", share, shared_as="cross-entropy, and errors of the last epoch")
        return [identifying, Stage("retrain", 1.0 - share, reset=("net",))]

    def updates(self, clock: Clock) -> Sequence[Update]:
        return [Update(clock.stage, ("main",))]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        logits = wide(self.net(batch.image))
        numbers = {"loss": F.cross_entropy(logits, batch.label)}
        if loss == "identify":
            wrong = logits.argmax(1) != batch.label
            numbers["errors"] = wrong.float().mean()
            if clock.epoch == clock.epochs - 1:
                self.wrong[batch.index] = wrong
        return numbers

    def start_stage(self, stage: Stage, train: View) -> None:
        if stage.name == "retrain":
            self.errors.copy_(self.wrong)

    def sampling(self) -> Repeats:
        return Repeats(1 + self.config.lambda_up * self.errors.long())
