from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from replicas import assert_same_gradients, clock, cross_entropy, lnl_net, make_batch, make_method, weights
from torch import Tensor

from debias_zoo.engine import Engine
from debias_zoo.method import Optim
from debias_zoo.methods.learned_mixin import LearnedMixin, mixed_losses
from debias_zoo.protocol import Settings
from debias_zoo.testing import method_checks

SETTINGS = Settings(optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=0.01, batch_size=8, schedule="constant")

Z = torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 1.0]], dtype=torch.float64)
RAW = torch.tensor([[2.0, 0.0, 0.0], [1.0, 1.0, -1.0]], dtype=torch.float64)
GATE = torch.tensor([[0.5], [-1.0]], dtype=torch.float64)
LABEL = torch.tensor([0, 2])


@pytest.mark.parametrize("theirs", [RAW, F.log_softmax(RAW, 1)], ids=["logits", "log-probabilities"])
def test_golden_values(theirs: Tensor) -> None:
    plain = mixed_losses(Z, theirs, GATE, LABEL, 0.0)
    assert float(plain["loss"]) == pytest.approx(0.9912182004299495, rel=1e-14)
    assert float(plain["gate"]) == pytest.approx((0.9740769842 + 0.3132616875) / 2.0, abs=1e-10)
    assert float(mixed_losses(Z, theirs, GATE, LABEL, 0.36)["loss"]) == pytest.approx(1.3053319771196155, rel=1e-14)
    entropy = mixed_losses(Z, theirs, GATE, LABEL, 1.0)["loss"] - plain["loss"]
    assert float(entropy) == pytest.approx((0.6829842774 + 1.0620922597) / 2.0, abs=1e-10)


def test_an_open_gate_of_one_is_the_product_of_experts() -> None:
    one = torch.full_like(GATE, torch.tensor(1.0, dtype=torch.float64).expm1().log().item())
    assert float(mixed_losses(Z, RAW, one, LABEL, 0.0)["loss"]) == pytest.approx(1.6178649616568574, rel=1e-12)


def replica(logits: Tensor, theirs: Tensor, gate: Tensor, label: Tensor, weight: float) -> Tensor:
    """The paper's two terms, sample by sample, on log-probabilities of both networks."""
    total = torch.zeros((), dtype=torch.float64)
    for z, g, c, y in zip(logits, theirs, gate, label, strict=True):
        s = torch.log(1.0 + torch.exp(c))
        log_own = z - torch.log(torch.exp(z).sum())
        log_biased = g - torch.log(torch.exp(g).sum())
        joint = torch.exp(log_own + s * log_biased)
        total = total - torch.log(joint[y] / joint.sum())
        p = torch.exp(s * log_biased) / torch.exp(s * log_biased).sum()
        total = total - weight * (p * torch.log(p)).sum()
    return total / len(label)


@pytest.mark.parametrize("weight", [0.0, 0.36])
def test_the_second_stage_is_the_papers_loss(weight: float) -> None:
    method, batch = make_method("learned_mixin", lambda_entropy=weight), make_batch()
    w = weights(method)
    theirs = method.biased.eval()(batch.image).detach()
    logits, _ = lnl_net(w, batch.image)
    identity = {"net.model.fc.weight": torch.eye(64).double(), "net.model.fc.bias": torch.zeros(64).double()}
    features, _ = lnl_net({**w, **identity}, batch.image)
    gate = (features @ w["gate.weight"].T + w["gate.bias"]).squeeze(1)
    expected = replica(logits, theirs, gate, batch.label, weight)
    loss = method("debiased", batch, clock("debiased"))["loss"]
    assert_same_gradients(method, loss, expected, w, ("net.", "gate."))


def test_the_first_stage_is_cross_entropy_of_g() -> None:
    method, batch = make_method("learned_mixin"), make_batch()
    loss = method("biased", batch, clock("biased"))["loss"]
    torch.testing.assert_close(loss, cross_entropy(method.biased(batch.image), batch.label))


@pytest.mark.parametrize(("stage", "reached"), [("biased", ("biased.",)), ("debiased", ("net.", "gate."))])
def test_gradient_flow_and_what_moves(stage: str, reached: tuple[str, ...]) -> None:
    method = make_method("learned_mixin")
    engine = Engine(method)
    engine.build_optimizers(SETTINGS)
    value = method(stage, make_batch(), clock(stage))["loss"]
    before = weights(method)
    named = dict(method.named_parameters())
    for name, grad in zip(named, torch.autograd.grad(value, list(named.values()), allow_unused=True), strict=True):
        assert (grad is not None) == name.startswith(reached), name
    method.train()  # as the trainer does before every epoch
    engine.step(make_batch(), clock(stage))
    moved = {name for name, value in weights(method).items() if not torch.equal(value, before[name])}
    assert {name for name in named if name.startswith(reached)} <= moved
    assert all(name.startswith(reached) for name in moved), "a frozen network's batch norm statistics drift"


def test_a_g_that_knows_nothing_leaves_erm() -> None:
    nets = []
    for name, config in (("erm", {}), ("learned_mixin", {"lambda_entropy": 0.0})):
        method = make_method(name, **config)
        if name == "learned_mixin":
            method.biased.model.fc.weight.data.zero_()
            method.biased.model.fc.bias.data.zero_()
        engine = Engine(method)
        engine.build_optimizers(SETTINGS)
        for step in range(4):
            engine.step(make_batch(seed=step), clock("main" if name == "erm" else "debiased", step=step))
        nets.append(weights(method.net))
    for name, value in nets[0].items():
        assert torch.equal(value, nets[1][name]), name


class GateForgotten(LearnedMixin):
    """ReBias' trainer: the gate reaches no optimizer."""

    def optimizers(self) -> Mapping[str, Optim]:
        return {"biased": Optim(self.biased.parameters()), "debiased": Optim(self.net.parameters())}


def test_a_gate_without_an_optimizer_is_caught() -> None:
    (check,) = (check for check in method_checks(GateForgotten) if check.name == "all_in_optimizers")
    assert "in no optimizer: gate.weight, gate.bias" in check.verdict().reason


def test_recipes_are_complete() -> None:
    for recipe in LearnedMixin.recipes:
        LearnedMixin.Config(**recipe.config)
        assert recipe.protocol != "paper" or recipe.settings.missing() == []
