from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from replicas import (
    BIASES,
    CLASSES,
    assert_same_gradients,
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

from debias_zoo.method import Batch, Clock
from debias_zoo.methods.irm import IRM, half_products, squares
from debias_zoo.methods.losses.irm import scale_gradient
from debias_zoo.protocol import Settings
from debias_zoo.testing import CheckFailure, method_checks
from debias_zoo.testing.bench import SETTINGS, Bench

Z = torch.tensor([[2, 0], [1, -1], [0, 1], [-0.5, 0.5]], dtype=torch.float64)
Y = torch.tensor([0, 0, 1, 0])


def dummy_gradient(logits: Tensor, label: Tensor) -> Tensor:
    """The derivative of the risk with respect to a scale of the logits, by autograd, itself differentiable."""
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(cross_entropy(scale * logits, label), [scale], create_graph=True)
    return grad


def replica(logits: Tensor, batch: Batch, weight: float, form: str) -> Tensor:
    """One environment after the other; of one image there is no unbiased penalty."""
    risks, penalties = [], []
    for value in range(BIASES):
        rows = [i for i in range(len(logits)) if int(batch.bias[i]) == value]  # type: ignore[index]
        if rows:
            risks.append(cross_entropy(logits[rows], batch.label[rows]))
        if rows and form == "squared":
            penalties.append(dummy_gradient(logits[rows], batch.label[rows]) ** 2)
        if len(rows) >= 2 and form == "unbiased":
            halves = [dummy_gradient(logits[half], batch.label[half]) for half in (rows[0::2], rows[1::2])]
            penalties.append(halves[0] * halves[1])
    total = sum(risks) / len(risks) + weight * sum(penalties) / len(penalties)  # type: ignore[operator]
    return total / max(1.0, weight)  # type: ignore[no-any-return]


@pytest.mark.parametrize("form", ["squared", "unbiased"])
@pytest.mark.parametrize(("stage", "given", "used"), [("anneal", 30, 1), ("penalise", 30, 30), ("penalise", 0.3, 0.3)])
def test_risk_and_penalty_of_every_environment(stage: str, given: float, used: float, form: str) -> None:
    method, batch = make_method("irm", penalty_weight=given, penalty=form), make_batch(11)
    sizes = torch.bincount(batch.bias, minlength=BIASES)  # type: ignore[arg-type]
    assert any(sizes % 2), "halves of unequal size should be there"
    w = weights(method)
    expected = replica(lnl_net(w, batch.image)[0], batch, used, form)
    assert_same_gradients(method, method("main", batch, clock(stage))["loss"], expected, w, ("net.",))


def test_golden_values() -> None:
    each = scale_gradient(Z, Y)
    assert float(F.cross_entropy(Z, Y)) == pytest.approx(0.47009484928059775, rel=1e-14)
    assert each.tolist() == pytest.approx([-0.2384058440, -0.2384058440, -0.2689414214, 0.7310585786], abs=5e-11)
    assert float(each.mean()) == pytest.approx(-0.0036736327071152, abs=5e-17)
    found, measured = squares(each, torch.tensor([1, 1, 1, 1]), 3)
    assert measured.tolist() == [False, True, False]
    assert found.tolist() == [0.0, pytest.approx(1.34955772667866e-5, rel=1e-12), 0.0]
    assert float(each[0::2].mean()) == pytest.approx(-0.25367363270711524, rel=1e-14)
    assert float(each[1::2].mean()) == pytest.approx(0.24632636729288482, rel=1e-14)
    products, halved = half_products(each, torch.tensor([1, 1, 1, 1]), 3)
    assert float(products[1]) == pytest.approx(-0.06248650442273323, rel=1e-14)
    assert halved.tolist() == [False, True, False]
    products, halved = half_products(each, torch.tensor([0, 2, 2, 1]), 3)
    assert halved.tolist() == [False, False, True], "two images make two halves"
    assert products[2] == each[1] * each[2]


def test_an_environment_with_one_image_has_a_risk_and_no_unbiased_penalty() -> None:
    method, batch = make_method("irm", penalty_weight=50.0, penalty="unbiased"), make_batch(3)
    batch = replace(batch, bias=torch.tensor([0, 1, 3]))
    w = weights(method)
    expected = cross_entropy(lnl_net(w, batch.image)[0], batch.label) / 50.0
    assert_same_gradients(method, method("main", batch, clock("penalise"))["loss"], expected, w, ("net.",))


class Unguarded(IRM):
    """SubpopBench: the halves of an environment with one image are not guarded, and the mean over no row is NaN."""

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        logits = self.net(batch.image).float()
        each = scale_gradient(logits, batch.label)
        products, _ = half_products(each, batch.bias, BIASES)  # type: ignore[arg-type]
        ones = torch.bincount(batch.bias, minlength=BIASES) == 1  # type: ignore[arg-type]
        penalty = torch.where(ones, torch.nan, products).sum() / BIASES
        return {"loss": F.cross_entropy(logits, batch.label) + penalty}


def test_the_unbiased_penalty_keeps_the_contract_too() -> None:
    wanted = {"smallest_batch", "one_group", "any_device", "bf16"}
    config = {"penalty": "unbiased", "penalty_weight": 1.0}
    checks = [check for check in method_checks(IRM, config) if check.name in wanted]
    assert [check.name for check in checks if not check.verdict().ok] == []
    assert len(checks) == len(wanted)


def test_an_unguarded_environment_is_caught() -> None:
    check = next(check for check in method_checks(Unguarded) if check.name == "smallest_batch")
    with pytest.raises(CheckFailure, match="NaN"):
        check.run()


def test_the_loss_reaches_every_parameter_through_both_terms() -> None:
    method, batch = make_method("irm"), make_batch(12)
    found = method("main", batch, clock("penalise"))
    for value in (found["loss"], found["risk"], found["penalty"]):
        assert all(grad is not None and grad.any() for grad in gradients(method, value).values())


def test_annealing_ends_with_a_fresh_optimizer() -> None:
    stages = make_method("irm", anneal_share=0.25).stages()
    assert [(stage.name, stage.share) for stage in stages] == [("anneal", 0.25), ("penalise", 0.75)]
    assert all(stage.settings.clip == 1.0 and stage.fresh_optimizers for stage in stages)
    assert [stage.name for stage in make_method("irm", anneal_share=0.0).stages()] == ["penalise"]
    ran = Bench(IRM).fit(epochs=2, settings=Settings(optimizer="adam").over(SETTINGS))
    state = ran.trainer.engine.optimizers["main"].state_dict()["state"]
    assert {int(one["step"]) for one in state.values()} == {ran.trainer.total // 2}


def test_without_penalty_and_on_equal_environments_it_is_erm() -> None:
    batches = [
        replace(make_batch(24, seed), bias=torch.arange(24) // CLASSES % BIASES, label=torch.arange(24) % CLASSES)
        for seed in range(4)
    ]
    erm = weights_after(make_method("erm"), batches)
    irm = weights_after(make_method("irm", penalty_weight=0.0, anneal_share=0.0), batches, "penalise")
    for name, value in erm.items():
        torch.testing.assert_close(value, irm[name], rtol=1e-6, atol=1e-9)


def test_groups_share_a_weight_through_the_penalty_alone() -> None:
    config = {"penalty_weight": 0.0, "anneal_share": 0.0}
    check = next(check for check in method_checks(IRM, config) if check.name == "groups")
    assert check.verdict().status == "unexpectedly passed"
