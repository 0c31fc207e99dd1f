from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from replicas import (
    assert_same_gradients,
    clock,
    cross_entropy,
    label_view,
    lnl_net,
    make_batch,
    make_method,
    weights,
    weights_after,
)
from torch import Tensor
from watching import same

from debias_zoo.errors import DivergedError, ZooError
from debias_zoo.method import Batch
from debias_zoo.methods import dfr
from debias_zoo.methods.dfr import DFR, balanced, best_strength, groups_of, last_layer, logistic
from debias_zoo.methods.erm import ERM
from debias_zoo.testing.bench import Bench

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass
class Validation:
    """Images of three classes and four biases in batches of twelve."""

    labels: Tensor
    biases: Tensor | None
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def batches(self, size: int, every: int = 1) -> Iterator[Batch]:
        for k, rows in enumerate(torch.arange(len(self.labels)).split(12)):
            yield replace(make_batch(len(rows), seed=k), label=self.labels[rows], index=rows)


def random_numbers() -> np.random.Generator:
    """What ``finish`` draws from, on ``Validation``."""
    return np.random.default_rng(0)


def validation(count: int = 60) -> Validation:
    return Validation(torch.arange(count) % 3, (torch.arange(count) // 3 + torch.arange(count) // 7) % 4)


def spurious(count: int = 400, seed: int = 0) -> tuple[Floats, Ints, Ints]:
    """Features (N, 6), labels, groups: column 0 tells the label with noise, column 1 the bias, which is it at 95 %."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 2, count)
    bias = np.where(random.random(count) < 0.95, y, 1 - y)
    x = random.normal(size=(count, 6))
    x[:, 0] = (2 * y - 1) + 0.8 * random.normal(size=count)
    x[:, 1] = (2 * bias - 1) + 0.1 * random.normal(size=count)
    return x, y, 2 * y + bias


def objective(layer: Floats, x: Floats, y: Ints, strength: float) -> float:
    """sum_i CE_i + |W|_1 / C, one image at a time."""
    total = 0.0
    for row, label in zip(x, y, strict=True):
        z = layer[:, :-1] @ row + layer[:, -1]
        total += math.log(sum(math.exp(value) for value in z)) - z[label]
    return total + float(np.abs(layer[:, :-1]).sum()) / strength


def slow_logistic(x: Floats, y: Ints, strength: float, classes: int) -> Floats:
    """The same minimum by proximal gradient descent: a gradient step, then weights shrink towards 0."""
    layer = np.zeros((classes, x.shape[1] + 1))
    ones = np.column_stack([x, np.ones(len(x))])
    rate = 1.0 / np.linalg.norm(ones, 2) ** 2
    for _ in range(4000):
        z = np.exp(ones @ layer.T)
        layer = layer - rate * (z / z.sum(1, keepdims=True) - np.eye(classes)[y]).T @ ones
        w = layer[:, :-1]
        layer[:, :-1] = np.sign(w) * np.maximum(np.abs(w) - rate / strength, 0.0)
    return layer


@pytest.mark.parametrize("strength", [1.0, 0.1])
def test_the_last_layer_is_an_l1_penalised_logistic_regression(strength: float) -> None:
    random = np.random.default_rng(3)
    y = random.integers(0, 3, 60)
    x = random.normal(size=(60, 4)) + np.eye(3)[y] @ random.normal(size=(3, 4))
    found, slow = logistic(x, y, strength, 3000), slow_logistic(x, y, strength, 3)
    assert objective(found, x, y, strength) == pytest.approx(objective(slow, x, y, strength), rel=1e-6)
    np.testing.assert_allclose(found[:, :-1], slow[:, :-1], atol=5e-3)
    assert found[:, :-1].any()
    assert (found[:, :-1] == 0.0).sum() >= 2, "the penalty is not l1"


def test_two_classes_are_a_logit_of_0_and_a_logit() -> None:
    x, y, _ = spurious(80)
    found = logistic(x, y, 0.3, 3000)
    assert found.shape == (2, 7)
    assert not found[0].any()
    ones = np.column_stack([x, np.ones(80)])

    def binary(w: Floats) -> float:
        return float(np.log1p(np.exp(-(2 * y - 1) * (ones @ w))).sum() + np.abs(w[:-1]).sum() / 0.3)

    best = binary(found[1])
    random = np.random.default_rng(0)
    assert all(binary(found[1] + 0.05 * random.normal(size=7)) > best for _ in range(50))


def test_a_solver_stopped_early_warns_nobody() -> None:
    x, y, _ = spurious(80)
    assert np.isfinite(logistic(x, y, 1.0, 1)).all()


def test_every_group_is_drawn_as_often_as_the_smallest_holds() -> None:
    groups = np.array([0] * 9 + [1] * 4 + [3] * 6)
    random = np.random.default_rng(0)
    draws = [balanced(groups, random) for _ in range(20)]
    assert all(np.bincount(groups[rows]).tolist() == [4, 4, 0, 4] for rows in draws)
    assert all(len(set(rows)) == 12 for rows in draws)
    assert set(np.concatenate(draws)) == set(range(19)), "some image is never drawn"


def test_the_strength_is_chosen_by_the_worst_group_of_the_other_half(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, groups = spurious()
    layers = {0.5: np.zeros((2, 7)), 0.2: np.zeros((2, 7)), 0.1: np.zeros((2, 7))}
    layers[0.5][1, 1] = 9.0  # the bias alone: best on average
    layers[0.2][1, 0] = layers[0.1][1, 0] = 9.0  # the label alone: best in the worst group
    fitted: list[Floats] = []

    def fit(x: Floats, y: Ints, strength: float, iterations: int) -> Floats:
        fitted.append(x)
        return layers[strength]

    monkeypatch.setattr(dfr, "logistic", fit)
    config = DFR.Config(strengths=(0.5, 0.2, 0.1))
    assert best_strength(x, y, groups, config, np.random.default_rng(0)) == 0.2
    ranks = [int(np.flatnonzero((x == row).all(1))[0]) for row in fitted[0]]
    counts = np.bincount(groups[ranks])
    assert len(set(counts)) == 1
    assert counts[0] == -(-np.bincount(groups).min() // 2), "the smallest group is not halved"
    accuracy = {c: [((x @ w[1, :-1] > 0) == y)[groups == g].mean() for g in range(4)] for c, w in layers.items()}
    assert min(accuracy[0.2]) > min(accuracy[0.5])


def test_strengths_are_judged_on_images_they_were_not_fitted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, groups = spurious()
    fitted: dict[float, Floats] = {}

    def by_heart(x: Floats, y: Ints, strength: float, iterations: int) -> Floats:
        fitted[strength] = x
        return np.array([[strength, *np.zeros(6)], [0.0, *np.zeros(6)]])

    monkeypatch.setattr(dfr, "logistic", by_heart)
    best_strength(x, y, groups, DFR.Config(strengths=(0.5, 0.2)), np.random.default_rng(0))
    np.testing.assert_array_equal(fitted[0.5], fitted[0.2], "the strengths are not compared on the same images")
    drawn = {tuple(row) for row in fitted[0.5]}
    asked: list[tuple[float, ...]] = []

    class Watched(np.ndarray):  # type: ignore[type-arg]
        def __matmul__(self, other: Any) -> Any:
            asked.extend(map(tuple, np.asarray(self)))
            return np.asarray(self) @ other

    best_strength(x.view(Watched), y, groups, DFR.Config(strengths=(0.5,)), np.random.default_rng(0))
    assert asked
    assert drawn.isdisjoint(asked)
    assert len(asked) == sum(int(np.sum(groups == group)) // 2 for group in range(4))


def test_the_constant_of_the_layer_counts_when_strengths_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, groups = spurious()
    shift = 3.0
    x[:, 0] += shift  # only a constant of -shift is right in every group
    layers = {c: np.array([[0.0] * 7, [1.0, 0, 0, 0, 0, 0, w]]) for c, w in ((0.5, shift), (0.2, 0.0), (0.1, -shift))}
    monkeypatch.setattr(dfr, "logistic", lambda x, y, strength, iterations: layers[strength])
    config = DFR.Config(strengths=(0.5, 0.2, 0.1))
    assert best_strength(x, y, groups, config, np.random.default_rng(0)) == 0.1


def test_a_group_of_one_image_is_judged_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dfr, "logistic", lambda x, y, strength, iterations: np.zeros((2, 3)))
    x, one = np.ones((4, 2)), np.arange(4)
    assert best_strength(x, one % 2, one, DFR.Config(strengths=(0.5, 0.2)), np.random.default_rng(0)) == 0.5


def test_refits_on_balanced_subsets_are_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, groups = spurious()
    least = int(np.bincount(groups).min())
    fits: list[Floats] = []

    def fit(x: Floats, y: Ints, strength: float, iterations: int) -> Floats:
        fits.append(logistic(x, y, strength, iterations))
        assert strength == 0.3
        assert iterations == 50
        return fits[-1]

    monkeypatch.setattr(dfr, "logistic", fit)
    found = last_layer(x, y, groups, DFR.Config(strengths=(0.3,), refits=5, iterations=50), random_numbers())
    assert len(fits) == 6
    assert len({layer.tobytes() for layer in fits}) == 6, "the subsets do not differ"
    np.testing.assert_allclose(found, sum(fits[1:]) / 5, rtol=1e-12)  # type: ignore[arg-type]
    assert least < 20


def test_balanced_groups_take_the_bias_out_of_the_layer() -> None:
    x, y, groups = spurious()
    plain = logistic(x, y, 1.0, 100)[1]
    assert plain[1] > plain[0] > 0
    found = last_layer(x, y, groups, DFR.Config(), random_numbers())[1]
    assert found[0] > 3 * abs(found[1])


def test_training_is_erm_bit_for_bit_until_finish() -> None:
    batches = [make_batch(seed=k) for k in range(3)]
    erm, own = make_method("erm"), make_method("dfr")
    assert same(weights_after(erm, batches), weights_after(own, batches), "net.")
    erm.eval(), own.eval()
    assert torch.equal(erm.predict(batches[0].image), own.predict(batches[0].image))
    runs = [Bench(cls, None, "mlp").fit(epochs=3).fit for cls in (ERM, DFR)]
    classes = [run.predictions["val"]["class"] for run in runs]
    assert torch.equal(classes[0][:-1], classes[1][:-1])
    assert not torch.equal(classes[0][-1], classes[1][-1])
    assert same(runs[0].method.state_dict(), runs[1].method.state_dict(), "net.")


def test_the_loss_is_cross_entropy() -> None:
    method, batch = make_method("dfr"), make_batch()
    w = weights(method)
    replica = cross_entropy(lnl_net(w, batch.image)[0], batch.label)
    assert_same_gradients(method, method("main", batch, clock())["loss"], replica, w, ("net.",))


def finished(count: int = 60, **config: Any) -> Any:
    method = make_method("dfr", refits=2, **config).eval()
    with torch.no_grad():
        method.finish(label_view(), validation(count))
    return method


def test_the_prediction_is_the_layer_on_standardised_features() -> None:
    method, val = finished(), validation()
    with torch.no_grad():
        features = torch.cat([method.net.features(batch.image) for batch in val.batches(12)])
        columns = [(sum(c) / 60, math.sqrt(sum((v - sum(c) / 60) ** 2 for v in c) / 60)) for c in features.T.tolist()]
        x = np.array(
            [
                [(v - mean) / (std or 1.0) for v, (mean, std) in zip(row, columns, strict=True)]
                for row in features.tolist()
            ]
        )
        groups = groups_of(val, 3)  # type: ignore[arg-type]
        layer = last_layer(x, val.labels.numpy(), groups, method.config, random_numbers())
        image = make_batch(6, seed=9).image
        own = method.net.features(image).tolist()
        expected = [
            [
                sum(w * (v - mean) / (std or 1.0) for w, v, (mean, std) in zip(row[:-1], h, columns, strict=True))
                + row[-1]
                for row in layer.tolist()
            ]
            for h in own
        ]
        torch.testing.assert_close(method.predict(image), torch.tensor(expected).double(), rtol=1e-5, atol=1e-5)
        assert not torch.allclose(method.predict(image), method.net(image))


def test_finish_is_repeated_bit_for_bit() -> None:
    assert same(finished().state_dict(), finished().state_dict(), "")


def test_a_constant_feature_is_not_scaled() -> None:
    method = make_method("dfr", refits=1).eval()
    features = method.net.features
    method.net.features = lambda image: torch.cat(
        [features(image)[:, 1:], torch.full((len(image), 1), 3.0).double()], 1
    )
    with torch.no_grad():
        method.finish(label_view(), validation())
        assert method.scale[-1] == 1.0
        assert method.mean[-1] == 3.0
        assert not method.weight[:, -1].any()


def test_the_layer_is_applied_in_full_precision_under_autocast() -> None:
    method = finished().float()
    image = make_batch(6, seed=9).image.float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = method.net.features(image)
        found = method.predict(image)
    assert found.dtype == torch.float32
    expected = ((features.float() - method.mean) / method.scale) @ method.weight.T + method.bias
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_network_that_diverged_is_refused() -> None:
    method = make_method("dfr").eval()
    method.net.features = lambda image: torch.full((len(image), 64), math.nan)
    with pytest.raises(DivergedError, match="features are not finite"):
        method.finish(label_view(), validation())


def test_groups_are_those_that_are_there() -> None:
    val = Validation(torch.tensor([0, 2, 1, 0, 2, 1]), torch.tensor([3, 0, 1, 3, 1, 1]))
    assert groups_of(val, 3).tolist() == [0, 2, 1, 0, 3, 1]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels", "biases", "words"),
    [
        ([0, 1, 2], None, "needs bias labels of the validation split"),
        ([0, 1, 2, 0], [0, 1, 2, 0], "every class has one bias"),
        ([0, 0, 2, 2], [0, 1, 0, 1], r"no image of class \[1\]"),
    ],
)
def test_a_validation_split_that_cannot_serve_is_refused(
    labels: list[int], biases: list[int] | None, words: str
) -> None:
    val = Validation(torch.tensor(labels), None if biases is None else torch.tensor(biases))
    with pytest.raises(ZooError, match=words):
        make_method("dfr").finish(label_view(), val)
