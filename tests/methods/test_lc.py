from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from replicas import (
    CLASSES,
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

from debias_zoo.backbones import Backbone
from debias_zoo.methods import lc
from debias_zoo.methods.lc import draw_partners, mixing_limit

Cells = dict[tuple[int, int], float]


def renew(prior: Cells, p: Tensor, label: Tensor, average: str, alpha: float) -> Cells:
    """P with the images of a batch taken in one after the other, as the authors' loop does."""
    if average == "batch":
        cells: dict[tuple[int, int], list[float]] = {}
        for row, y in zip(p, label, strict=True):
            cells.setdefault((int(y), int(row.argmax())), []).append(float(row[y]))
        return {cell: sum(values) / len(values) for cell, values in cells.items()}
    prior = dict(prior)
    for row, y in zip(p, label, strict=True):
        cell, value = (int(y), int(row.argmax())), float(row[y])
        prior[cell] = alpha * prior[cell] + (1 - alpha) * value if cell in prior else value
    return prior


def corrections(prior: Cells, attribute: Tensor, normalize: bool) -> list[Tensor]:
    """For each image the column of P that its attribute names."""
    found = []
    for a in attribute:
        column = torch.tensor([prior.get((y, int(a)), 0.0) for y in range(CLASSES)], dtype=torch.float64)
        found.append(column / column.sum() if normalize else column)
    return found


def tell_images_apart(net: Backbone) -> None:
    """Centre the logits, so that the most likely class differs from image to image."""
    last = net.model.fc
    with torch.no_grad():
        last.weight.mul_(5.0)
        last.bias.copy_(-last.weight @ net.features(make_batch(12).image).mean(0))


@pytest.mark.parametrize(("average", "normalize"), [("mv", True), ("mv", False), ("batch", True)])
def test_both_losses_and_the_prior_over_time(average: str, normalize: bool) -> None:
    config = {"tau": 0.4, "alpha": 0.8, "lambda_biased": 1.7, "q": 0.8, "ramp_share": 0.5}
    method = make_method("lc", average=average, normalize=normalize, **config)
    tell_images_apart(method.biased)
    prior: Cells = {}
    for k in range(3):
        batch, now = make_batch(12, seed=k), clock(step=2 * k)
        random = torch.Generator()
        random.set_state(batch.generator.get_state())
        w = weights(method)
        biased = lnl_net(w, batch.image, prefix="biased.")[0]
        p = torch.softmax(biased.detach() / 0.4, 1)
        prior = renew(prior, p, batch.label, average, 0.8)
        c = corrections(prior, p.argmax(1), normalize)
        partner = draw_partners(batch.label, p.argmax(1), random)
        mu = 0.5 * 2.718281828459045 ** (-5 * max(0.0, 1 - 2 * k / 5) ** 2)
        s = (1 - mu) - mu * float(torch.rand((), generator=random))
        mixed = torch.stack([s * batch.image[i] + (1 - s) * batch.image[j] for i, j in enumerate(partner)])
        log_c = torch.stack([torch.log(s * c[i] + (1 - s) * c[j] + 1e-4) for i, j in enumerate(partner)])
        target = cross_entropy(lnl_net(w, mixed)[0] + log_c, batch.label)
        expected = target + 1.7 * biased_cross_entropy(biased, batch.label, 0.8)
        loss = method("both", batch, now)["loss"]
        assert_same_gradients(method, loss, expected, w, ("net.", "biased."))
    assert len({a for _, a in prior}) == CLASSES, "few attributes try little"
    for (y, a), value in prior.items():
        assert float(method.prior[y, a]) == pytest.approx(value, rel=1e-6)
    unseen = 0.0 if average == "batch" else -1.0
    assert int((method.prior == unseen).sum()) == CLASSES**2 - len(prior)


def test_images_of_one_cell_that_follow_each_other_count_one_after_the_other() -> None:
    method, cell = make_method("lc", alpha=0.8), torch.tensor([1, 1, 1])
    method.estimate_prior(torch.tensor([0.2, 0.7, 0.4], dtype=torch.float64), cell, 0 * cell)
    assert float(method.prior[1, 0]) == pytest.approx(0.8 * (0.8 * 0.2 + 0.2 * 0.7) + 0.2 * 0.4)
    method.estimate_prior(torch.tensor([0.9], dtype=torch.float64), cell[:1], 0 * cell[:1])
    assert float(method.prior[1, 0]) == pytest.approx(0.8 * 0.32 + 0.2 * 0.9)


def test_the_ramp() -> None:
    published = [0.00336897, 0.03002733, 0.1432524, 0.3658078, 0.5, 0.5]
    steps = (0, 10, 20, 30, 40, 99)
    assert [mixing_limit(clock(step=t, steps=100), 0.4) for t in steps] == pytest.approx(published, abs=5e-8)
    assert mixing_limit(clock(step=0), 0.0) == 0.5


def test_partners_are_conflicting_images_of_the_class() -> None:
    label = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2])
    attribute = torch.tensor([0, 1, 0, 2, 1, 1, 1, 0])
    random = torch.Generator().manual_seed(0)
    drawn = torch.stack([draw_partners(label, attribute, random) for _ in range(600)])
    for i in range(4):
        found, count = drawn[:, i].unique(return_counts=True)
        assert found.tolist() == [1, 3]
        assert count.min() > 240
    for i in range(4, 7):
        found, count = drawn[:, i].unique(return_counts=True)
        assert found.tolist() == [4, 5, 6], "no other attribute: any image of the class"
        assert count.min() > 150
    assert drawn[:, 7].unique().tolist() == [7]


def test_without_correction_and_mixing_the_network_is_erms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lc, "mixing_limit", lambda *_: 0.0)
    monkeypatch.setattr(lc.LC, "estimate_prior", lambda *_: None)
    erm, method = make_method("erm"), make_method("lc")
    method.prior.fill_(1.0)
    plain = gradients(erm, erm("main", make_batch(), clock())["loss"])
    found = gradients(method, method("both", make_batch(), clock())["loss"])
    for name, grad in plain.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-9, atol=1e-12)


def test_who_moves_and_how_fast() -> None:
    method = make_method("lc")
    before = weights(method)
    after = weights_after(method, [make_batch(seed=7)])
    assert [name for name, value in before.items() if torch.equal(value, after[name])] == []
    optims = method.optimizers()
    assert {name: {id(p) for p in optim.parameters} for name, optim in optims.items()} == {
        name: {id(p) for p in getattr(method, name).parameters()} for name in ("net", "biased")
    }
    assert (optims["biased"].lr_scale, optims["biased"].weight_decay) == (0.1, None)
    assert make_method("lc", biased_weight_decay=0.0).optimizers()["biased"].weight_decay == 0.0
    assert (optims["net"].lr_scale, optims["net"].weight_decay) == (1.0, None)


def test_the_prior_survives_saving() -> None:
    method, other = make_method("lc"), make_method("lc", seed=1)
    method("both", make_batch(), clock())
    other.load_state_dict(method.state_dict())
    losses = [each("both", replace(make_batch(seed=2)), clock(step=1))["loss"] for each in (method, other)]
    assert torch.equal(*losses)


def test_prediction_is_not_corrected() -> None:
    method, batch = make_method("lc").eval(), make_batch()
    before = method.predict(batch.image)
    method.prior.copy_(torch.rand(3, 3))
    assert torch.equal(method.predict(batch.image), before)
    assert torch.equal(before, method.net(batch.image))
