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
    weights,
    weights_after,
)
from torch import Tensor

from debias_zoo.backbones import BackboneFactory
from debias_zoo.method import Batch
from debias_zoo.methods.dfa import DFA
from debias_zoo.plans import plan_stages


def features(w: dict[str, Tensor], image: Tensor, prefix: str) -> Tensor:
    """The pooled features of LNL's net: its logits, were the last layer the identity."""
    last = {f"{prefix}model.fc.weight": torch.eye(64).double(), f"{prefix}model.fc.bias": torch.zeros(64).double()}
    return lnl_net(w | last, image, prefix=prefix)[0]


def head(w: dict[str, Tensor], name: str, own: Tensor, theirs: Tensor) -> Tensor:
    """Logits of C_i or C_b, one image after the other."""
    rows = [torch.cat([a, b]) @ w[f"{name}.weight"].T + w[f"{name}.bias"] for a, b in zip(own, theirs, strict=True)]
    return torch.stack(rows)


def replica(w: dict[str, Tensor], batch: Batch, slow: SlowDifficulty, order: Tensor | None, lambdas: tuple[float, ...]):  # type: ignore[no-untyped-def]
    lambda_dis, lambda_swap, lambda_swap_biased = lambdas
    y = batch.label
    z_i, z_b = features(w, batch.image, "net."), features(w, batch.image, "biased.")

    def weighted(logits: Tensor) -> Tensor:
        return sum(v * cross_entropy(z[None], t[None]) for v, z, t in zip(weight, logits, y, strict=True)) / len(y)

    conflict, align = head(w, "classifier", z_i, z_b.detach()), head(w, "biased_classifier", z_i.detach(), z_b)
    weight = slow.weights(align, conflict, batch)
    total = weighted(conflict) + lambda_dis * biased_cross_entropy(align, y, 0.7)
    if order is None:
        return total
    other, label = torch.stack([z_b[j] for j in order]), torch.stack([y[j] for j in order])
    conflict = head(w, "classifier", z_i, other.detach())
    align = head(w, "biased_classifier", z_i.detach(), other)
    swapped = weighted(conflict) + lambda_swap_biased * biased_cross_entropy(align, label, 0.7)
    return total + lambda_swap * swapped


@pytest.mark.parametrize("stage", ["disentangle", "swap"])
def test_the_loss_with_its_gradients_and_stops(stage: str) -> None:
    method = make_method("dfa", lambda_dis=3.0, lambda_swap=0.6, lambda_swap_biased=2.0)
    slow = SlowDifficulty(0.7)
    for k in range(3):
        batch = replace(make_batch(seed=k), index=torch.arange(8) + 3 * k)
        random = torch.Generator()
        random.set_state(batch.generator.get_state())
        order = torch.randperm(8, generator=random) if stage == "swap" else None
        w = weights(method)
        expected = replica(w, batch, slow, order, (3.0, 0.6, 2.0))
        loss = method(stage, batch, clock(stage))["loss"]
        assert_same_gradients(method, loss, expected, w, ("net.", "biased.", "classifier.", "biased_classifier."))


@pytest.mark.parametrize("stage", ["disentangle", "swap"])
def test_each_half_learns_from_its_own_loss_alone(stage: str) -> None:
    batch, found = make_batch(), []
    for scale in (1.0, 5.0):
        method = make_method("dfa", lambda_dis=scale, lambda_swap_biased=scale)
        batch.generator.manual_seed(0)
        found.append(gradients(method, method(stage, batch, clock(stage))["loss"]))
    for name, grad in found[0].items():
        factor = 5.0 if name.startswith("biased") else 1.0
        torch.testing.assert_close(found[1][name], factor * grad, msg=name)  # type: ignore[operator]


def test_who_moves() -> None:
    method = make_method("dfa")
    halves = {"net": ("net", "classifier"), "biased": ("biased", "biased_classifier")}
    held = {name: {id(p) for p in optim.parameters} for name, optim in method.optimizers().items()}
    assert held == {
        name: {id(p) for part in parts for p in getattr(method, part).parameters()} for name, parts in halves.items()
    }
    for stage in ("disentangle", "swap"):
        before = weights(method)
        after = weights_after(method, [make_batch(seed=7)], stage)
        assert {name for name, value in before.items() if torch.equal(value, after[name])} <= {
            "difficulty.biased.label",
            "difficulty.debiased.label",
        }


def test_without_its_weight_swapping_changes_nothing() -> None:
    batches = [make_batch(seed=k) for k in range(4)]
    one, other = (weights_after(make_method("dfa", lambda_swap=0.0), batches, s) for s in ("disentangle", "swap"))
    assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []


def test_prediction_reads_both_encoders() -> None:
    method, batch = make_method("dfa").eval(), make_batch()
    own, theirs = method.net.features(batch.image), method.biased.features(batch.image)
    assert torch.equal(method.features(batch.image), torch.cat([own, theirs], 1))
    before = method.predict(batch.image)
    assert torch.equal(before, method.classifier(torch.cat([own, theirs], 1)))
    with torch.no_grad():
        method.biased.model.stages[3][0].weight.mul_(2.0)
    assert not torch.equal(method.predict(batch.image), before)


def test_the_means_survive_saving() -> None:
    method, other = make_method("dfa"), make_method("dfa", seed=1)
    method("disentangle", make_batch(), clock("disentangle"))
    other.load_state_dict(method.state_dict())
    losses = [each("swap", make_batch(seed=2), clock("swap"))["loss"] for each in (method, other)]
    assert torch.equal(*losses)


def test_the_papers_schedule() -> None:
    (recipe,) = DFA.recipes
    method = make_method("dfa", **recipe.config)
    first, second = plan_stages(method, recipe.settings, recipe.stages)
    assert (first.stage.name, second.stage.name, second.stage.fresh_optimizers) == ("disentangle", "swap", False)
    assert abs(first.epochs * 235 - 10_000) < 235
    assert abs((first.epochs + second.epochs) * 235 - 50_000) < 235
    rates = [0.01 * plan.settings.lr_factor(e, 0, 1) for plan in (first, second) for e in range(plan.epochs)]
    for epoch, rate in enumerate(rates):
        published = 0.01
        for step in (20_000, 30_000, 40_000):  # StepLR(10,000) that is stepped from step 10,000 on
            if epoch * 235 > step + 235:
                published *= 0.5
            elif epoch * 235 > step - 235:
                published = rate  # within an epoch of the change
        assert rate == pytest.approx(published), epoch


def test_an_mlp_takes_a_width_for_each_layer() -> None:
    options = DFA.recipes[0].backbone_options
    net = BackboneFactory("mlp", 10, (3, 28, 28), "bytes", 0, options)(head=False)
    assert [tuple(p.shape) for p in net.parameters() if p.dim() == 2] == [(100, 2352), (100, 100), (16, 100)]
    found = net.features(torch.rand(5, 3, 28, 28)).detach()
    assert found.shape == (5, net.dim) == (5, 16)
    assert float(found.min()) >= 0, "the paper's last layer ends with a ReLU"
    same = [BackboneFactory("mlp", 10, (3, 28, 28), "none", 0)(**how) for how in ({"depth": 2}, {"width": [100, 100]})]
    for one, other in zip(*(net.parameters() for net in same), strict=True):
        assert torch.equal(one, other)
