"""RUBi: Reducing Unimodal Biases (Cadene, Dancette, Ben-younes, Cord, Parikh, NeurIPS 2019, arXiv:1906.10169)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from debias_zoo.method import Backbones, Batch, Clock, Method, Optim, Paper, Recipe, Task, Update, setting

from .losses.groups import batch_bias
from .losses.precision import wide
from .schedules import REBIAS_MNIST, SHRESTHA_CELEBA


class RUBi(Method):
    """Mask the logits by what a network says that can see nothing but the bias: easy images then teach little.

    f is the network that is wanted, g one of small capacity (1x1 convolutions see colour alone); the mask
    m = W stopgrad(g_feat(x)) + c, one logit a class, is a head of its own. On every batch, in turn:

        biased:    L_g = CE(g(x), y)                                                  steps g
        debiased:  L_f = CE(f(x) * sigmoid(m), y) + w CE(m, y)                        steps f, W and c

    g is run again after its step, in training mode: it uses batch statistics and moves them, as in ReBias' trainer. No
    gradient of L_f reaches g. No bias labels, but the architecture of g must fit the kind of bias. Prediction: f(x),
    without the mask.

    Differs from the paper, which is on questions about images: this is ReBias' form for images, where g takes the place
    of a model of the question alone, and one linear head is both the mask and the bias classifier. Differs from ReBias'
    code: the head is trained, as the paper writes; there it reaches no optimizer, so that the mask is random and
    CE(m, y) idle, which ``freeze_mask_head`` does too.
    """

    name = "rubi"
    version = 1
    knows_bias_kind = True
    moves_buffers = {"debiased": ("biased.",)}
    paper = Paper(
        title="RUBi: Reducing Unimodal Biases for Visual Question Answering",
        authors="Cadene, Dancette, Ben-younes, Cord, Parikh",
        venue="NeurIPS",
        year=2019,
        arxiv="1906.10169",
        code="https://github.com/cdancette/rubi.bootstrap.pytorch",
    )

    class Config(Method.Config):
        """Settings; each says where its default comes from."""

        mask_weight: float = setting(
            1.0, "weight w of the mask's own cross-entropy", source="paper", search=(0.1, 10, "log"), ge=0
        )
        freeze_mask_head: bool = setting(
            False, "leave the mask's head at its initial weights, as ReBias' code does", source="paper: trained"
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
            source="RUBi of ReBias' comparison: clovaai/rebias, main_biased_mnist.py, criterions/comparison_methods.py",
            backbone="simple_convnet",
            backbone_options={"kernel": 7},
            normalize="half",
            settings=REBIAS_MNIST,
            deviations=("the mask's head is trained",),
        ),
    )

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.biased = backbones(config.biased_backbone, role="biased", **config.biased_options)
        self.mask = nn.Linear(self.biased.dim, task.classes).requires_grad_(not config.freeze_mask_head)

    def optimizers(self) -> Mapping[str, Optim]:
        return {
            "biased": Optim(self.biased.parameters()),
            "main": Optim([*self.net.parameters(), *self.mask.parameters()]),
        }

    def updates(self, clock: Clock) -> Sequence[Update]:
        return [Update("biased", ("biased",)), Update("debiased", ("main",))]

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        if loss == "biased":
            return {"loss": F.cross_entropy(wide(self.biased(batch.image)), batch.label)}
        with torch.no_grad():
            theirs = self.biased.features(batch.image)
        return masked_losses(self.net(batch.image), self.mask(theirs), batch.label, self.config.mask_weight)


class LabelRUBi(Method):
    """RUBi with the bias label itself, one-hot, in place of what a biased network sees (Shrestha et al., WACV 2022).

        main:  L = CE(f(x) * sigmoid(m), y) + w CE(m, y),   m = W onehot(b) + c                 steps f, W and c

    Reads bias labels of the training split. Prediction: f(x), without the mask.

    Differs from the paper: as RUBi does, and there is no network that reads the biased part of the input.
    """

    name = "rubi_label"
    version = 1
    sees_bias = True
    needs_conflicting = True
    paper = Paper(
        title="RUBi: Reducing Unimodal Biases for Visual Question Answering",
        authors="Cadene, Dancette, Ben-younes, Cord, Parikh",
        venue="NeurIPS",
        year=2019,
        arxiv="1906.10169",
        code="https://github.com/erobic/bias-mitigators",
    )

    class Config(Method.Config):
        """Settings; each says where its default comes from."""

        mask_weight: float = setting(
            1.0, "weight w of the mask's own cross-entropy", source="paper", search=(0.1, 10, "log"), ge=0
        )

    recipes = (
        Recipe(
            protocol="paper",
            dataset="celeba",
            source="RUBi of Shrestha et al.: erobic/bias-mitigators, rubi_celebA.sh, celebA_experiments.py",
            backbone="resnet18",
            normalize="imagenet",
            settings=SHRESTHA_CELEBA,
            deviations=("they report the mean of the epochs 40 to 50",),
        ),
    )

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.mask = nn.Linear(task.biases, task.classes)

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        one_hot = F.one_hot(batch_bias(batch), self.task.biases).to(self.mask.weight.dtype)  # (B, biases)
        return masked_losses(self.net(batch.image), self.mask(one_hot), batch.label, self.config.mask_weight)


def masked_losses(
    logits: Float[Tensor, "b c"], mask: Float[Tensor, "b c"], label: Int[Tensor, " b"], weight: float
) -> dict[str, Float[Tensor, ""]]:
    """``loss`` CE(logits sigmoid(mask), y) + weight CE(mask, y), and the latter's ``mask`` part. (B, classes) each."""
    logits, mask = wide(logits), wide(mask)
    own = F.cross_entropy(mask, label)
    return {"loss": F.cross_entropy(logits * torch.sigmoid(mask), label) + weight * own, "mask": own}
