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
)
from torch import Tensor

from debias_zoo.methods.domain_independent import own_head


def head_logits(w: dict[str, Tensor], image: Tensor) -> list[Tensor]:
    """(B, classes) of every head, each from its own rows of the weights."""
    body = {**w, "net.model.fc.weight": torch.eye(64).double(), "net.model.fc.bias": torch.zeros(64).double()}
    features, _ = lnl_net(body, image)
    found = []
    for d in range(BIASES):
        rows = slice(d * CLASSES, (d + 1) * CLASSES)
        found.append(features @ w["heads.weight"][rows].T + w["heads.bias"][rows])
    return found


def test_every_image_trains_the_head_of_its_domain() -> None:
    method, batch = make_method("domain_independent"), make_batch()
    w = weights(method)
    heads = head_logits(w, batch.image)
    losses = [cross_entropy(heads[int(batch.bias[i])][i : i + 1], batch.label[i : i + 1]) for i in range(8)]  # type: ignore[index]
    loss = method("main", batch, clock())["loss"]
    assert_same_gradients(method, loss, sum(losses) / 8, w, ("net.", "heads."))  # type: ignore[arg-type]


def test_golden_values() -> None:
    z = torch.tensor([[2, 0, -1, 1], [0.5, 1, 0, 3]], dtype=torch.float64).view(2, 2, 2)
    label = bias = torch.tensor([0, 1])
    each = F.cross_entropy(own_head(z, bias), label, reduction="none")
    assert each.tolist() == pytest.approx([0.12692801104297263, 0.04858735157374191], rel=1e-14)
    assert float(each.mean()) == pytest.approx(0.08775768130835727, rel=1e-14)
    assert z.sum(1).tolist() == [[1, 1], [0.5, 4]]


def test_prediction_is_the_mean_of_all_heads_and_needs_no_bias() -> None:
    method, batch = make_method("domain_independent"), make_batch()
    heads = head_logits(weights(method), batch.image)
    torch.testing.assert_close(method.predict(batch.image), sum(heads) / BIASES)  # type: ignore[arg-type]


def test_other_heads_get_no_gradient() -> None:
    method, batch = make_method("domain_independent"), make_batch()
    loss = method("main", replace(batch, bias=torch.full((8,), 2)), clock())["loss"]
    found = gradients(method, loss)
    assert all(grad is not None for grad in found.values())
    own = torch.arange(BIASES * CLASSES) // CLASSES == 2
    for name in ("heads.weight", "heads.bias"):
        assert found[name][own].any()  # type: ignore[index]
        assert not found[name][~own].any(), name  # type: ignore[index]


def test_a_joint_softmax_over_all_heads_is_another_method() -> None:
    """Domain-discriminative training, of the same paper: it pushes the other heads down."""
    method, batch = make_method("domain_independent"), make_batch()
    logits = method.logits(batch.image)
    joint = F.cross_entropy(logits.flatten(1), batch.label + CLASSES * batch.bias)  # type: ignore[operator]
    assert bool(joint > method("main", batch, clock())["loss"] + 0.5)
    pushed = F.cross_entropy(logits.flatten(1), batch.label + CLASSES * 2)
    assert gradients(method, pushed)["heads.bias"][: 2 * CLASSES].all()  # type: ignore[index]


def test_where_all_heads_agree_it_is_erm() -> None:
    method, erm, batch = make_method("domain_independent"), make_method("erm"), make_batch()
    with torch.no_grad():
        method.heads.weight.copy_(erm.net.model.fc.weight.repeat(BIASES, 1))
        method.heads.bias.copy_(erm.net.model.fc.bias.repeat(BIASES))
    for name, value in method.net.state_dict().items():
        assert torch.equal(value, erm.net.state_dict()[name]), name
    torch.testing.assert_close(method.predict(batch.image), erm.predict(batch.image))
    loss, other = method("main", batch, clock())["loss"], erm("main", batch, clock())["loss"]
    own, theirs = gradients(method, loss), gradients(erm, other)
    torch.testing.assert_close(loss, other)
    assert len(own) == len(theirs)
    for name, grad in own.items():
        if name.startswith("net."):
            torch.testing.assert_close(grad, theirs[name], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(
        own["heads.weight"].view(BIASES, CLASSES, -1).sum(0),  # type: ignore[union-attr]
        theirs["net.model.fc.weight"],
        rtol=1e-6,
        atol=1e-9,
    )
