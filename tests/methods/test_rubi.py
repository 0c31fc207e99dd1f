from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from replicas import assert_same_gradients, clock, lnl_net, make_batch, make_method, weights
from torch import Tensor

from debias_zoo.engine import Engine
from debias_zoo.errors import ZooError
from debias_zoo.methods.rubi import LabelRUBi, RUBi
from debias_zoo.protocol import Settings
from debias_zoo.testing import method_checks

SETTINGS = Settings(optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=0.01, batch_size=8, schedule="constant")


def replica(logits: Tensor, mask: Tensor, label: Tensor, weight: float) -> Tensor:
    """CE of the masked logits, and that of the mask, sample by sample and class by class."""
    total = torch.zeros((), dtype=torch.float64)
    for z, m, y in zip(logits, mask, label, strict=True):
        masked = [z[c] / (1.0 + torch.exp(-m[c])) for c in range(len(z))]
        total = total + torch.log(sum(torch.exp(value) for value in masked)) - masked[y]  # type: ignore[arg-type]
        total = total + weight * (torch.log(sum(torch.exp(value) for value in m)) - m[y])  # type: ignore[arg-type]
    return total / len(label)


def gradients(method: RUBi | LabelRUBi, loss: str) -> dict[str, Tensor | None]:
    named = dict(method.named_parameters())
    wanted = {name: p for name, p in named.items() if p.requires_grad}
    value = method(loss, make_batch(), clock())["loss"]
    return dict(zip(wanted, torch.autograd.grad(value, list(wanted.values()), allow_unused=True), strict=True))


def test_the_second_update_is_the_masked_loss() -> None:
    method, batch = make_method("rubi", mask_weight=0.7), make_batch()
    w = weights(method)
    theirs = method.biased.features(batch.image).detach()
    mask = theirs @ w["mask.weight"].T + w["mask.bias"]
    expected = replica(lnl_net(w, batch.image)[0], mask, batch.label, 0.7)
    loss = method("debiased", batch, clock())["loss"]
    assert_same_gradients(method, loss, expected, w, ("net.", "mask."))


def test_the_mask_by_hand() -> None:
    """One image: 3/4 = sigmoid(log 3) of its logit 4, against a half of 2 and of -8."""
    method = make_method("rubi_label")
    method.mask.weight.data.zero_()
    method.mask.bias.data.copy_(torch.tensor([math.log(3.0), 0.0, 0.0], dtype=torch.float64))
    method.net.classify = lambda features: torch.tensor([[4.0, 2.0, -8.0]], dtype=torch.float64)
    batch = make_batch(1)
    expected = math.log(1.0 + math.exp(-2.0) + math.exp(-7.0)) + math.log(1.0 + 1.0 / 3.0 + 1.0 / 3.0)
    assert float(method("main", batch, clock())["loss"].detach()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "loss", "reached"),
    [("rubi", "biased", "biased."), ("rubi", "debiased", ("net.", "mask.")), ("rubi_label", "main", ("net.", "mask."))],
)
def test_gradient_flow(name: str, loss: str, reached: str | tuple[str, ...]) -> None:
    for parameter, grad in gradients(make_method(name), loss).items():
        assert (grad is not None) == parameter.startswith(reached), parameter


def test_what_each_update_moves() -> None:
    method = make_method("rubi")
    engine = Engine(method)
    engine.build_optimizers(SETTINGS)
    first, second = method.updates(clock())
    states = [weights(method)]
    for update in (first, second):
        method.updates = lambda now, update=update: [update]
        engine.step(make_batch(), clock())
        states.append(weights(method))
    before, middle, after = states
    parameters = {name for name, _ in method.named_parameters()}
    biased = {name for name in parameters if name.startswith("biased.")}
    assert {name for name in parameters if not torch.equal(before[name], middle[name])} == biased
    assert {name for name in parameters if not torch.equal(middle[name], after[name])} == parameters - biased
    assert not torch.equal(
        middle["biased.model.stages.0.1.running_mean"], after["biased.model.stages.0.1.running_mean"]
    )


def test_a_mask_of_zeros_halves_the_logits() -> None:
    method, batch = make_method("rubi"), make_batch()
    method.mask.weight.data.zero_()
    method.mask.bias.data.zero_()
    own = list(method.net.parameters())
    loss = method("debiased", batch, clock())["loss"]
    halved = F.cross_entropy(method.net(batch.image) / 2.0, batch.label)
    for mine, other in zip(torch.autograd.grad(loss, own), torch.autograd.grad(halved, own), strict=True):
        assert torch.equal(mine, other)


def test_a_frozen_mask_head_is_what_the_published_code_does() -> None:
    """The head keeps its initial weights and the mask's own cross-entropy moves nothing."""
    nets = []
    for weight in (0.0, 5.0):
        method = make_method("rubi", freeze_mask_head=True, mask_weight=weight)
        engine = Engine(method)
        engine.build_optimizers(SETTINGS)
        before = weights(method.mask)
        for step in range(3):
            engine.step(make_batch(seed=step), clock(step=step))
        assert all(torch.equal(before[name], value) for name, value in method.mask.named_parameters())
        nets.append(weights(method))
    assert all(torch.equal(value, nets[1][name]) for name, value in nets[0].items())


@pytest.mark.parametrize("name", ["all_in_optimizers", "moves_what_it_names", "everything_trains"])
def test_the_contract_with_a_frozen_mask_head(name: str) -> None:
    (check,) = (check for check in method_checks(RUBi, {"freeze_mask_head": True}) if check.name == name)
    assert check.verdict().ok, check.verdict().reason


def test_the_label_form_reads_a_column_for_each_bias() -> None:
    method, batch = make_method("rubi_label", mask_weight=0.3), make_batch()
    w = weights(method)
    assert batch.bias is not None
    mask = torch.stack([w["mask.weight"][:, b] + w["mask.bias"] for b in batch.bias.tolist()])
    expected = replica(lnl_net(w, batch.image)[0], mask, batch.label, 0.3)
    loss = method("main", batch, clock())["loss"]
    assert_same_gradients(method, loss, expected, w, ("net.", "mask."))


def test_the_label_form_refuses_a_batch_without_bias_labels() -> None:
    with pytest.raises(ZooError, match="no bias labels"):
        make_method("rubi_label")("main", replace(make_batch(), bias=None), clock())


@pytest.mark.parametrize("name", ["rubi", "rubi_label"])
def test_predicts_without_the_mask(name: str) -> None:
    method, batch = make_method(name).eval(), make_batch()
    expected, _ = lnl_net(weights(method), batch.image, training=False)
    torch.testing.assert_close(method.predict(batch.image), expected)
    method.mask.bias.data.add_(100.0)
    torch.testing.assert_close(method.predict(batch.image), expected)


@pytest.mark.parametrize("cls", [RUBi, LabelRUBi])
def test_recipes_are_complete(cls: type[RUBi] | type[LabelRUBi]) -> None:
    for recipe in cls.recipes:
        cls.Config(**recipe.config)
        assert recipe.protocol != "paper" or (recipe.settings.missing() == [] and recipe.settings.epochs)
