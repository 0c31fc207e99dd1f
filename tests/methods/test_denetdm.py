from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from replicas import (
    assert_same_gradients,
    clock,
    cross_entropy,
    gradients,
    make_batch,
    make_method,
    weights,
    weights_after,
)
from torch import Tensor, nn
from watching import WatchingEngine, same

from debias_zoo.backbones import NORMALIZATIONS
from debias_zoo.errors import ZooError
from debias_zoo.method import Stage
from debias_zoo.methods.denetdm import DeNetDM, ShallowNet, depth
from debias_zoo.methods.losses.distillation import soft_cross_entropy
from debias_zoo.plans import plan_stages
from debias_zoo.testing import method_checks
from debias_zoo.testing.bench import Bench

EXPERTS, TARGET = clock("experts"), clock("target")
ROUNDED = 1e-7
"""What the constants of the normalisation, which are float32, leave of the agreement."""


def mlp(w: dict[str, Tensor], image: Tensor, prefix: str, layers: int) -> Tensor:
    """(B, 100): linear layers with ReLU on the flattened image."""
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in NORMALIZATIONS["cifar"])
    x = ((image - mean) / std).flatten(1)
    for k in range(layers):
        name = f"{prefix}model.stages.{k}.{'1' if k == 0 else '0'}."
        x = F.relu(x @ w[name + "weight"].T + w[name + "bias"])
    return x


def linear(w: dict[str, Tensor], x: Tensor, name: str) -> Tensor:
    return x @ w[name + ".weight"].T + w[name + ".bias"]


def slow_distillation(student: Tensor, teacher: Tensor, t: float) -> Tensor:
    """-T^2 / B sum_i sum_c softmax(teacher_i / T)_c log softmax(student_i / T)_c, term by term."""
    total = torch.zeros((), dtype=torch.float64)
    for own, theirs in zip(student, teacher, strict=True):
        p, q = torch.exp(theirs / t), torch.exp(own / t)
        for c in range(len(own)):
            total = total - t**2 * p[c] / p.sum() * torch.log(q[c] / q.sum())
    return total / len(student)


def test_golden_distillation() -> None:
    student, teacher = torch.tensor([[1.0, 1, 0]]).double(), torch.tensor([[3.0, 1, 0]]).double()
    assert float(soft_cross_entropy(student, teacher, 2.0)) == pytest.approx(4.112569118120311, rel=1e-14)
    assert float(slow_distillation(student, teacher, 2.0)) == pytest.approx(4.112569118120311, rel=1e-14)


def test_experts_add_their_features_before_one_classifier() -> None:
    method, batch = make_method("denetdm", backbone="mlp"), make_batch()
    w = weights(method)
    both = mlp(w, batch.image, "deep.", 4) + mlp(w, batch.image, "shallow.", 2)
    replica = cross_entropy(linear(w, both, "classifier"), batch.label)
    loss = method("experts", batch, EXPERTS)["loss"]
    assert_same_gradients(method, loss, replica, w, ("deep.", "shallow.", "classifier."), ROUNDED)


def test_the_target_stands_beside_the_deep_branch_and_learns_from_the_shallow_one() -> None:
    method, batch = (
        make_method("denetdm", backbone="mlp", weight_poe=0.7, weight_distill=1.3, temperature=3.0),
        make_batch(),
    )
    w = weights(method)
    own, head = mlp(w, batch.image, "net.", 3), "net.model.fc"
    product = cross_entropy(linear(w, mlp(w, batch.image, "deep.", 4).detach() + own, head), batch.label)
    taught = linear(w, mlp(w, batch.image, "shallow.", 2), "classifier").detach()
    replica = 0.7 * product + 1.3 * slow_distillation(linear(w, own, head), taught, 3.0)
    assert_same_gradients(method, method("target", batch, TARGET)["loss"], replica, w, ("net.",), ROUNDED)


@pytest.mark.parametrize(
    ("loss", "reached"), [("experts", ("deep.", "shallow.", "classifier.")), ("target", ("net.",))]
)
def test_gradient_flow(loss: str, reached: tuple[str, ...]) -> None:
    method = make_method("denetdm")
    found = gradients(method, method(loss, make_batch(), clock(loss))["loss"])
    assert {name for name, grad in found.items() if grad is not None} == {n for n in found if n.startswith(reached)}


@pytest.mark.parametrize(("stage", "moved"), [("experts", ("deep.", "shallow.", "classifier.")), ("target", ("net.",))])
def test_each_stage_moves_its_own_weights_and_statistics(stage: str, moved: tuple[str, ...]) -> None:
    method = make_method("denetdm")
    before = weights(method)
    after = weights_after(method, [make_batch()], stage)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith(moved)}


def test_the_targets_classifier_starts_from_the_experts_which_then_stand_still() -> None:
    ran = Bench(DeNetDM).fit(epochs=2, engine=WatchingEngine)
    engine, end = ran.trainer.engine, ran.fit.method.state_dict()
    assert isinstance(engine, WatchingEngine)
    start, target = engine.first("experts").state, engine.first("target").state
    for name in ("weight", "bias"):
        assert not torch.equal(start[f"classifier.{name}"], target[f"classifier.{name}"])
        assert torch.equal(target[f"net.model.fc.{name}"], target[f"classifier.{name}"])
        assert not torch.equal(target[f"net.model.fc.{name}"], end[f"net.model.fc.{name}"])
    for part in ("deep.", "shallow.", "classifier."):
        assert same(target, end, part), "weights and batch norm statistics of the frozen experts"
    assert same(start, target, "net.model.stages.")


def test_beside_a_deep_branch_that_says_nothing_the_target_is_erm_bit_for_bit() -> None:
    method, batches = make_method("denetdm", backbone="mlp", weight_distill=0.0), [make_batch(seed=k) for k in range(3)]
    nn.init.zeros_(method.deep.model.stages[-1][0].weight)
    nn.init.zeros_(method.deep.model.stages[-1][0].bias)
    erm = weights_after(make_method("erm", backbone="mlp"), batches, "target")
    assert same(erm, weights_after(method, batches, "target"), "net.")


def test_branches_are_the_papers() -> None:
    method = make_method("denetdm", backbone="mlp")
    assert (depth(method.deep), depth(method.shallow), method.deep.dim, method.shallow.dim) == (4, 2, 100, 100)
    other = make_method("denetdm")
    assert (other.deep.name, depth(other.deep)) == ("lnl_convnet", 4)
    assert isinstance(other.shallow, ShallowNet)
    convs = [layer for layer in other.shallow.model if isinstance(layer, nn.Conv2d)]
    assert [(conv.out_channels, conv.kernel_size) for conv in convs] == [(32, (5, 5)), (64, (5, 5)), (64, (5, 5))]
    assert isinstance(other.shallow.embed, nn.Identity)


@pytest.mark.parametrize(
    "config",
    [{}, {"shallow_backbone": "simple_convnet", "shallow_options": {"kernel": 3}}, {"deep_backbone": "resnet10t"}],
)
def test_branches_of_another_width_are_projected(config: dict[str, Any]) -> None:
    method = make_method("denetdm", backbone="resnet18", **config)
    for branch in (method.deep, method.shallow):
        assert branch.features(make_batch(2).image).shape == (2, method.net.dim)
    method("experts", make_batch(2), EXPERTS)


@pytest.mark.parametrize(
    ("backbone", "config"),
    [
        ("mlp", {"deep_options": {"depth": 2}}),
        ("mlp", {"shallow_options": {"depth": 5}}),
        ("lnl_convnet", {"shallow_backbone": "simple_convnet"}),
        ("lnl_convnet", {"deep_backbone": "mlp", "deep_options": {"depth": 3}}),
    ],
)
def test_a_shallow_branch_as_deep_as_the_deep_one_is_refused(backbone: str, config: dict[str, Any]) -> None:
    with pytest.raises(
        ZooError, match=r"the shallow branch, .* layers, the deep branch, .*--set denetdm\.deep_backbone"
    ):
        make_method("denetdm", backbone=backbone, **config)


def test_the_paper_trains_both_stages_with_their_own_weight_decay() -> None:
    (recipe,) = DeNetDM.recipes
    plans = plan_stages(make_method("denetdm", backbone="mlp"), recipe.settings, recipe.stages)
    found = [(plan.stage.name, plan.epochs, plan.settings.weight_decay) for plan in plans]
    assert found == [("experts", 100, 1e-3), ("target", 100, 0.0)]
    assert {(plan.settings.optimizer, plan.settings.lr, plan.settings.batch_size) for plan in plans} == {
        ("adam", 1e-3, 64)
    }


class NeverTrainsTheTarget(DeNetDM):
    """The authors' main.py: with its default arguments the second stage only evaluates."""

    def stages(self) -> Sequence[Stage]:
        return super().stages()[:1]


def test_a_target_that_is_never_trained_is_caught() -> None:
    checks = {check.name: check for check in method_checks(NeverTrainsTheTarget, backbone="mlp")}
    found = checks["everything_trains"].verdict()
    assert found.status == "failed"
    assert "never gets a gradient in any update of any stage: net." in found.reason
