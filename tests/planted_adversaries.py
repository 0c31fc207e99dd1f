"""LNL and BlindEye from their papers' equations, and the mistakes that public code makes in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from debias_zoo.method import Backbones, Batch, Clock, Method, Optim, Paper, Task, Update

NO_PAPER = Paper("", "", "", 0)


# --- LNL with a linear head on the pooled features


class LNL(Method):
    name = "planted_lnl"
    sees_bias = True
    paper = NO_PAPER

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.keep_head(nn.Linear(self.net.dim, task.biases))

    def keep_head(self, head: nn.Module) -> None:
        self.head = head

    def optimizers(self) -> Mapping[str, Optim]:
        return {"net": Optim(self.net.parameters()), "bias": Optim(self.head.parameters())}

    def updates(self, clock: Clock) -> Sequence[Update]:
        return [Update("classify", ("net",)), Update("unlearn", ("net", "bias"))]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        assert batch.bias is not None
        features = self.net.features(batch.image)
        if loss == "classify":
            task_loss = F.cross_entropy(self.net.classify(features).float(), batch.label)
            return {"loss": task_loss + 0.1 * self.negative_entropy(self.head(features).float())}
        reversed_ = 1.1 * features.detach() - 0.1 * features  # equal in value, gradient times -0.1
        return {"loss": F.cross_entropy(self.head(reversed_).float(), batch.bias)}

    def negative_entropy(self, logits: Tensor) -> Tensor:
        log_p = F.log_softmax(logits, 1)
        return (log_p.exp() * log_p).sum(1).mean()


class LNLWrongOptimizer(LNL):
    """MEDFAIR: the predictor's optimizer holds the network's parameters, so the adversary is never trained."""

    def optimizers(self) -> Mapping[str, Optim]:
        return {"net": Optim(self.net.parameters()), "bias": Optim(self.net.parameters())}


class LNLSoftmaxThenLog(LNL):
    """The authors' trainer: the logarithm of a softmax, NaN where a probability is 0."""

    def negative_entropy(self, logits: Tensor) -> Tensor:
        p = F.softmax(logits, 1)
        return (p * torch.log(p)).sum(1).mean()


class LNLHeadNotSaved(LNL):
    """The authors' trainer: the predictors are in no checkpoint."""

    def keep_head(self, head: nn.Module) -> None:
        self.heads = [head]

    @property
    def head(self) -> nn.Module:
        return self.heads[0]


# --- BlindEye: h learns the bias on detached features; f and g are trained with CE + confusion towards 1/K


class BlindEye(Method):
    name = "planted_blindeye"
    sees_bias = True
    paper = NO_PAPER

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.head = nn.Linear(self.net.dim, task.biases)

    def optimizers(self) -> Mapping[str, Optim]:
        return {"main": Optim(self.net.parameters()), "bias": Optim(self.head.parameters(), lr_scale=10.0)}

    def updates(self, clock: Clock) -> Sequence[Update]:
        return [Update("confuse", ("main",)), Update("recognise", ("bias",))]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        assert batch.bias is not None
        if loss == "recognise":
            with torch.no_grad():
                features = batch.scratch["features"]
            return {"loss": F.cross_entropy(self.head(features).float(), batch.bias)}
        features = self.net.features(batch.image)
        batch.scratch["features"] = features.detach()
        log_p = F.log_softmax(self.head(features).float(), 1)
        confusion = -(self.target(log_p) * log_p).sum(1).mean()
        return {"loss": F.cross_entropy(self.net.classify(features).float(), batch.label) + 0.1 * confusion}

    def target(self, log_p: Tensor) -> Tensor:
        return torch.full_like(log_p, 1.0 / log_p.shape[1])


class TABENoise(BlindEye):
    """Skin-Deep: the "uniform" target is random noise, redrawn for each batch."""

    def target(self, log_p: Tensor) -> Tensor:
        return torch.empty_like(log_p).uniform_(0.0, 1.0)


class TABEHelps(BlindEye):
    """Skin-Deep: not detached, the encoder is trained to help the head, and two optimizers step it at once."""

    def optimizers(self) -> Mapping[str, Optim]:
        return {**super().optimizers(), "confusion": Optim(self.net.parameters())}

    def updates(self, clock: Clock) -> Sequence[Update]:
        return [Update("confuse", ("main", "confusion")), Update("recognise", ("main", "bias"))]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        if loss == "recognise":
            assert batch.bias is not None
            return {"loss": F.cross_entropy(self.head(self.net.features(batch.image)).float(), batch.bias)}
        return super().forward(loss, batch, clock)
