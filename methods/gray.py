"""Gray: ERM on grayscale images, the baseline of LNL against colour bias (Kim et al., CVPR 2019)."""

from __future__ import annotations

from typing import Literal, assert_never

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from debias_zoo.method import Batch, Clock, Method, Paper, Recipe, setting

from .losses.precision import wide
from .schedules import LNL_CMNIST

LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601 weights of red, green and blue: the grey of Pillow and OpenCV."""

LUMA_709 = (0.2125, 0.7154, 0.0721)
"""ITU-R BT.709 weights as scikit-image has them."""

Conversion = Literal["luma", "luma709", "mean", "lightness"]
"""How a colour becomes grey: the two lumas, the mean of the channels, or (max + min) / 2 of them."""


class Gray(Method):
    """Cross-entropy on grey images, by default the luma 0.299 R + 0.587 G + 0.114 B, in training *and* at test.

    All parameters are trained by the one loss; no bias labels, but the method is built for colour: elsewhere it is
    ERM with less to see. The grey is repeated to three channels. On Colored MNIST the greys of the ten mean colours
    still differ, so some bias is left; how much hangs on the conversion.

    Differs from the paper: its conversion is not documented, the luma is the usual one.
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

    class Config(Method.Config):
        """Settings; each says where its default comes from."""

        conversion: Conversion = setting(
            "luma",
            "grey of a colour: luma (BT.601), luma709 (BT.709), mean of the channels, lightness (max + min) / 2",
            source="ours, the paper names none",
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
        return self.net.features(self._gray(image))

    def predict(self, image: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b classes"]:
        logits: Tensor = self.net(self._gray(image))
        return logits

    def _gray(self, image: Tensor) -> Tensor:
        return to_gray(image, self.config.conversion)


def to_gray(
    image: Float[Tensor, "b channels height width"], conversion: Conversion = "luma"
) -> Float[Tensor, "b channels height width"]:
    """The grey of (B, 3, H, W) images, repeated over the channels; other numbers of channels pass unchanged."""
    if image.shape[1] != len(LUMA):
        return image
    match conversion:
        case "luma":
            gray = _weighted(image, LUMA)
        case "luma709":
            gray = _weighted(image, LUMA_709)
        case "mean":
            gray = image.mean(1)
        case "lightness":
            gray = (image.amax(1) + image.amin(1)) / 2
        case _:
            assert_never(conversion)
    return gray.unsqueeze(1).expand_as(image)


def _weighted(image: Tensor, weights: tuple[float, float, float]) -> Tensor:
    """(B, H, W): the sum of red, green and blue so weighted."""
    red, green, blue = image.unbind(1)
    return weights[0] * red + weights[1] * green + weights[2] * blue
