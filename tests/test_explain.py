"""Grad-CAM: against known heat and a literal replica, on every backbone and method; the command on trained runs."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from debias_zoo import registry
from debias_zoo.backbones import Backbone, BackboneFactory
from debias_zoo.dataset import BiasDataset, Card, Split
from debias_zoo.errors import ZooError
from debias_zoo.explain import conflicting
from debias_zoo.gradcam import grad_cam, heat_of, inside
from debias_zoo.grid import parse_datasets
from debias_zoo.maps import as_map, from_map, last_map, map_point
from debias_zoo.method import Method, Task
from debias_zoo.nets import StagedNet
from debias_zoo.registry import entries, load_method
from debias_zoo.testing.bench import Bench, Plain


class Given(BackboneFactory):
    """Hands out a network that is there."""

    def __init__(self, net: Backbone) -> None:
        self.net = net

    def __call__(self, *given: Any, **options: Any) -> Backbone:
        return self.net


def plain(net: Backbone) -> Method:
    """A method that predicts with ``net``."""
    return Plain(Given(net), Task(2, 0, 1, net.image_shape), None).eval()


def small(stages: list[nn.Module], channels: list[int], size: int = 4) -> Backbone:
    """A backbone whose network is made by hand; for grey images of 2 classes."""
    net = Backbone("simple_convnet", 2, (1, size, size))
    net.model = StagedNet(stages, channels, 2)
    net.taps = len(stages)
    return net.eval()


def images_of(shape: tuple[int, int, int], count: int = 3) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


# --- the formula


@pytest.mark.parametrize("label", [0, 1])
def test_the_heat_of_a_convolution_and_a_linear_head_is_known(label: int) -> None:
    net = small([nn.Conv2d(1, 2, 1, bias=False)], [2])
    weights = torch.tensor([[1.0, -3.0], [-2.0, 0.5]])
    with torch.no_grad():
        net.model.stages[0].weight.copy_(torch.tensor([1.0, 2.0]).view(2, 1, 1, 1))
        net.model.fc.weight.copy_(weights)
    pixels = np.zeros((1, 4, 4, 1), np.uint8)
    pixels[0, 1, 2], pixels[0, 3, 3] = 255, 51
    heat = heat_of(plain(net), pixels, np.array([label]), "label")
    # A_1 = x, A_2 = 2x; z_c = sum_k w_ck mean(A_k), so alpha_k = w_ck / 16
    alpha = weights[label] / 16
    expected = np.maximum(float(alpha[0] + 2 * alpha[1]) * pixels[..., 0] / 255.0, 0.0)
    np.testing.assert_allclose(heat.maps, expected, atol=1e-7)
    assert (heat.layer, heat.map_size) == ("stages.0", (4, 4))


def test_heat_is_for_the_class_that_is_asked() -> None:
    net = small([nn.Conv2d(1, 1, 1, bias=False)], [1])
    with torch.no_grad():
        net.model.stages[0].weight.fill_(1.0)
        net.model.fc.weight.copy_(torch.tensor([[2.0], [-1.0]]))
        net.model.fc.bias.zero_()
    pixels = np.full((1, 4, 4, 1), 255, np.uint8)
    predicted, label = (heat_of(plain(net), pixels, np.array([1]), of) for of in ("predicted", "label"))
    assert predicted.predicted.tolist() == label.predicted.tolist() == [0]
    np.testing.assert_allclose(predicted.maps, np.full((1, 4, 4), 2.0 / 16), rtol=1e-6)
    assert not label.maps.any(), "every pixel speaks against class 1"


def literal(a: Tensor, logits: Tensor, target: Tensor) -> Tensor:
    """Equations 1 and 2 of the paper, image by image, channel by channel. a: (B, C, h, w)."""
    heat = torch.zeros(len(a), *a.shape[2:], dtype=a.dtype)
    for i in range(len(a)):
        (grad,) = torch.autograd.grad(logits[i, target[i]], a, retain_graph=True)
        for k in range(a.shape[1]):
            alpha = grad[i, k].sum() / (a.shape[2] * a.shape[3])
            heat[i] += alpha * a[i, k].detach()
    return heat.clamp(min=0)


def test_captum_computes_the_papers_equations() -> None:
    torch.manual_seed(0)
    net = Backbone("lnl_convnet", 4, (3, 28, 28)).double().eval()
    image, target = images_of((3, 28, 28)).double(), torch.tensor([3, 0, 2])
    for stage in range(net.taps):
        a = net.tap(image, stage).detach().requires_grad_()
        x: Any = a
        for layer in net.model.stages[stage + 1 :]:
            x = layer(x)
        expected = literal(a, net.model.fc(x.mean((2, 3))), target)
        found = grad_cam(plain(net), net, stage, image, target)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        assert found.any()


def test_tokens_are_a_map_without_the_class_token() -> None:
    torch.manual_seed(0)
    net = Backbone("vit_tiny_patch16_224", 4, (3, 64, 64)).double().eval()
    image, target = images_of((3, 64, 64), 2).double(), torch.tensor([3, 0])
    assert last_map(net) == net.taps - 2, "no logit depends on the patches after the last block"
    model = net.model
    with torch.no_grad():
        tokens = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(net.normalize(image)))))
        for block in model.blocks[:-1]:
            tokens = block(tokens)  # (B, 1 + 16, C)
    a = tokens[:, 1:].transpose(1, 2).reshape(2, 192, 4, 4).requires_grad_()
    x = model.blocks[-1](torch.cat([tokens[:, :1], a.flatten(2).transpose(1, 2)], 1))
    expected = literal(a, model.head(model.norm(x)[:, 0]), target)
    found = grad_cam(plain(net), net, net.taps - 2, image, target)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-15)
    assert found.any()


@pytest.mark.parametrize("form", ["maps", "channels last", "tokens", "tokens behind others"])
def test_a_map_is_found_in_an_output_and_put_back(form: str) -> None:
    z = torch.arange(2.0 * 3 * 4 * 5).view(2, 3, 4, 5)
    tokens = z.flatten(2).transpose(1, 2)
    first = torch.full((2, 2, 3), -1.0)
    output = {
        "maps": z,
        "channels last": z.permute(0, 2, 3, 1),
        "tokens": tokens,
        "tokens behind others": torch.cat([first, tokens], 1),
    }[form]
    found = as_map(output, (3, 4, 5))
    assert found is not None
    assert torch.equal(found, z)
    assert torch.equal(from_map(found, output), output)
    assert as_map(output, (7, 4, 5)) is None


# --- backbones and methods


@pytest.mark.parametrize(
    ("name", "size", "layer", "side"),
    [
        ("lnl_convnet", 28, "stages.3", 7),
        ("simple_convnet", 28, "stages.3", 28),
        ("resnet20", 32, "stages.2", 8),
        ("resnet18", 64, "layer4", 2),
        ("resnet18", 32, "layer3", 2),  # layer4 is 1 x 1
        ("convnext_atto", 64, "stages.3", 2),
        ("vit_tiny_patch16_224", 64, "blocks.10", 4),
        ("efficientnet_lite0", 64, "blocks.6", 2),
        ("swin_tiny_patch4_window7_224", 56, "layers.3", 2),
        ("densenet121", 64, "features.norm5", 2),
        ("vgg11", 64, "features.20", 2),
    ],
)
def test_the_last_map_of_backbones(name: str, size: int, layer: str, side: int) -> None:
    torch.manual_seed(0)
    try:
        net = Backbone(name, 3, (3, size, size)).eval()
    except ZooError as error:
        if "its timm model has no forward_intermediates" not in str(error):
            raise
        pytest.skip(str(error))
    before = net(images_of((3, size, size))).detach()
    pixels = (images_of((3, size, size)).permute(0, 2, 3, 1) * 255).byte().numpy()
    found = heat_of(plain(net), pixels, np.array([0, 1, 2]))
    assert (found.layer, found.map_size) == (layer, (side, side))
    assert found.maps.shape == (3, size, size)
    assert np.isfinite(found.maps).all()
    assert found.maps.any()
    assert torch.equal(net(images_of((3, size, size))), before), "the network was left as it was"
    assert not any(module._forward_hooks for module in net.modules())


def test_every_listed_backbone_has_a_map_or_says_why_not() -> None:
    for name in registry.entries("backbone"):
        net = Backbone(name, 3, (3, 28, 28)).eval()
        if name == "mlp":
            with pytest.raises(ZooError, match=r"'mlp' has no map larger than 1 x 1.*--backbone lnl_convnet"):
                last_map(net)
        else:
            assert net.tap_module(last_map(net))[1] in list(net.modules())


def test_a_tap_that_is_no_modules_output_is_said() -> None:
    net = small([nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1)], [2, 2])
    net.model.feature_info[1]["module"] = "stages.0"
    with pytest.raises(ZooError, match=r"its tap 1 is not the output of its module 'stages.0'"):
        last_map(net)
    net.model.feature_info[1]["module"] = "stages.7"
    with pytest.raises(ZooError, match=r"no module 'stages.7', which its tap 1 names"):
        last_map(net)


def test_a_dead_network_has_no_heat_and_raises_nothing() -> None:
    net = small([nn.Conv2d(1, 2, 1), nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU())], [2, 2])
    with torch.no_grad():
        net.model.stages[1][0].bias.fill_(-100.0)
    found = heat_of(plain(net), np.full((1, 4, 4, 1), 9, np.uint8), np.array([0]))
    assert found.layer == "stages.1"
    assert not found.maps.any()


@pytest.mark.parametrize("name", sorted(entries("method")))
def test_every_method_can_be_explained(name: str) -> None:
    bench = Bench(load_method(name))
    method = bench.build().eval().requires_grad_(False)
    pixels = np.asarray(bench.even.images[:4])
    found = heat_of(method, pixels, bench.even.labels[:4])
    assert (found.layer, found.maps.shape) == ("stages.3", (4, 12, 12))
    image = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255.0
    assert found.predicted.tolist() == method.predict(image).argmax(1).tolist()
    assert found.maps.any()


class Aside(Plain):
    name = "aside"

    def predict(self, image: Tensor) -> Tensor:
        return image.mean((1, 2, 3))[:, None].repeat(1, 2)


class Twice(Plain):
    name = "twice"

    def predict(self, image: Tensor) -> Tensor:
        found: Tensor = self.net(image) + self.net(image.flip(3))
        return found


@pytest.mark.parametrize(("cls", "times"), [(Aside, 0), (Twice, 2)])
def test_methods_that_do_not_ask_their_network_once_say_so(cls: type[Method], times: int) -> None:
    net = small([nn.Conv2d(1, 2, 1)], [2])
    method = cls(Given(net), Task(2, 0, 1, (1, 4, 4)), None).eval()
    with pytest.raises(ZooError, match=rf"{cls.name} cannot be explained: a prediction passes .* {times} times"):
        heat_of(method, np.zeros((1, 4, 4, 1), np.uint8), np.array([0]))
    del method.net
    with pytest.raises(ZooError, match="no backbone called `net`"):
        heat_of(method, np.zeros((1, 4, 4, 1), np.uint8), np.array([0]))


def test_without_captum_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    net = small([nn.Conv2d(1, 2, 1)], [2])
    with pytest.raises(ZooError, match=r"pip install 'debias-zoo\[explain\]'"):
        heat_of(plain(net), np.zeros((1, 4, 4, 1), np.uint8), np.array([0]))


def test_gradients_end_at_the_map() -> None:
    net = small([nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1)], [2, 2])
    with map_point(net, 0) as point:
        net(images_of((1, 4, 4))).sum().backward()
    assert point.calls == 1
    assert net.model.stages[0].weight.grad is None
    assert net.model.stages[1].weight.grad is not None


# --- the share inside the object


def test_share_inside_of_planted_heat() -> None:
    heat = np.zeros((3, 2, 2), np.float32)
    heat[0] = [[3, 1], [0, 0]]
    heat[1] = [[1, 1], [1, 1]]
    mask = np.array([[[True, False], [True, False]]] * 3)
    np.testing.assert_array_equal(inside(heat, mask), [0.75, 0.5, np.nan])
    with pytest.raises(ZooError, match="a mask must have the size of its image"):
        inside(heat, mask[:, :1])


@pytest.mark.parametrize("text", ["cmnist", "cmnist-lff", "biased-mnist"])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_mask_of_digits_is_the_digit(text: str, split: str) -> None:
    (dataset,) = parse_datasets(f"{text}:data_seed=3")
    found = dataset.load(None, split)
    rows = np.array([5, 0, 17, 400])
    mask = dataset.mask(None, split, rows)
    assert mask is not None
    assert (mask.dtype, mask.shape) == (np.bool_, (4, 28, 28))
    images = np.asarray(found.images[rows])
    if text == "biased-mnist":
        assert np.array_equal(mask, (images == 255).all(3))  # no background is white
    else:
        assert not images[~mask].any()
        assert images[mask].any(1).mean() > 0.5
        assert mask.mean() < 0.4


def test_the_mask_of_clothes_is_the_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    (dataset,) = parse_datasets("fashion-cmnist")
    clothes = np.array([[[0, 9], [200, 0]], [[1, 1], [0, 0]]], np.uint8)
    monkeypatch.setattr(type(dataset), "digits", lambda self, root, split: (clothes, np.array([0, 1])))
    found = dataset.mask(None, "test", np.array([1, 0]))
    assert found is not None
    assert found.tolist() == [[[True, True], [False, False]], [[False, True], [True, False]]]


def test_other_data_know_no_mask() -> None:
    data = BiasDataset.from_arrays(np.zeros((9, 4, 4, 3), np.uint8), np.arange(9) % 3)
    assert data.mask(None, "train", np.array([0])) is None


# --- which images


def card_of(classes: int = 3) -> Card:
    (dataset,) = parse_datasets("cmnist")
    names = tuple("abcdefgh"[:classes])
    changes = {"classes": names, "biases": names, "aligned": tuple((k,) for k in range(classes))}
    return dataset.card.model_copy(update=changes)


def test_conflicting_images_take_turns_by_class() -> None:
    random = np.random.default_rng(0)
    labels, biases = random.integers(0, 3, 200), random.integers(0, 3, 200)
    split = Split(np.zeros((200, 2, 2, 3), np.uint8), labels, biases)
    rows = conflicting(split, card_of(), "x", 12)
    assert labels[rows].tolist() == [0, 1, 2] * 4
    assert (labels[rows] != biases[rows]).all()
    assert len(set(rows.tolist())) == 12
    assert conflicting(split, card_of(), "x", 5).tolist() == rows[:5].tolist()
    assert conflicting(split, card_of(), "y", 12).tolist() != rows.tolist()
    everything = conflicting(split, card_of(), "x", 1000)
    assert sorted(everything.tolist()) == np.flatnonzero(labels != biases).tolist()


def test_without_bias_labels_any_image_may_be_looked_at() -> None:
    split = Split(np.zeros((6, 2, 2, 3), np.uint8), np.array([0, 1, 2, 0, 0, 0]))
    assert sorted(conflicting(split, card_of(), "x", 9).tolist()) == [0, 1, 2, 3, 4, 5]
