"""Domain-independent training: Towards Fairness in Visual Recognition (Wang et al., CVPR 2020, arXiv:1911.11834)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from debias_zoo.method import Backbones, Batch, Clock, Method, Paper, Task

from .losses.groups import batch_bias
from .losses.precision import wide


class DomainIndependent(Method):
    """One classifier for each value of the bias (domain) on shared features, so that none can use the bias.

    Head d gives logits z^d; b_i is the bias of image i:

        L = mean_i CE(z_i^{b_i}, y_i)         steps the network and head b_i; other heads get no gradient from image i

    Reads bias labels of the training split. Prediction: the mean of all heads' logits, for which no bias label is
    needed; the logits are summed in the paper, with the same order of classes. A head that has never seen a class can
    say nothing of it: with few bias-conflicting images the heads disagree.
    """

    name = "domain_independent"
    version = 1
    sees_bias = True
    needs_conflicting = True
    paper = Paper(
        title="Towards Fairness in Visual Recognition: Effective Strategies for Bias Mitigation",
        authors="Wang, Qinami, Karakozis, Genova, Nair, Hata, Russakovsky",
        venue="CVPR",
        year=2020,
        arxiv="1911.11834",
        code="https://github.com/princetonvisualai/DomainBiasMitigation",
    )

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        nn.Module.__init__(self)
        self.task, self.config = task, config
        self.net = backbones(head=False)
        self.heads = nn.Linear(self.net.dim, task.biases * task.classes)

    def logits(self, image: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b biases classes"]:
        """(B, biases, classes): the logits of every head."""
        return wide(self.heads(self.features(image))).view(len(image), self.task.biases, self.task.classes)

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(own_head(self.logits(batch.image), batch_bias(batch)), batch.label)}

    def predict(self, image: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b classes"]:
        return self.logits(image).mean(1)


def own_head(logits: Float[Tensor, "b biases classes"], bias: Int[Tensor, " b"]) -> Float[Tensor, "b classes"]:
    """(B, classes): of logits (B, biases, classes) those of the head of each image's bias, int64 (B,)."""
    return logits.gather(1, bias[:, None, None].expand(-1, 1, logits.shape[2])).squeeze(1)
