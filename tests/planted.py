"""Methods written from their papers' equations, each beside the mistakes that public code makes in it.

The correct ones must pass every check; each mistake must be caught. The classes name the code base it was found in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from planted_adversaries import (
    LNL,
    BlindEye,
    LNLHeadNotSaved,
    LNLSoftmaxThenLog,
    LNLWrongOptimizer,
    TABEHelps,
    TABENoise,
)
from planted_groups import (
    EnD,
    EnDOverwritten,
    GroupDRO,
    GroupDROBornEmpty,
    GroupDROCuda,
    GroupDROPlainAttribute,
    GroupDROSharedCell,
    GroupDROWrongFactor,
)
from torch import Tensor, nn

from debias_zoo.method import Backbones, Batch, Clock, Method, Optim, Paper, Task, Update, View

NO_PAPER = Paper("", "", "", 0)


# --- RUBi on images: CE(f(x) sigmoid(m), y) + CE(m, y), m a linear head on the detached features of a biased net


class RUBi(Method):
    name = "planted_rubi"
    knows_bias_kind = True
    paper = NO_PAPER

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.biased = backbones("simple_convnet", role="biased", kernel=1)
        self.mask = nn.Linear(self.biased.dim, task.classes)

    def optimizers(self) -> Mapping[str, Optim]:
        main = [*self.net.parameters(), *self.mask.parameters()]
        return {"main": Optim(main), "biased": Optim(self.biased.parameters())}

    def updates(self, clock: Clock) -> Sequence[Update]:
        return [Update("biased", ("biased",)), Update("main", ("main",))]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        self.biased.train(loss == "biased")
        features = self.biased.features(batch.image)
        if loss == "biased":
            return {"loss": F.cross_entropy(self.biased.classify(features).float(), batch.label)}
        mask = self.mask(features.detach()).float()
        logits = self.net(batch.image).float() * torch.sigmoid(mask)
        return {"loss": F.cross_entropy(logits, batch.label) + F.cross_entropy(mask, batch.label)}


class RUBiForgottenMask(RUBi):
    """ReBias's trainer: the mask's head reaches no optimizer."""

    def optimizers(self) -> Mapping[str, Optim]:
        return {"main": Optim(self.net.parameters()), "biased": Optim(self.biased.parameters())}


# --- HEX: F_L = (I - P_G) F_A, P_G the projector on what a texture branch alone predicts


class HEX(Method):
    name = "planted_hex"
    knows_bias_kind = True
    min_batch = 8
    paper = NO_PAPER

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        nn.Module.__init__(self)
        self.task, self.config = task, config
        self.net = backbones(head=False)
        self.texture = nn.Linear(task.image_shape[1] * task.image_shape[2], 32)
        self.last = nn.Linear(self.net.dim + 32, task.classes)
        self.register_buffer("scale", torch.ones(self.net.dim))

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        h = F.normalize(self.net.features(batch.image).float(), dim=0)  # by feature, over the batch
        g = F.normalize(F.relu(self.texture(batch.image.mean(1).flatten(1))).float(), dim=0)
        both = self.last(torch.cat([h, g], 1)).float()
        alone = self.last(torch.cat([torch.zeros_like(h), g], 1)).float()
        return {"loss": F.cross_entropy(self.project(both, alone), batch.label)}

    def project(self, both: Tensor, alone: Tensor) -> Tensor:
        return both - self.texture_projector(alone) @ both

    def texture_projector(self, alone: Tensor) -> Tensor:
        """P_G; a little more on the diagonal keeps it finite where a batch's rows are all but the same."""
        gram = alone.T @ alone + 1e-3 * torch.eye(alone.shape[1], device=alone.device)
        return alone @ torch.linalg.solve(gram, alone.T)

    def end_epoch(self, clock: Clock, train: View) -> None:
        squares = torch.cat([self.net.features(batch.image).float().square() for batch in train.batches(64)])
        self.scale.copy_(squares.mean(0).mul(16.0).sqrt().clamp(min=1e-6))

    def features(self, image: Tensor) -> Tensor:
        return self.net.features(image) / self.scale

    def predict(self, image: Tensor) -> Tensor:
        h = self.features(image)
        logits: Tensor = self.last(torch.cat([h, h.new_zeros(len(h), 32)], 1))
        return logits


class HEXAllOnes(HEX):
    """A public re-implementation: the projector is all ones minus P instead of I - P."""

    def project(self, both: Tensor, alone: Tensor) -> Tensor:
        return (1.0 - self.texture_projector(alone)) @ both


# --- MTL: the mean embedding of a domain beside the features


class MTL(Method):
    name = "planted_mtl"
    sees_bias = True
    paper = NO_PAPER

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        nn.Module.__init__(self)
        self.task, self.config = task, config
        self.net = backbones(head=False)
        self.domain = nn.Embedding(task.biases, 8)
        self.last = nn.Linear(self.net.dim + 8, task.classes)

    def optimizers(self) -> Mapping[str, Optim]:
        return {"main": Optim(self.parameters())}

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        assert batch.bias is not None
        joined = torch.cat([self.features(batch.image), self.domain(batch.bias)], 1)
        return {"loss": F.cross_entropy(self.last(joined).float(), batch.label)}

    def embedding(self, count: int) -> Tensor:
        return self.domain.weight.mean(0).expand(count, -1)

    def predict(self, image: Tensor) -> Tensor:
        features = self.features(image)
        logits: Tensor = self.last(torch.cat([features, self.embedding(len(features))], 1))
        return logits


class MTLNoise(MTL):
    """DomainBed: the embedding is noise in predict, so that two predictions of one image differ."""

    def embedding(self, count: int) -> Tensor:
        return torch.randn(count, 8, device=self.domain.weight.device)


# --- A frozen expert beside the network: CE(f(x) + expert(x), y)


class Expert(Method):
    name = "planted_expert"
    frozen = {"expert": "the expert of another stage"}
    paper = NO_PAPER

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.expert = backbones("simple_convnet", role="expert", kernel=1).requires_grad_(False)

    def optimizers(self) -> Mapping[str, Optim]:
        return {"main": Optim(self.net.parameters())}

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        self.expert.train(self.expert_mode())
        logits = self.net(batch.image) + self.expert(batch.image)
        return {"loss": F.cross_entropy(logits.float(), batch.label)}

    def expert_mode(self) -> bool:
        return False


class ExpertDrifts(Expert):
    """DeNetDM: the batch norm statistics of the frozen branch drift."""

    def expert_mode(self) -> bool:
        return True


class ExpertFreezesToo(Expert):
    """DeDiER: a first layer is frozen for another update and never thawed again."""

    def end_epoch(self, clock: Clock, train: View) -> None:
        self.net.model.stages[0].requires_grad_(False)


CORRECT: tuple[type[Method], ...] = (GroupDRO, EnD, RUBi, LNL, BlindEye, HEX, MTL, Expert)

WRONG: tuple[tuple[type[Method], str, str], ...] = (
    (GroupDROSharedCell, "groups", "give no gradient"),
    (GroupDROWrongFactor, "groups", "changes the weight of"),
    (GroupDROBornEmpty, "resumes", "cannot be loaded into a fresh object"),
    (GroupDROPlainAttribute, "resumes", "the end differs"),
    (GroupDROPlainAttribute, "any_device", "mixes devices"),
    (GroupDROCuda, "any_device", "asks for CUDA"),
    (EnDOverwritten, "not_erm", "this is ERM"),
    (EnDOverwritten, "supervision", "every number stays the same"),
    (RUBiForgottenMask, "all_in_optimizers", "in no optimizer: mask.weight, mask.bias"),
    (LNLWrongOptimizer, "all_in_optimizers", "in no optimizer: head.weight, head.bias"),
    (LNLSoftmaxThenLog, "finite_when_certain", "NaN or infinite"),
    (LNLHeadNotSaved, "resumes", "the end differs"),
    (LNLHeadNotSaved, "all_in_optimizers", "no parameters of the method"),
    (TABENoise, "reproducible", "draws from torch's global generator"),
    (TABEHelps, "moves_what_it_names", "twice"),
    (HEXAllOnes, "learns", "cross-entropy"),
    (MTLNoise, "predict_is_pure", "two predictions of one image differ"),
    (ExpertDrifts, "moves_what_it_names", "moves the buffer"),
    (ExpertFreezesToo, "finite_loss", "training stopped"),
)
"""A wrong implementation, the check that catches it, and words of its verdict."""
