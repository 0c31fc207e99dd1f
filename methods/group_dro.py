"""Group-DRO: Distributionally Robust Neural Networks for Group Shifts (Sagawa et al., ICLR 2020, arXiv:1911.08731)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from debias_zoo.errors import ZooError
from debias_zoo.method import (
    Backbones,
    Batch,
    Clock,
    Method,
    Paper,
    Recipe,
    Settings,
    Stage,
    Task,
    View,
    Weights,
    setting,
)

from .losses.groups import balancing_weights, batch_groups, group_means, training_counts, view_groups
from .losses.precision import wide
from .schedules import CELEBA, LFF_CMNIST, WATERBIRDS


class GroupDRO(Method):
    """Minimise the loss of the worst group: group weights q follow the group losses by exponentiated gradient ascent.

    Groups are (label, bias); l_k is the mean CE over the images of group k in the batch, n_k its training images. On
    every batch, of images drawn with weight 1 / n_k, so that groups are equally likely:

        a_k = l_k + C_k / sqrt(n_k)             of the groups in the batch; C is the group adjustment
        q_k <- q_k exp(eta stopgrad a_k),       q <- q / sum q
        L = sum_k q_k l_k                       steps the network, with the new q; q is constant

    q starts uniform and lasts over the whole training. Reads bias labels of the training split. Prediction: f(x).

    Differs from the paper: q is kept as its logarithm, so that no weight underflows to 0 for ever; it starts uniform
    over the groups that have training images. Unlike the authors' code: groups that the batch lacks are passed over
    (there they are raised by their adjustment alone), and a group with C_k = 0 does not switch the others' off.
    """

    name = "group_dro"
    version = 1
    sees_bias = True
    needs_conflicting = True
    moves_buffers = {"main": ("log_q",)}
    paper = Paper(
        title="Distributionally Robust Neural Networks for Group Shifts: On the Importance of Regularization for "
        "Worst-Case Generalization",
        authors="Sagawa, Koh, Hashimoto, Liang",
        venue="ICLR",
        year=2020,
        arxiv="1911.08731",
        code="https://github.com/kohpangwei/group_DRO",
    )

    class Config(Method.Config):
        """Settings; each says where its default comes from."""

        eta: float = setting(0.01, "step size of q", source="paper", search=(1e-3, 1e-1, "log"), ge=0)
        adjustment: Annotated[float, Field(ge=0)] | tuple[Annotated[float, Field(ge=0)], ...] = setting(
            0.0,
            "group adjustment C, one number or one for each group (label * biases + bias)",
            source="paper; 0 to 5 tried there",
            search=[0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
        )

    recipes = (
        Recipe(
            protocol="paper",
            dataset="cmnist-lff",
            source="the row in DeNetDM, Table 1; net and settings: alinlab/LfF, config.py",
            backbone="mlp",
            backbone_options={"depth": 3, "width": 100},
            normalize="bytes",
            settings=LFF_CMNIST,
            deviations=("DeNetDM gives no settings for its Group-DRO: these are LfF's, eta is Group-DRO's own",),
        ),
        Recipe(
            protocol="paper",
            dataset="waterbirds",
            source="paper, appendix C.2 and Table 2: strong l2 penalty, C = 2",
            backbone="resnet50",
            pretrained=True,
            normalize="imagenet",
            settings=Settings(lr=1e-5, weight_decay=1.0).over(WATERBIRDS),
            config={"adjustment": 2.0},
        ),
        Recipe(
            protocol="paper",
            dataset="celeba",
            source="paper, appendix C.2 and Table 1: strong l2 penalty",
            backbone="resnet50",
            pretrained=True,
            normalize="imagenet",
            settings=Settings(lr=1e-5, weight_decay=0.1).over(CELEBA),
        ),
    )

    log_q: Tensor
    margin: Tensor
    weight: Tensor

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        counts = training_counts(task)
        self.register_buffer("log_q", F.log_softmax((counts > 0).float().log(), 0))  # -inf for empty groups
        self.register_buffer("margin", adjustments(config.adjustment, counts))
        self.register_buffer("weight", torch.ones(task.train_size))

    def start_stage(self, stage: Stage, train: View) -> None:
        self.weight.copy_(balancing_weights(view_groups(train, self.task), len(self.log_q)))

    def sampling(self) -> Weights:
        return Weights(self.weight)

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        losses = F.cross_entropy(wide(self.net(batch.image)), batch.label, reduction="none")
        means, sizes = group_means(losses, batch_groups(batch, self.task), len(self.log_q))
        self.log_q.copy_(ascend(self.log_q, means.detach() + self.margin, sizes > 0, self.config.eta))
        return {"loss": (self.log_q.exp() * means).sum(), "worst_group": means.max()}


def adjustments(strength: float | Sequence[float], counts: Float[Tensor, " groups"]) -> Float[Tensor, " groups"]:
    """(G,): C_k / sqrt(n_k) of groups with n_k training images, counts (G,); C one number or one for each group."""
    c = torch.as_tensor(strength, dtype=counts.dtype)
    if c.dim() and len(c) != len(counts):
        raise ZooError(f"group_dro: adjustment has {len(c)} numbers; give one, or one for each of {len(counts)} groups")
    return c / counts.clamp(min=1).sqrt()


def ascend(
    log_q: Float[Tensor, " groups"], adjusted: Float[Tensor, " groups"], present: Bool[Tensor, " groups"], eta: float
) -> Float[Tensor, " groups"]:
    """Log-weights q (G,) after q_k <- q_k exp(eta a_k) for the groups that are ``present`` (G,), and q <- q / sum q."""
    return F.log_softmax(log_q + torch.where(present, eta * adjusted, 0.0), 0)
