from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from replicas import LabelView, clock, cross_entropy, make_batch, make_method, weights
from torch import Tensor

from debias_zoo.engine import Engine
from debias_zoo.method import Batch
from debias_zoo.methods.losses.hsic import median_sigma, rbf_kernel, squared_distances, unbiased_hsic
from debias_zoo.protocol import Settings

X = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1], [2, 1], [3, 0]], dtype=torch.float64)
Y = torch.tensor([[0], [1], [0], [2], [1], [3]], dtype=torch.float64)


def replica_hsic(x: Tensor, y: Tensor, sigma_x: float, sigma_y: float) -> Tensor:
    """Song's estimator as the sums over distinct indices that it abbreviates (equation 4 of Song et al. 2012)."""
    n = len(x)
    k = torch.exp(-((x[:, None] - x[None]) ** 2).sum(2) / (2 * sigma_x**2))
    l = torch.exp(-((y[:, None] - y[None]) ** 2).sum(2) / (2 * sigma_y**2))  # noqa: E741
    pairs = sum(k[i, j] * l[i, j] for i, j in itertools.permutations(range(n), 2)) / (n * (n - 1))
    triples = sum(k[i, j] * l[i, q] for i, j, q in itertools.permutations(range(n), 3)) / (n * (n - 1) * (n - 2))
    quads = sum(k[i, j] * l[q, r] for i, j, q, r in itertools.permutations(range(n), 4))
    return pairs - 2 * triples + quads / (n * (n - 1) * (n - 2) * (n - 3))  # type: ignore[return-value, operator]


def test_golden_values() -> None:
    k, l = rbf_kernel(X, 1.0), rbf_kernel(Y, 1.0)  # noqa: E741
    assert float(unbiased_hsic(k, l)) == pytest.approx(0.004546857713498633, rel=1e-10)
    sigma_x, sigma_y = median_sigma([X]), median_sigma([Y])
    assert (float(sigma_x), float(sigma_y)) == pytest.approx((2**0.5, 1.0))
    estimated = unbiased_hsic(rbf_kernel(X, sigma_x), rbf_kernel(Y, sigma_y))
    assert float(estimated) == pytest.approx(0.005377188374817068, rel=1e-10)


def test_the_diagonal_is_taken_away_from_linear_kernels_too() -> None:
    assert float(unbiased_hsic(X @ X.T, Y @ Y.T)) == pytest.approx(0.6666666666666666)


def test_estimator_is_the_sum_over_distinct_indices_with_its_gradient() -> None:
    x, y = X.clone().requires_grad_(), Y.clone().requires_grad_()
    value = unbiased_hsic(rbf_kernel(x, 1.3), rbf_kernel(y, 0.8))
    replica = replica_hsic(x, y, 1.3, 0.8)
    torch.testing.assert_close(value, replica, rtol=1e-9, atol=1e-12)
    for own, other in zip(torch.autograd.grad(value, [x, y]), torch.autograd.grad(replica, [x, y]), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-9)


def test_distances_stay_in_full_precision_under_autocast() -> None:
    x = torch.rand(6, 5, generator=torch.Generator().manual_seed(0)) + 3.0
    with torch.autocast("cpu", torch.bfloat16):
        inside = squared_distances(x)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, torch.cdist(x, x) ** 2, rtol=1e-3, atol=1e-4)


def features_of(method: object, batch: Batch) -> tuple[Tensor, Tensor]:
    net, biased = method.net, method.biased  # type: ignore[attr-defined]
    return net.features(batch.image), biased.features(batch.image)


def test_both_losses_and_who_gets_them() -> None:
    method, batch = make_method("rebias", sigma=2.0, lambda_inner=0.6, lambda_outer=0.3), make_batch(6)
    own, theirs = features_of(method, batch)
    inner = method("biased", batch, clock())["loss"]
    head = method.biased.classify(theirs)
    expected = cross_entropy(head, batch.label) - 0.6 * replica_hsic(own.detach(), theirs, 2.0, 2.0)
    torch.testing.assert_close(inner, expected, rtol=1e-6, atol=1e-9)
    g = list(method.biased.parameters())
    for mine, other in zip(
        torch.autograd.grad(inner, g, retain_graph=True), torch.autograd.grad(expected, g), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-9)
    assert all(x is None for x in torch.autograd.grad(inner, list(method.net.parameters()), allow_unused=True))
    outer = method("debiased", batch, clock())["loss"]
    own, theirs = features_of(method, batch)
    expected = cross_entropy(method.net.classify(own), batch.label) + 0.3 * replica_hsic(own, theirs.detach(), 2.0, 2.0)
    torch.testing.assert_close(outer, expected, rtol=1e-6, atol=1e-9)
    f = list(method.net.parameters())
    for mine, other in zip(
        torch.autograd.grad(outer, f, retain_graph=True), torch.autograd.grad(expected, f), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-9)
    assert all(x is None for x in torch.autograd.grad(outer, g, allow_unused=True))


def test_f_runs_once_a_batch_and_g_twice() -> None:
    method = make_method("rebias", sigma=1.0)
    calls: list[str] = []
    for name in ("net", "biased"):
        module = getattr(method, name)
        module.model.register_forward_pre_hook(lambda *_: None)
        original = module.features
        module.features = lambda image, name=name, original=original: (calls.append(name), original(image))[1]
    engine = Engine(method)
    engine.build_optimizers(
        Settings(optimizer="sgd", lr=0.1, momentum=0.0, weight_decay=0.0, batch_size=8, schedule="constant")
    )
    engine.step(make_batch(), clock())
    assert sorted(calls) == ["biased", "biased", "net"]


def test_without_its_outer_term_rebias_is_erm() -> None:
    settings = Settings(optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=0.01, batch_size=8, schedule="constant")
    nets = []
    for name, config in (("erm", {}), ("rebias", {"lambda_outer": 0.0, "sigma": 1.0})):
        method = make_method(name, **config)
        engine = Engine(method)
        engine.build_optimizers(settings)
        for step in range(4):
            engine.step(make_batch(seed=step), clock(step=step))
        nets.append(weights(method.net))
    for name, value in nets[0].items():
        assert torch.equal(value, nets[1][name]), name


class _View(LabelView):
    asked: list[int] = []

    def batches(self, size: int, every: int = 1) -> Iterator[Batch]:
        self.asked.append(every)
        yield make_batch(8, 0)


def test_radii_are_the_medians_of_each_network() -> None:
    method = make_method("rebias", sigma_share=1.0).eval()
    with torch.no_grad():
        method.start_stage(method.stages()[0], _View(torch.zeros(8, dtype=torch.long), None))
        batch = make_batch(8, 0)
        assert method.sigma[0] == pytest.approx(float(median_sigma([method.net.features(batch.image)])), rel=1e-6)
        assert method.sigma[1] == pytest.approx(float(median_sigma([method.biased.features(batch.image)])), rel=1e-6)
    fixed = make_method("rebias", sigma=1.0)
    fixed.start_stage(fixed.stages()[0], _View(torch.zeros(8, dtype=torch.long), None))
    assert fixed.sigma.tolist() == [1.0, 1.0]


def test_radii_are_estimated_on_images_from_all_over_the_split() -> None:
    view = _View(torch.zeros(8, dtype=torch.long), None)
    with torch.no_grad():
        make_method("rebias", sigma_share=0.05).eval().end_epoch(clock(), view)
    assert view.asked[-1] == 1, "so few images are all needed"
    view.labels = torch.zeros(20 * 256, dtype=torch.long)
    with torch.no_grad():
        make_method("rebias", sigma_share=0.05).eval().end_epoch(clock(), view)
    assert view.asked[-1] == 20, "the first images of a file may be of one class"
