from __future__ import annotations

import pytest
import torch
from replicas import assert_same_gradients, clock, lnl_net, make_batch, make_method, weights
from torch import Tensor

from debias_zoo.engine import Engine
from debias_zoo.errors import ZooError
from debias_zoo.methods.spectral_decoupling import SpectralDecoupling
from debias_zoo.protocol import Settings

GAMMA = (0.44, 2.5, -1.0)


def replica(logits: Tensor, label: Tensor, weight: float, gamma: tuple[float, ...]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for z, y in zip(logits, label.tolist(), strict=True):
        total = total + torch.log(torch.exp(z).sum()) - z[y]
        if gamma:
            total = total + weight / 2.0 * (z[y] - gamma[y]) ** 2
        else:
            total = total + weight / 2.0 * sum(value**2 for value in z)
    return total / len(label)


@pytest.mark.parametrize("gamma", [(), GAMMA])
def test_is_cross_entropy_with_a_penalty_on_logits(gamma: tuple[float, ...]) -> None:
    method, batch = make_method("spectral_decoupling", lambda_logits=0.3, gamma=gamma), make_batch()
    method.gamma.copy_(torch.tensor(gamma, dtype=torch.float64))  # float32 until the method is made float64
    w = weights(method)
    expected = replica(lnl_net(w, batch.image)[0], batch.label, 0.3, gamma)
    assert_same_gradients(method, method("main", batch, clock())["loss"], expected, w, ("net.",))


def test_every_parameter_of_the_network_is_reached() -> None:
    method = make_method("spectral_decoupling")
    loss = method("main", make_batch(), clock())["loss"]
    assert all(grad.any() for grad in torch.autograd.grad(loss, list(method.parameters())))


def test_without_its_penalty_it_is_erm() -> None:
    settings = Settings(optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=0.01, batch_size=8, schedule="constant")
    nets = []
    for name, config in (("erm", {}), ("spectral_decoupling", {"lambda_logits": 0.0})):
        method = make_method(name, **config)
        engine = Engine(method)
        engine.build_optimizers(settings)
        for step in range(4):
            engine.step(make_batch(seed=step), clock(step=step))
        nets.append(weights(method.net))
    for name, value in nets[0].items():
        assert torch.equal(value, nets[1][name]), name


def test_targets_for_another_number_of_classes_are_refused() -> None:
    with pytest.raises(ZooError, match="gamma has 2 targets for 3 classes"):
        make_method("spectral_decoupling", gamma=(0.44, 2.5))


def test_recipes_are_complete() -> None:
    for recipe in SpectralDecoupling.recipes:
        config = SpectralDecoupling.Config(**recipe.config)
        assert len(config.gamma) == 2
        assert recipe.settings.missing() == []
