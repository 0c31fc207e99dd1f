from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image
from replicas import assert_same_gradients, clock, cross_entropy, lnl_net, make_batch, make_method, weights

from debias_zoo.datasets.cmnist import COLOURS
from debias_zoo.methods.gray import Conversion, to_gray


def test_trains_and_predicts_on_the_luma() -> None:
    method, batch = make_method("gray"), make_batch()
    red, green, blue = batch.image[:, 0], batch.image[:, 1], batch.image[:, 2]
    luma = torch.stack([0.299 * red + 0.587 * green + 0.114 * blue] * 3, 1)
    w = weights(method)
    assert_same_gradients(
        method, method("main", batch, clock())["loss"], cross_entropy(lnl_net(w, luma)[0], batch.label), w, ("net.",)
    )
    method.eval()
    w = weights(method)
    torch.testing.assert_close(method.predict(batch.image), lnl_net(w, luma, training=False)[0])
    torch.testing.assert_close(method.features(batch.image), method.net.features(luma))


GRAYS: dict[Conversion, list[int]] = {
    "luma": [84, 90, 214, 108, 160, 82, 189, 212, 213, 38],
    "luma709": [65, 101, 222, 120, 156, 66, 204, 208, 224, 27],
    "mean": [100, 85, 167, 110, 138, 121, 183, 211, 172, 43],
    "lightness": [120, 64, 134, 91, 135, 109, 155, 218, 152, 64],
}


@pytest.mark.parametrize("conversion", GRAYS)
def test_gray_of_the_mean_colours(conversion: Conversion) -> None:
    """By the luma crimson, teal and violet collide, lemon, pink and lime do, maroon stands alone: some class leaks."""
    colours = torch.tensor(list(COLOURS.values())).double().view(10, 3, 1, 1)
    found = to_gray(colours, conversion)
    assert found.shape == (10, 3, 1, 1)
    assert torch.equal(found[:, 0], found[:, 1])
    assert torch.equal(found[:, 0], found[:, 2])
    assert [round(float(value)) for value in found[:, 0, 0, 0]] == GRAYS[conversion]


def test_conversions_are_those_of_others() -> None:
    random = torch.randint(0, 256, (1, 3, 16, 16), generator=torch.Generator().manual_seed(0)).double()
    pillow = Image.fromarray(random[0].permute(1, 2, 0).byte().numpy()).convert("L")
    assert (to_gray(random, "luma")[0, 0] - torch.tensor(np.array(pillow))).abs().max() <= 1
    scikit_image = random[0].permute(1, 2, 0) @ torch.tensor([0.2125, 0.7154, 0.0721], dtype=torch.float64)
    torch.testing.assert_close(to_gray(random, "luma709")[0, 2], scikit_image)  # its rgb2gray
    lightness = [colorsys.rgb_to_hls(*pixel)[1] for pixel in (random / 255)[0].flatten(1).T.tolist()]
    theirs = torch.tensor(lightness, dtype=torch.float64)
    torch.testing.assert_close((to_gray(random, "lightness") / 255)[0, 1].flatten(), theirs)


def test_another_conversion_is_trained_on_and_kept_at_test() -> None:
    method, batch = make_method("gray", conversion="lightness"), make_batch()
    gray = ((batch.image.amax(1) + batch.image.amin(1)) / 2).unsqueeze(1).expand(-1, 3, -1, -1)
    w = weights(method)
    assert_same_gradients(
        method, method("main", batch, clock())["loss"], cross_entropy(lnl_net(w, gray)[0], batch.label), w, ("net.",)
    )
    method.eval()
    torch.testing.assert_close(method.predict(batch.image), lnl_net(weights(method), gray, training=False)[0])
    torch.testing.assert_close(method.features(batch.image), method.net.features(gray))


def test_other_numbers_of_channels_pass() -> None:
    image = torch.rand(2, 1, 4, 4)
    assert torch.equal(to_gray(image), image)
