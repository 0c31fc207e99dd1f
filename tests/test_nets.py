from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from debias_zoo.backbones import BackboneFactory
from debias_zoo.nets import CifarBlock, InputStage, MaxPool


@pytest.mark.parametrize("shape", [(2, 3, 28, 28), (1, 2, 7, 9), (2, 1, 1, 5), (1, 1, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pooling_gives_the_same_bits_with_and_without_gradients(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    kept = x.clone()
    with torch.no_grad():
        quick = MaxPool()(x)
    assert torch.equal(quick, F.max_pool2d(x, 3, 2, 1))
    assert torch.equal(quick, MaxPool()(x.requires_grad_()).detach())
    assert torch.equal(kept, x)
    assert quick.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("name", "taps", "tapped"), [("lnl_convnet", 4, (32, 14, 14)), ("simple_convnet", 4, (32, 28, 28))]
)
def test_the_papers_nets_are_tapped_after_their_second_layer(name: str, taps: int, tapped: tuple[int, ...]) -> None:
    net = BackboneFactory(name, 10, (3, 28, 28), "cifar", 0)()
    assert (net.taps, net.tap_shape()) == (taps, tapped)
    image = torch.rand(3, 3, 28, 28)
    features, z = net.eval().features_and_tap(image)
    assert torch.equal(z, net.tap(image))
    assert torch.equal(net.classify(features), net(image))
    below = {id(p) for p in net.parameters_below()}
    names = {n.split(".")[2] for n, p in net.named_parameters() if id(p) in below}
    assert names == {"0", "1"}


def test_networks_of_a_seed_and_role_start_alike() -> None:
    def first(seed: int, role: str) -> torch.Tensor:
        torch.manual_seed(seed + 99)  # the global state must not matter
        return next(BackboneFactory("mlp", 10, (3, 28, 28), "none", seed)(role=role).parameters())

    assert torch.equal(first(0, "main"), first(0, "main"))
    assert not torch.equal(first(0, "main"), first(1, "main"))
    assert not torch.equal(first(0, "main"), first(0, "biased"))


@pytest.mark.parametrize("training", [True, False])
def test_an_input_stage_is_its_modules_one_after_the_other(training: bool) -> None:
    torch.manual_seed(0)
    stage = InputStage(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 5, padding=2), nn.ReLU()).double().train(training)
    plain = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 5, padding=2), nn.ReLU()).double().train(training)
    norm = stage[0]
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2.0), norm.bias.normal_(), norm.running_mean.normal_(), norm.running_var.add_(1.0)
    plain.load_state_dict(stage.state_dict())
    image = torch.rand(4, 3, 9, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 4, 9, 7, dtype=torch.float64)
    found = []
    for net in (stage, plain):
        out = net(image)
        found.append([out, *torch.autograd.grad((out * weight).sum(), [image, *net.parameters()])])
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-10)
    for own, other in zip(stage.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(own, other)


def test_resnet20_has_the_papers_size_and_halves_twice() -> None:
    net = BackboneFactory("resnet20", 10, (3, 32, 32), "cifar", 0)()
    assert sum(p.numel() for p in net.parameters()) == 269_722
    assert [net.tap_shape(k) for k in range(net.taps)] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    block = next(m for m in net.modules() if isinstance(m, CifarBlock) and m.more).eval()
    x = torch.rand(2, 16, 8, 8)
    with torch.no_grad():
        for norm in (block.bn1, block.bn2):
            norm.weight.zero_()
        skipped = block(x)
    assert torch.equal(skipped[:, 8:24], x[:, :, ::2, ::2]), "option A: identity, subsampled"
    assert not skipped[:, :8].any()
