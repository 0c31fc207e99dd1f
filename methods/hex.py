"""HEX: Projecting Superficial Statistics Out (Wang, He, Lipton, Xing, ICLR 2019, arXiv:1903.06256)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from debias_zoo.errors import ZooError
from debias_zoo.method import Backbones, Batch, Clock, Method, Paper, Recipe, Task, View, setting

from .gray import to_gray
from .losses.nglcm import NGLCM
from .losses.precision import full_precision, wide
from .losses.projection import project_out
from .schedules import REBIAS_MNIST

TEXTURE_DIM = 32
"""Width d_g of the texture branch g: what it alone predicts has rank min(classes, d_g + 1)."""

SMALLEST_NORM = 1e-6
"""Columns of a smaller norm are not blown up to norm 1 (the authors' l2_normalize)."""

MEASURED = 4096
"""About how many training images the norms of ``predict`` are measured on."""


class HEX(Method):
    """Predict with what is orthogonal, over a batch, to all that texture alone predicts.

    h(x) are the backbone's features, g(x) = ReLU(W_m vec(G(x)) + b_m) the texture of the gray image, read from a neural
    co-occurrence matrix G (``losses/nglcm.py``). Each feature, a column of h and g, is divided by its l2 norm over the
    batch. With one linear layer f, all in one batch as matrices (B, classes):

        F_A = f([h, g]),  F_G = f([0, g]),  F_L = (I - F_G (F_G' F_G)^-1 F_G') F_A
        L   = CE(F_L, y)                                     steps everything, through the projector as well

    so that F_L = (I - P) h W_h. No bias labels, but the method is built for texture (for colour it sees luminance
    alone, relative to the brightest pixel: nothing of a flat colour on black). Prediction: F_P = f([h, 0]).

    Differs from the paper: at test h is divided by norms that a batch of training images has, found after every epoch,
    instead of those of the test batch, so that each image is predicted by itself; the projector is a QR decomposition
    (the normal equations are singular where texture cannot tell the classes apart); gray levels are those of the luma,
    of an image scaled down to ``texture_side``; there is no dropout on h besides the backbone's own.
    """

    name = "hex"
    version = 1
    knows_bias_kind = True
    min_batch = 34  # more than d_g + 1, the largest rank: else nothing is left of a batch
    moves_buffers = {"main": ("batch_size",)}
    paper = Paper(
        title="Learning Robust Representations by Projecting Superficial Statistics Out",
        authors="Wang, He, Lipton, Xing",
        venue="ICLR",
        year=2019,
        arxiv="1903.06256",
        code="https://github.com/HaohanWang/HEX",
    )

    class Config(Method.Config):
        """Settings; each says where its default comes from."""

        levels: int = setting(16, "gray levels of the co-occurrence matrix", source="paper", search=[8, 16, 32], ge=2)
        texture_side: int = setting(
            128, "largest side of the image that the co-occurrence matrix sees", source="authors' run.py", ge=2
        )

    norms: Tensor
    batch_size: Tensor

    recipes = (
        Recipe(
            protocol="paper",
            dataset="biased-mnist",
            source="trained like all methods of ReBias' comparison (clovaai/rebias), which releases no HEX",
            backbone="simple_convnet",
            backbone_options={"kernel": 7},
            normalize="half",
            settings=REBIAS_MNIST,
            deviations=("how ReBias trained HEX is not published",),
        ),
    )

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        nn.Module.__init__(self)  # the backbone has no classifier
        if task.classes > TEXTURE_DIM + 1:
            raise ZooError(
                f"hex projects out what {TEXTURE_DIM} texture features predict: at most {TEXTURE_DIM + 1} classes; "
                f"there are {task.classes}"
            )
        self.task, self.config = task, config
        self.net = backbones(head=False)
        self.texture = NGLCM(config.levels)
        self.summary = _linear(config.levels**2, TEXTURE_DIM)
        self.last = _linear(self.net.dim + TEXTURE_DIM, task.classes)
        self.register_buffer("norms", torch.ones(self.net.dim))
        self.register_buffer("batch_size", torch.ones(()))

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        if len(batch.label) <= self.task.classes:
            raise ZooError(f"hex needs batches of more than {self.task.classes} images, one a class; got less")
        self.batch_size.clamp_(min=float(len(batch.label)))
        h = self.net.features(batch.image)
        with full_precision(batch.image):
            h = F.normalize(wide(h), dim=0, eps=SMALLEST_NORM)
            g = F.normalize(self.texture_features(batch.image), dim=0, eps=SMALLEST_NORM)
            both = self.last(torch.cat([h, g], 1))  # F_A
            alone = self.last(torch.cat([torch.zeros_like(h), g], 1))  # F_G
        return {"loss": F.cross_entropy(project_out(both, alone), batch.label)}

    def texture_features(self, image: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b texture"]:
        """g, (B, TEXTURE_DIM), before it is normalised. image: (B, C, H, W)."""
        gray = to_gray(image).mean(1)  # (B, H, W)
        height, width = (min(side, self.config.texture_side) for side in gray.shape[1:])
        if gray.shape[1:] != (height, width):
            gray = F.adaptive_avg_pool2d(gray, (height, width))
        return F.relu(self.summary(self.texture(gray).flatten(1)))

    def end_epoch(self, clock: Clock, train: View) -> None:
        squares, count = torch.zeros_like(self.norms), 0
        for batch in train.batches(128, every=-(-len(train.labels) // MEASURED)):
            squares += wide(self.net.features(batch.image)).square().sum(0)
            count += len(batch.label)
        self.norms.copy_((self.batch_size * squares / count).sqrt().clamp(min=SMALLEST_NORM))

    def features(self, image: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b d"]:
        return wide(self.net.features(image)) / self.norms

    def predict(self, image: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b classes"]:
        return F.linear(self.features(image), self.last.weight[:, : self.net.dim], self.last.bias)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer as the authors begin it: a normal of deviation 0.1 cut off at two deviations, no bias."""
    layer = nn.Linear(inputs, outputs)
    nn.init.trunc_normal_(layer.weight, std=0.1, a=-0.2, b=0.2)
    nn.init.zeros_(layer.bias)
    return layer
