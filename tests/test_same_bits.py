"""What was made faster in a step gives the same bits as the plain way, which is written here once more."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from shapes import Drawn
from torch import Tensor

from debias_zoo import engine, nets
from debias_zoo.backbones import Normalize
from debias_zoo.engine import DeviceSplit, Engine, Layout
from debias_zoo.method import Method
from debias_zoo.registry import load_method
from debias_zoo.testing.bench import Bench, differences
from debias_zoo.testing.synthetic import uneven_split


def mean_of_maps(net: nets.StagedNet, x: Tensor, pre_logits: bool = False) -> Tensor:
    pooled = x.mean((2, 3)) if x.dim() == 4 else x
    logits: Tensor = pooled if pre_logits else net.fc(pooled)
    return logits


def padded(stage: nets.InputStage, x: Tensor) -> Tensor:
    norm, conv, *rest = stage
    if norm.training:
        norm.num_batches_tracked.add_(1)
    x = F.batch_norm(x, norm.running_mean, norm.running_var, None, None, norm.training, norm.momentum, norm.eps)
    x = F.pad(x, (0, 0, 0, 0, 0, 1), value=1.0)
    shift = (conv.weight * norm.bias.view(1, -1, 1, 1)).sum(1, keepdim=True)
    weight = torch.cat([conv.weight * norm.weight.view(1, -1, 1, 1), shift], 1)
    weight = weight.contiguous(memory_format=torch.channels_last)
    x = F.conv2d(x, weight, conv.bias, conv.stride, conv.padding)
    for module in rest:
        x = module(x)
    return x


class PlainEngine(Engine):
    """Everything is channels last, and every device is seeded."""

    def seed(self, seed: int) -> None:
        torch.manual_seed(seed)


def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bring back the plain way of everything."""
    monkeypatch.setattr(nets.StagedNet, "forward_head", mean_of_maps)
    monkeypatch.setattr(nets.InputStage, "forward", padded)
    monkeypatch.setattr(Normalize, "forward", lambda self, image: torch.addcmul(self.shift, image, self.scale))
    monkeypatch.setattr(engine, "usual_layout", lambda method: Layout())


@pytest.mark.parametrize(
    ("name", "backbone"), [("erm", "lnl_convnet"), ("erm", "mlp"), ("lnl", "lnl_convnet"), ("drawn", "mlp")]
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_runs_end_with_the_bits_of_the_plain_way(
    name: str, backbone: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(Drawn if name == "drawn" else load_method(name), backbone=backbone)

    def run(kind: type[Engine]) -> dict[str, object]:
        return bench.fit(epochs=2, engine=lambda method: kind(method, "cpu", precision)).outcome()

    quick = run(Engine)
    plain(monkeypatch)
    assert differences(quick, run(PlainEngine)) == []


def test_an_image_that_need_not_be_normalised_is_not_touched() -> None:
    image = torch.rand(2, 3, 4, 4)
    untouched, moved = Normalize("none", 3), Normalize("half", 3)
    assert untouched(image) is image
    assert torch.equal(torch.addcmul(untouched.shift, image, untouched.scale), image)
    torch.testing.assert_close(moved(image), 2.0 * image - 1.0)


@pytest.mark.parametrize(("backbone", "layout"), [("mlp", Layout(channels_last=False)), ("resnet20", Layout())])
def test_images_lie_in_memory_as_the_network_wants_them(backbone: str, layout: Layout) -> None:
    method: Method = Bench(load_method("erm"), backbone=backbone).build()
    own = Engine(method)
    assert own.layout == layout
    split = uneven_split(0, 12)
    view, usual = own.split(split, True), DeviceSplit(split, torch.device("cpu"), True)
    batch = view.batch(torch.tensor([3, 1]), torch.Generator())
    assert batch.image.is_contiguous(memory_format=layout.memory_format)
    assert torch.equal(batch.image, usual.batch(torch.tensor([3, 1]), torch.Generator()).image)
    assert torch.equal(view.image(slice(None)), usual.image(slice(None)))
