"""One small slip for each check that no planted method of the literature is needed to try."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel
from torch import Tensor, nn

from debias_zoo.method import (
    Backbones,
    Batch,
    Clock,
    Method,
    Optim,
    Paper,
    Stage,
    Task,
    Update,
    View,
    Weights,
    setting,
)


class Sound(Method):
    """Cross-entropy plus a pull on the logits (spectral decoupling), with dropout before the last layer."""

    name = "sound"
    paper = Paper("", "", "", 0)

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.dropout = nn.Dropout(0.2)

    def logits(self, image: Tensor) -> Tensor:
        return self.net.classify(self.dropout(self.net.features(image))).float()

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        logits = self.logits(batch.image)
        return {"loss": F.cross_entropy(logits, batch.label) + 0.05 * logits.square().mean()}


class NotReached(Sound):
    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {"loss": self.net.classify(self.net.features(batch.image).detach()).square().mean() * 0.0}


class LogsRows(Sound):
    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {**super().forward(loss, batch, clock), "each": batch.label.float()}


class UnknownOptimizer(Sound):
    def updates(self, clock: Clock) -> Sequence[Update]:
        return [Update("main", ("mian",))]


class MovesAnother(Sound):
    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.average = backbones(role="average").requires_grad_(False)

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        for slow, fast in zip(self.average.parameters(), self.net.parameters(), strict=True):
            slow.data.lerp_(fast.data, 0.01)
        return super().forward(loss, batch, clock)


class Undeclared(Sound):
    moves_buffers = {"mian": ("net.",)}


class ChangesImage(Sound):
    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        batch.image.sub_(0.5)
        return super().forward(loss, batch, clock)


class ChangesLabels(Sound):
    def end_epoch(self, clock: Clock, train: View) -> None:
        train.labels.roll(1)
        train.labels[0] = (train.labels[0] + 1) % self.task.classes


class DeadLayer(Sound):
    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.unused = nn.Linear(3, 3)


class NotSoFrozen(Sound):
    frozen = {"net.model.fc": "said, not done"}


class OtherChance(Sound):
    def end_epoch(self, clock: Clock, train: View) -> None:
        with torch.no_grad():
            self.net.model.fc.bias.add_(0.01 * torch.from_numpy(__import__("numpy").random.rand(3)).float())


class Squeezes(Sound):
    min_batch = 1

    def logits(self, image: Tensor) -> Tensor:
        return super().logits(image).squeeze()


class BatchStatistics(Sound):
    def predict(self, image: Tensor) -> Tensor:
        features = self.net.features(image)
        return self.net.classify(features - features.mean(0))


class BatchNeedsMore(Sound):
    """An unbiased estimator over N - 2."""

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        logits = self.logits(batch.image)
        spread = (logits - logits.mean(0)).square().sum() / (len(logits) - 2)
        return {"loss": F.cross_entropy(logits, batch.label) + 0.1 * spread}


class EmptyMean(Sound):
    sees_bias = True

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        assert batch.bias is not None
        each = F.cross_entropy(self.logits(batch.image), batch.label, reduction="none")
        first = (batch.bias == 0).float()
        return {"loss": (first * each).sum() / first.sum() + each.mean()}


class Item(Sound):
    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        found = super().forward(loss, batch, clock)
        return found if found["loss"].item() < 1e6 else {"loss": found["loss"] * 0.0}


class Mask(Sound):
    sees_bias = True

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        each = F.cross_entropy(self.logits(batch.image), batch.label, reduction="none")
        groups = [each[batch.bias == bias] for bias in range(self.task.biases)]
        return {"loss": torch.stack([group.sum() / (len(group) + 1) for group in groups]).mean()}


class WeightsOnCPU(Sound):
    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        weight = torch.tensor([1.0, 2.0, 3.0])
        return {"loss": F.cross_entropy(self.logits(batch.image), batch.label, weight)}


class NarrowLoss(Sound):
    def logits(self, image: Tensor) -> Tensor:
        return self.net.classify(self.dropout(self.net.features(image)))

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        logits = self.logits(batch.image)
        hot = F.one_hot(batch.label, self.task.classes).to(logits.dtype)
        return {"loss": (logits - hot).square().mean()}


class Unlearns(Sound):
    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {"loss": -F.cross_entropy(self.logits(batch.image), batch.label).clamp(max=5.0)}


class LooseConfig(Sound):
    class Config(BaseModel):
        strength: float = 0.1


class UniformWeights(Method):
    """Samples by weights that are all the same."""

    name = "uniform_weights"
    paper = Sound.paper

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {"loss": 2.0 * F.cross_entropy(self.net(batch.image).float(), batch.label)}

    def sampling(self) -> Weights:
        return Weights(torch.ones(self.task.train_size))


class TwiceERM(Method):
    """Two updates, each plain cross-entropy: the second is ERM as well."""

    name = "twice_erm"
    paper = Sound.paper

    def optimizers(self) -> Mapping[str, Optim]:
        return {"main": Optim(self.net.parameters())}

    def updates(self, clock: Clock) -> Sequence[Update]:
        return [Update("one", ("main",)), Update("two", ("main",))]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(self.net(batch.image).float(), batch.label)}


class FalseBaseline(Sound):
    is_baseline = True


class NoDict(Sound):
    def forward(self, loss: str, batch: Batch, clock: Clock) -> Any:
        return super().forward(loss, batch, clock)["loss"]


class OtherKey(Sound):
    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {"losses": super().forward(loss, batch, clock)["loss"]}


class ForgetsMean(Sound):
    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(self.logits(batch.image), batch.label, reduction="none")}


class Peeks(Sound):
    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        aligned = (batch.label == batch.bias).float()
        losses = F.cross_entropy(self.logits(batch.image), batch.label, reduction="none")
        return {"loss": (losses / (1.0 + aligned)).mean()}


class Prints(Sound):
    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        print("a step", clock.step)
        return super().forward(loss, batch, clock)


class Writes(Sound):
    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        Path(os.devnull).write_text("a step")
        return super().forward(loss, batch, clock)


class SharesTooMuch(Sound):
    class Config(Method.Config):
        """One setting, which counts from the first step and is not meant to be tuned."""

        pull: float = setting(0.05, "weight of the squares", source="ours")

    def stages(self) -> Sequence[Stage]:
        return [Stage("first", shared_as="training"), Stage("second")]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        logits = self.logits(batch.image)
        return {"loss": F.cross_entropy(logits, batch.label) + self.config.pull * logits.square().mean()}


SLIPS: tuple[tuple[type[Method], str, str], ...] = (
    (NotReached, "finite_loss", "never gives a gradient"),
    (LogsRows, "finite_loss", "each must be a tensor without dimensions"),
    (UnknownOptimizer, "finite_loss", "steps mian; there are main"),
    (MovesAnother, "moves_what_it_names", "which it does not step"),
    (Undeclared, "moves_what_it_names", "which is no loss"),
    (NoDict, "finite_loss", "must return a dict with a 'loss', a tensor without dimensions; it gave a Tensor"),
    (OtherKey, "finite_loss", "it gave one with 'losses'"),
    (ForgetsMean, "finite_loss", "it gave a loss of shape (16,)"),
    (Peeks, "finite_loss", "batch.bias is None, since the class says sees_bias = False; should it be True?"),
    (Prints, "silent", "training printed: a step 0"),
    (Writes, "silent", "training wrote /dev/null"),
    (SharesTooMuch, "shared_stage", "with another pull, stage 'first' ends with other method.net"),
    (OtherChance, "reproducible", "numpy"),
    (ChangesImage, "leaves_batch_alone", "batch.image"),
    (ChangesLabels, "leaves_batch_alone", "the training split's labels"),
    (DeadLayer, "everything_trains", "unused.weight"),
    (NotSoFrozen, "everything_trains", "said to be frozen, but moves"),
    (BatchStatistics, "predict_is_pure", "an image alone gives another result"),
    (Item, "any_device", "item"),
    (Mask, "any_device", "values of a tensor"),
    (WeightsOnCPU, "any_device", "mixes devices"),
    (Squeezes, "smallest_batch", ""),
    (BatchNeedsMore, "smallest_batch", "NaN or infinite"),
    (EmptyMean, "one_group", "not finite"),
    (UniformWeights, "not_erm", "this is ERM"),
    (TwiceERM, "not_erm", "this is ERM"),
    (FalseBaseline, "not_erm", "is_baseline is True"),
    (NarrowLoss, "bf16", "bfloat16"),
    (Unlearns, "learns", "forty images"),
    (LooseConfig, "config", "not frozen"),
)
"""A slip, the check that catches it, and words of its verdict."""
