"""Every method on every family of backbones: trains through all its stages, predicts, and reads its features."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from debias_zoo.engine import quiet
from debias_zoo.registry import entries, load_method
from debias_zoo.testing.bench import SETTINGS, Bench
from debias_zoo.testing.synthetic import CLASSES

FAMILIES = ("lnl_convnet", "mlp", "resnet18", "efficientnet_lite0", "vit_tiny_patch16_224", "convnext_atto")
SIDE = 32
EVERYWHERE = ("erm", "lnl")
"""Methods that the fast tests take to every family; the slow ones take all."""


def train_and_predict(name: str, backbone: str) -> None:
    bench = Bench(load_method(name), None, backbone, SIDE)
    settings = SETTINGS.model_copy(update={"lr": 1e-3})
    method = bench.fit(replace(bench.train, bias_map=None), epochs=2, settings=settings).fit.method
    image = bench.view(bench.val).image(slice(0, 5))
    with quiet(method):
        logits, features = method.predict(image), method.features(image)
    assert logits.shape == (5, CLASSES)
    assert features.shape[0] == 5
    assert features.dim() == 2
    assert bool(torch.isfinite(logits).all())


@pytest.mark.parametrize("backbone", FAMILIES)
@pytest.mark.parametrize("name", EVERYWHERE)
def test_two_methods_on_every_family(name: str, backbone: str) -> None:
    train_and_predict(name, backbone)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", FAMILIES)
@pytest.mark.parametrize("name", [name for name in entries("method") if name not in EVERYWHERE])
def test_every_method_on_every_family(name: str, backbone: str) -> None:
    train_and_predict(name, backbone)
