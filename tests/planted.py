"""Methods written from their papers' equations, each beside the mistakes that public code makes in it.

The correct ones must pass every check; each mistake must be caught. The classes name the code base it was found in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from debias_zoo.method import Backbones, Batch, Clock, Method, Optim, Paper, Task, Update, View

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
        q, _ = torch.linalg.qr(alone)
        return both - q @ (q.T @ both)

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
        q, _ = torch.linalg.qr(alone)
        return (1.0 - q @ q.T) @ both


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
