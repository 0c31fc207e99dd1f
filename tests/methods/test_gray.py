from __future__ import annotations

import torch
from replicas import assert_same_gradients, clock, cross_entropy, lnl_net, make_batch, make_method, weights

from debias_zoo.datasets.cmnist import COLOURS
from debias_zoo.methods.gray import to_gray


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
    assert torch.equal(method.features(batch.image), method.net.features(to_gray(batch.image)))


def test_luma_of_the_mean_colours() -> None:
    """Crimson, teal and violet collide, lemon, pink and lime do, maroon stands alone: gray leaks some of the class."""
    colours = torch.tensor(list(COLOURS.values())).double().view(10, 3, 1, 1)
    found = [round(float(value)) for value in to_gray(colours)[:, 0, 0, 0]]
    assert found == [84, 90, 214, 108, 160, 82, 189, 212, 213, 38]


def test_other_numbers_of_channels_pass() -> None:
    image = torch.rand(2, 1, 4, 4)
    assert torch.equal(to_gray(image), image)
