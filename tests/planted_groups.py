"""Group-DRO and EnD from their papers' equations, and the mistakes that public code makes in them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from debias_zoo.method import Backbones, Batch, Clock, Method, Paper, Task

NO_PAPER = Paper("", "", "", 0)


# --- Group-DRO: L = sum_g q_g l_g, q_g <- q_g exp(eta l_g) / Z


class GroupDRO(Method):
    name = "planted_group_dro"
    sees_bias = True
    moves_buffers = {"main": ("q",)}
    paper = NO_PAPER
    eta = 0.01

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.groups = task.classes * task.biases
        self.keep_weights(torch.full((self.groups,), 1.0 / self.groups))

    def keep_weights(self, q: Tensor) -> None:
        self.register_buffer("q", q)

    def cell(self, batch: Batch) -> Tensor:
        assert batch.bias is not None
        return batch.label * self.task.biases + batch.bias

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        each = F.cross_entropy(self.net(batch.image).float(), batch.label, reduction="none")
        cells = torch.arange(self.groups, device=each.device)
        member = (self.cell(batch)[:, None] == cells).float()  # (B, groups)
        group_loss = (member * each[:, None]).sum(0) / member.sum(0).clamp(min=1.0)
        with torch.no_grad():
            raised = self.q * torch.exp(self.eta * group_loss)
            self.q.copy_(raised / raised.sum())
        return {"loss": (self.q * group_loss).sum()}


class GroupDROSharedCell(GroupDRO):
    """VB-Mitigator: y * B + b * B, so that groups share cells or fall outside."""

    def cell(self, batch: Batch) -> Tensor:
        assert batch.bias is not None
        return batch.label * self.task.biases + batch.bias * self.task.biases


class GroupDROWrongFactor(GroupDRO):
    """The factor is the number of classes: every group has a cell, some share one."""

    def cell(self, batch: Batch) -> Tensor:
        assert batch.bias is not None
        return batch.label * self.task.classes + batch.bias


class GroupDROBornEmpty(GroupDRO):
    """DomainBed: the weight buffer is born empty and grows in the first step."""

    def keep_weights(self, q: Tensor) -> None:
        self.register_buffer("q", torch.empty(0))

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        if not len(self.q):
            self.q = torch.full((self.groups,), 1.0 / self.groups, device=batch.image.device)
        return super().forward(loss, batch, clock)


class GroupDROPlainAttribute(GroupDRO):
    """WILDS: the weights are a plain attribute, which no checkpoint holds."""

    moves_buffers = {}

    def keep_weights(self, q: Tensor) -> None:
        self.q = q


class GroupDROCuda(GroupDRO):
    """SubpopBench: the constructor asks for CUDA."""

    def keep_weights(self, q: Tensor) -> None:
        self.register_buffer("q", q.cuda())


# --- EnD: CE + alpha R_perp (decorrelate one bias) + beta R_par (correlate one class across biases)


class EnD(Method):
    name = "planted_end"
    sees_bias = True
    paper = NO_PAPER

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        assert batch.bias is not None
        features = self.net.features(batch.image)
        task_loss = F.cross_entropy(self.net.classify(features).float(), batch.label)
        z = F.normalize(torch.tanh(features.float()), dim=1)
        gram = (z @ z.T).clamp(-1.0, 1.0).tril(-1)  # (B, B)
        one_hot = (batch.bias[:, None] == torch.arange(self.task.biases, device=z.device)).float()
        same_bias, same_label = one_hot @ one_hot.T, (batch.label[:, None] == batch.label).float()
        pairs = torch.ones_like(gram).tril(-1)
        by_bias = (one_hot * (gram @ one_hot)).sum(0)  # sum over pairs i > j of one bias
        apart = by_bias.abs().sum() / (same_bias * pairs).sum().clamp(min=1.0)
        joined = same_label * (1.0 - same_bias) * pairs
        together = 1.0 - (joined * (1.0 + gram) / 2.0).sum() / joined.sum().clamp(min=1.0)
        return {"loss": self.total(task_loss, apart + together)}

    def total(self, task_loss: Tensor, regulariser: Tensor) -> Tensor:
        return task_loss + regulariser


class EnDOverwritten(EnD):
    """VB-Mitigator: the loss is computed, then overwritten by plain cross-entropy."""

    def total(self, task_loss: Tensor, regulariser: Tensor) -> Tensor:
        total = task_loss + regulariser
        total = task_loss
        return total  # noqa: RET504  (as it was found)
