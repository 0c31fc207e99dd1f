from __future__ import annotations

import math

import pytest
import torch
from replicas import assert_same_gradients, clock, cross_entropy, dense_heads, lnl_net, make_batch, make_method, weights

from debias_zoo.methods.losses.bias_heads import uniform_cross_entropy

LATE = clock("unlearn", epoch=2)


def test_recognise_trains_h_on_detached_features() -> None:
    method, batch = make_method("blindeye"), make_batch()
    w = weights(method)
    _, z = lnl_net(w, batch.image)
    heads = dense_heads(w, z.detach())
    replica = sum(cross_entropy(head, batch.bias_map[:, k]) for k, head in enumerate(heads))  # type: ignore[index]
    loss = method("recognise", batch, LATE)["loss"]
    assert_same_gradients(method, loss, replica, w, ("bias.",))  # type: ignore[arg-type]
    net = torch.autograd.grad(loss, list(method.net.parameters()), allow_unused=True)
    assert all(grad is None for grad in net)


@pytest.mark.parametrize("bias_norm", ["batch", "running"])
def test_confuse_pulls_h_towards_uniform(bias_norm: str) -> None:
    method, batch = make_method("blindeye", alpha=0.4, bias_norm=bias_norm), make_batch()
    method("recognise", batch, LATE)
    w = weights(method)
    logits, z = lnl_net(w, batch.image)
    confusion = []
    for head in dense_heads(w, z, training=bias_norm == "batch"):
        p = torch.exp(head) / torch.exp(head).sum(1, keepdim=True)
        confusion.append(-torch.log(p).mean(1).mean())  # cross-entropy against 1/K
    replica = cross_entropy(logits, batch.label) + 0.4 * sum(confusion) / 3  # type: ignore[operator]
    assert_same_gradients(method, method("confuse", batch, LATE)["loss"], replica, w, ("net.",))


@pytest.mark.parametrize("bias_norm", ["batch", "running"])
def test_statistics_of_h_move_in_confuse_where_it_uses_those_of_the_batch(bias_norm: str) -> None:
    method, batch = make_method("blindeye", bias_norm=bias_norm), make_batch()
    method("recognise", batch, LATE)
    before = method.bias.norm.running_mean.clone()
    method("confuse", batch, LATE)
    assert torch.equal(before, method.bias.norm.running_mean) == (bias_norm == "running")


def test_confusion_is_at_least_log_k_and_its_gradient_is_softmax_minus_uniform() -> None:
    torch.testing.assert_close(uniform_cross_entropy([torch.zeros(3, 8)]), torch.tensor(math.log(8.0)))
    logits = torch.tensor([[2.0, -1.0, 0.5, 0.0]], dtype=torch.float64, requires_grad=True)
    value = uniform_cross_entropy([logits])
    assert value > math.log(4.0)
    (grad,) = torch.autograd.grad(value, [logits])
    torch.testing.assert_close(grad, torch.softmax(logits, 1) - 0.25)


def test_nothing_is_confused_while_h_warms_up() -> None:
    method, batch = make_method("blindeye", alpha=1.0, warmup_epochs=1), make_batch()
    method("recognise", batch, clock("unlearn", epoch=0))
    first = method("confuse", batch, clock("unlearn", epoch=0))["loss"]
    w = weights(method)
    torch.testing.assert_close(first, cross_entropy(lnl_net(w, batch.image)[0], batch.label))
    assert method("confuse", batch, clock("unlearn", epoch=1))["loss"] > first + 1.0


@pytest.mark.parametrize(("stage", "names"), [("pretrain", ["pretrain"]), ("unlearn", ["recognise", "confuse"])])
def test_updates(stage: str, names: list[str]) -> None:
    updates = make_method("blindeye").updates(clock(stage))
    assert [update.loss for update in updates] == names
    assert [update.steps for update in updates] == ([("net",)] if stage == "pretrain" else [("bias",), ("net",)])
