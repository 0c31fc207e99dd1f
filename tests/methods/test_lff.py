from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from replicas import (
    SlowDifficulty,
    assert_same_gradients,
    biased_cross_entropy,
    clock,
    cross_entropy,
    gradients,
    lnl_net,
    make_batch,
    make_method,
    make_task,
    weights,
    weights_after,
)
from torch import Tensor

from debias_zoo.backbones import BackboneFactory
from debias_zoo.method import Batch, Clock
from debias_zoo.methods.lff import LfF
from debias_zoo.methods.losses.ema import PerSampleEMA, RelativeDifficulty, relative_difficulty
from debias_zoo.methods.losses.gce import generalized_cross_entropy


def overlapping(count: int) -> list[Batch]:
    """Batches in which most images come again, with other pixels, so that their losses change."""
    return [replace(make_batch(seed=k), index=torch.arange(8) + 3 * k) for k in range(count)]


def assert_is_lff(method: LfF, q: float, alpha: float) -> None:
    slow = SlowDifficulty(alpha)
    for batch in overlapping(3):
        w = weights(method)
        biased, debiased = lnl_net(w, batch.image, prefix="biased.")[0], lnl_net(w, batch.image)[0]
        each = torch.stack([cross_entropy(z[None], y[None]) for z, y in zip(debiased, batch.label, strict=True)])
        weight = slow.weights(biased, debiased, batch)
        replica = biased_cross_entropy(biased, batch.label, q) + (weight * each).mean()
        loss = method("both", batch, clock())["loss"]
        assert_same_gradients(method, loss, replica, w, ("net.", "biased."))


def test_both_losses_and_the_means_of_all_images() -> None:
    assert_is_lff(make_method("lff", q=0.6, alpha=0.8), 0.6, 0.8)
    assert_is_lff(make_method("lff"), 0.7, 0.7)


class LfFWithoutMeans(LfF):
    """SubpopBench: weights from the losses of the batch alone, of which nothing is kept."""

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        self.difficulty = RelativeDifficulty(self.task.train_size, self.task.classes, 0.7).double()
        return super().forward(loss, batch, clock)


def test_weights_of_the_batch_alone_are_another_method() -> None:
    task = make_task(sees_bias=False)
    factory = BackboneFactory("lnl_convnet", task.classes, task.image_shape, "cifar", 0)
    method = LfFWithoutMeans(factory, task, LfF.Config()).double().train()
    with pytest.raises(AssertionError, match="not close"):
        assert_is_lff(method, 0.7, 0.7)


def test_golden_values() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]], dtype=torch.float64)
    for label, value in ((0, 0.10556481259178635), (2, 0.24125902136788205)):
        assert float(generalized_cross_entropy(logits, torch.tensor([label]), 0.7)) == pytest.approx(value, rel=1e-14)
    shares = []
    for means, largest in (([2.0, 0.1], 2.5), ([1.0, 0.5], 2.0)):
        ema = PerSampleEMA(4, 0.7).double()
        ema.update(torch.tensor([*means, largest]), torch.zeros(3, dtype=torch.int64), torch.arange(3))
        shares.append(ema.relative(torch.zeros(2, dtype=torch.int64), torch.arange(2), 3))
    assert relative_difficulty(*shares).tolist() == pytest.approx([0.61538461, 0.13793103], abs=1e-8)


def test_the_gradient_is_q_times_that_of_the_generalised_cross_entropy() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    label, q = torch.tensor([0, 1, 2, 3, 1]), 0.3
    (own,) = torch.autograd.grad(generalized_cross_entropy(logits, label, q).sum(), logits)
    p = torch.exp(logits[range(5), label]) / torch.exp(logits).sum(1)
    (true,) = torch.autograd.grad(((1 - p**q) / q).sum(), logits)
    torch.testing.assert_close(own, q * true)


def test_the_largest_mean_is_that_of_the_class_in_the_whole_split() -> None:
    ema = PerSampleEMA(5, 0.7)
    ema.update(torch.tensor([4.0, 9.0]), torch.tensor([0, 1]), torch.tensor([0, 3]))
    ema.update(torch.tensor([1.0]), torch.tensor([0]), torch.tensor([2]))
    assert ema.relative(torch.tensor([0]), torch.tensor([2]), 2).tolist() == [0.25]
    assert ema.value.tolist() == [4.0, 0.0, 1.0, 9.0, 0.0]
    assert ema.label.tolist() == [0, -1, 0, 1, -1]


def test_a_class_without_any_loss_weighs_nothing() -> None:
    difficulty = RelativeDifficulty(4, 2, 0.7)
    weight = difficulty(torch.zeros(2), torch.zeros(2), torch.tensor([0, 0]), torch.tensor([1, 2]))
    assert weight.tolist() == [0.0, 0.0]


def test_two_equal_networks_give_half_of_erm() -> None:
    method, batch = make_method("lff"), make_batch()
    method.biased.load_state_dict(method.net.state_dict())
    found = gradients(method, method("both", batch, clock())["loss"])
    erm = make_method("erm")
    plain = gradients(erm, erm("main", batch, clock())["loss"])
    for name, grad in plain.items():
        torch.testing.assert_close(found[name], 0.5 * grad, rtol=1e-6, atol=1e-12)  # type: ignore[operator]


def test_with_weights_of_one_the_network_is_erms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RelativeDifficulty, "forward", lambda self, biased, *rest: torch.ones_like(biased))
    erm, lff = (weights_after(make_method(name), overlapping(4)) for name in ("erm", "lff"))
    assert [name for name, value in erm.items() if not torch.equal(value, lff[name])] == []


def test_who_moves() -> None:
    method = make_method("lff")
    assert all(grad is not None for grad in gradients(method, method("both", make_batch(), clock())["loss"]).values())
    before = weights(method)
    after = weights_after(method, [make_batch(seed=7)])
    still = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert still <= {"difficulty.biased.label", "difficulty.debiased.label"}
    held = {name: {id(p) for p in optim.parameters} for name, optim in method.optimizers().items()}
    assert held == {name: {id(p) for p in getattr(method, name).parameters()} for name in ("net", "biased")}


def test_the_means_survive_saving() -> None:
    method, other = make_method("lff"), make_method("lff", seed=1)
    first, second = overlapping(2)
    method("both", first, clock())
    other.load_state_dict(method.state_dict())
    assert torch.equal(method("both", second, clock())["loss"], other("both", second, clock())["loss"])


def test_prediction_is_the_debiased_networks() -> None:
    method, batch = make_method("lff").eval(), make_batch()
    assert torch.equal(method.predict(batch.image), method.net(batch.image))


def test_the_papers_recipe() -> None:
    (recipe,) = LfF.recipes
    assert (recipe.settings.epochs or 0) * -(-60_000 // (recipe.settings.batch_size or 1)) == 23_500
    net = BackboneFactory("mlp", 10, (3, 28, 28), recipe.normalize or "", 0, recipe.backbone_options)()
    assert [tuple(p.shape) for p in net.parameters() if p.dim() == 2] == [
        (100, 2352),
        (100, 100),
        (100, 100),
        (10, 100),
    ]
    image = torch.rand(2, 3, 28, 28)
    torch.testing.assert_close(net.normalize(image), image / 255.0)
