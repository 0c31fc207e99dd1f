"""Gray: ERM on grayscale images, the baseline of LNL against colour bias (Kim et al., CVPR 2019)."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from debias_zoo.method import Batch, Clock, Method, Paper, Recipe

from .losses.precision import wide
from .schedules import LNL_CMNIST

LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601 weights of red, green and blue; the paper does not say which it used."""


class Gray(Method):
    """Cross-entropy on the luma 0.299 R + 0.587 G + 0.114 B, repeated to three channels, in training *and* at test.

    All parameters are trained by the one loss; no bias labels, but the method is built for colour: elsewhere it is
    ERM with less to see. On Colored MNIST the lumas of the ten mean colours still differ, so some bias is left.

    Differs from the paper: its luma weights are not documented, these are the usual ones.
    """

    name = "gray"
    version = 1
    knows_bias_kind = True
    paper = Paper(
        title="Learning Not to Learn: Training Deep Neural Networks with Biased Data",
        authors="Kim, Kim, Kim, Kim, Kim",
        venue="CVPR",
        year=2019,
        arxiv="1812.10352",
        code="https://github.com/feidfoe/learning-not-to-learn",
    )
    recipes = (
        Recipe(
            protocol="paper",
            dataset="cmnist",
            source="Gray of LNL, trained like its baseline: feidfoe/learning-not-to-learn, baseline_train.sh",
            backbone="lnl_convnet",
            normalize="cifar",
            settings=LNL_CMNIST,
        ),
    )

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(wide(self.predict(batch.image)), batch.label)}

    def features(self, image: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b d"]:
        return self.net.features(to_gray(image))

    def predict(self, image: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b classes"]:
        logits: Tensor = self.net(to_gray(image))
        return logits


def to_gray(image: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b channels height width"]:
    """The luma of (B, 3, H, W) images, repeated over the channels; other numbers of channels pass unchanged."""
    if image.shape[1] != len(LUMA):
        return image
    red, green, blue = image.unbind(1)
    luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue  # (B, H, W)
    return luma.unsqueeze(1).expand_as(image)
