"""A skeleton of each shape of method that the contract must carry: the mathematics that matters, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from debias_zoo.method import (
    Backbones,
    Batch,
    Clock,
    Method,
    Need,
    Optim,
    Paper,
    Repeats,
    Settings,
    Stage,
    Task,
    Update,
    View,
    Weights,
)

NO_PAPER = Paper("", "", "", 0)


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), label, reduction="none")


class SharedForward(Method):
    """Two updates of one batch share a forward (ReBias): g learns, f learns away from g."""

    name = "shared_forward"
    moves_buffers = {"biased": ("net.",)}
    paper = NO_PAPER

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.biased = backbones("simple_convnet", role="biased", kernel=1)

    def optimizers(self) -> Mapping[str, Optim]:
        return {"net": Optim(self.net.parameters()), "biased": Optim(self.biased.parameters())}

    def updates(self, clock: Clock) -> Sequence[Update]:
        return [Update("biased", ("biased",)), Update("debiased", ("net",))]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        if loss == "biased":
            batch.scratch["own"] = self.net(batch.image)  # with its graph, for the update to come
            batch.scratch["theirs"] = theirs = self.biased(batch.image)
            return {"loss": cross_entropy(theirs + 0.1 * batch.scratch["own"].detach(), batch.label).mean()}
        own, theirs = batch.scratch["own"], batch.scratch["theirs"].detach()
        return {"loss": cross_entropy(own + 0.1 * theirs, batch.label).mean()}


class Sieve(Method):
    """Overlapping optimizers (feature sieve): the lower layers forget by plain SGD and learn with everything else."""

    name = "sieve"
    paper = NO_PAPER
    every = 2

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.aux = nn.Linear(self.net.tap_shape()[0], task.classes)

    def optimizers(self) -> Mapping[str, Optim]:
        lower = Optim(self.net.parameters_below(), algorithm="sgd", momentum=0.0, weight_decay=0.0)
        return {"aux": Optim(self.aux.parameters()), "forget": lower, "main": Optim(self.net.parameters())}

    def updates(self, clock: Clock) -> Sequence[Update]:
        forget = [Update("forget", ("forget",))] if clock.step % self.every == 0 else []
        return [Update("identify", ("aux",)), *forget, Update("main", ("main",))]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        self.net.train(loss == "main")
        if loss == "main":
            return {"loss": cross_entropy(self.net(batch.image), batch.label).mean()}
        logits = self.aux(self.net.tap(batch.image).mean((2, 3))).float()
        if loss == "identify":
            return {"loss": F.cross_entropy(logits, batch.label)}
        return {"loss": -F.log_softmax(logits, 1).mean()}


class ThreeStages(Method):
    """Three stages with a reset (JTT): find errors, settle, train again from the initial weights on repeated errors."""

    name = "three_stages"
    paper = NO_PAPER
    extra = 3

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.register_buffer("counts", torch.ones(task.train_size, dtype=torch.int64))

    def stages(self) -> Sequence[Stage]:
        settle = Stage("settle", settings=Settings(schedule="constant"), fresh_optimizers=False)
        return [Stage("identify"), settle, Stage("again", reset=("net",))]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {"loss": cross_entropy(self.net(batch.image), batch.label).mean()}

    def end_epoch(self, clock: Clock, train: View) -> None:
        if clock.stage == "settle" and clock.epoch == clock.epochs - 1:
            wrong = [self.net(batch.image).argmax(1) != batch.label for batch in train.batches(32)]
            self.counts.copy_(1 + self.extra * torch.cat(wrong).long())

    def sampling(self) -> Repeats:
        return Repeats(self.counts)


class Drawn(Method):
    """A sampler found between stages (PGD): images are drawn in proportion to what the first network got wrong."""

    name = "drawn"
    paper = NO_PAPER
    draws = 40

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.register_buffer("score", torch.zeros(task.train_size))

    def stages(self) -> Sequence[Stage]:
        return [Stage("biased"), Stage("debiased", fresh_optimizers=False)]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {"loss": cross_entropy(self.net(batch.image), batch.label).mean()}

    def start_stage(self, stage: Stage, train: View) -> None:
        if stage.name == "debiased":
            for batch in train.batches(32):
                p = F.softmax(self.net(batch.image).float(), 1)
                rest = 1.0 - p.gather(1, batch.label[:, None]).squeeze(1)
                self.score.index_copy_(0, batch.index, rest * (batch.index % 5 > 0))  # every fifth is left out

    def sampling(self) -> Weights | None:
        return Weights(self.score, self.draws) if bool(self.score.any()) else None


class Student(Method):
    """A teacher from another trial (DeDiER): learns from its softened predictions."""

    name = "student"
    paper = NO_PAPER

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.teacher = backbones.teacher("teacher")

    @classmethod
    def needs(cls, config: Any) -> Mapping[str, Need]:
        return {"teacher": Need("erm")}

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        self.teacher.eval()
        with torch.no_grad():
            taught = F.log_softmax(self.teacher.predict(batch.image).float() / 3.0, 1)
        own = F.log_softmax(self.net(batch.image).float() / 3.0, 1)
        return {"loss": 9.0 * F.kl_div(own, taught, reduction="batchmean", log_target=True)}


class TwoOnOneSum(Method):
    """Two networks step on one sum (LfF): the biased one on p^q CE, the other on weights by relative difficulty."""

    name = "two_on_one_sum"
    moves_buffers = {"both": ("ema",)}
    paper = NO_PAPER
    q = 0.7

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.biased = backbones(role="biased")
        self.register_buffer("ema", torch.ones(2, task.train_size))

    def optimizers(self) -> Mapping[str, Optim]:
        return {"debiased": Optim(self.net.parameters()), "biased": Optim(self.biased.parameters())}

    def updates(self, clock: Clock) -> Sequence[Update]:
        return [Update("both", ("biased", "debiased"))]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        both = [cross_entropy(net(batch.image), batch.label) for net in (self.biased, self.net)]
        for row, each in zip(self.ema, both, strict=True):
            row.index_copy_(0, batch.index, 0.7 * row[batch.index] + 0.3 * each.detach())
        hard, easy = self.ema[:, batch.index]
        weight = hard / (hard + easy + 1e-8)
        p = torch.exp(-both[0].detach())
        return {"loss": (self.q * p**self.q * both[0]).mean() + (weight * both[1]).mean()}


class ProductOfExperts(Method):
    """A product of experts in two stages (DeNetDM): deep and shallow together, then a target beside the frozen deep."""

    name = "product_of_experts"
    paper = NO_PAPER

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.deep = backbones(role="deep")
        self.shallow = backbones("simple_convnet", role="shallow", kernel=3, stride=2)

    def stages(self) -> Sequence[Stage]:
        return [Stage("experts", 1.0), Stage("target", 2.0)]

    def optimizers(self) -> Mapping[str, Optim]:
        experts = [*self.deep.parameters(), *self.shallow.parameters()]
        return {"experts": Optim(experts), "target": Optim(self.net.parameters())}

    def updates(self, clock: Clock) -> Sequence[Update]:
        return [Update(clock.stage, (clock.stage,))]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        for expert in (self.deep, self.shallow):
            expert.train(loss == "experts")
        deep, shallow = self.deep(batch.image), self.shallow(batch.image)
        if loss == "experts":
            return {"loss": cross_entropy(deep + shallow, batch.label).mean()}
        own = self.net(batch.image)
        taught = F.softmax(shallow.detach().float() / 2.0, 1)
        distilled = -4.0 * (taught * F.log_softmax(own.float() / 2.0, 1)).sum(1).mean()
        return {"loss": cross_entropy(deep.detach() + own, batch.label).mean() + distilled}


class LastLayer(Method):
    """A last layer found after training (DFR): group-balanced class means of the validation split's features."""

    name = "last_layer"
    needs_val_bias = True
    paper = NO_PAPER

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.register_buffer("means", torch.zeros(task.classes, self.net.dim))

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {"loss": cross_entropy(self.net(batch.image), batch.label).mean()}

    def finish(self, train: View, val: View) -> None:
        assert val.biases is not None
        features = torch.cat([self.net.features(batch.image).float() for batch in val.batches(32)])
        for label in range(self.task.classes):
            groups = [features[(val.labels == label) & (val.biases == bias)] for bias in val.biases.unique()]
            self.means[label] = torch.stack([group.mean(0) for group in groups if len(group)]).mean(0)

    def predict(self, image: Tensor) -> Tensor:
        features = self.net.features(image)
        found = features @ self.means.T - self.means.square().sum(1) / 2.0
        return torch.where(self.means.any(), found, self.net.classify(features))


SHAPES: tuple[type[Method], ...] = (
    SharedForward,
    Sieve,
    ThreeStages,
    Drawn,
    Student,
    TwoOnOneSum,
    ProductOfExperts,
    LastLayer,
)
