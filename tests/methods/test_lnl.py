from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from replicas import (
    assert_same_gradients,
    clock,
    cross_entropy,
    dense_heads,
    lnl_net,
    make_batch,
    make_method,
    make_task,
    weights,
)

from debias_zoo.assembly import build_method
from debias_zoo.datasets.cmnist import ColoredMNIST
from debias_zoo.engine import Engine
from debias_zoo.errors import ZooError
from debias_zoo.grid import Request, build_grid
from debias_zoo.methods.losses.bias_heads import (
    DenseHeads,
    PooledHead,
    bias_loss,
    bias_predictor,
    bias_targets,
    negative_entropy,
)
from debias_zoo.methods.losses.grl import reverse_gradient
from debias_zoo.plans import plan_stages
from debias_zoo.protocol import Settings
from debias_zoo.runner import load_splits
from debias_zoo.runner import make_method as method_of

NET, HEADS = ("net.",), ("bias.",)


def test_classify_is_cross_entropy_minus_entropy() -> None:
    method, batch = make_method("lnl", lambda_entropy=0.7), make_batch()
    w = weights(method)
    logits, z = lnl_net(w, batch.image)
    entropies = []
    for head in dense_heads(w, z):
        p = torch.exp(head) / torch.exp(head).sum(1, keepdim=True)
        entropies.append(-(p * torch.log(p)).sum(1).mean())
    replica = cross_entropy(logits, batch.label) - 0.7 * sum(entropies) / 3  # type: ignore[operator]
    assert_same_gradients(method, method("classify", batch, clock("unlearn"))["loss"], replica, w, NET)


def test_unlearn_trains_h_and_reverses_the_gradient_of_f() -> None:
    method, batch = make_method("lnl", scale=0.25), make_batch()
    w = weights(method)
    _, z = lnl_net(w, batch.image)
    heads = dense_heads(w, z)
    replica = sum(cross_entropy(head, batch.bias_map[:, k]) for k, head in enumerate(heads))  # type: ignore[index]
    loss = method("unlearn", batch, clock("unlearn", epoch=3))["loss"]
    assert_same_gradients(method, loss, replica, w, HEADS)  # type: ignore[arg-type]
    below = [
        p for name, p in method.named_parameters() if name.startswith(("net.model.stages.0", "net.model.stages.1"))
    ]
    names = [
        name for name in w if name.startswith(("net.model.stages.0", "net.model.stages.1")) and w[name].requires_grad
    ]
    own = torch.autograd.grad(loss, below)
    theirs = torch.autograd.grad(replica, [w[name] for name in names])  # type: ignore[arg-type]
    for mine, other in zip(own, theirs, strict=True):
        torch.testing.assert_close(mine, -0.25 * other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("loss", "reached", "untouched"),
    [
        ("pretrain", ("net.",), ("bias.",)),
        ("classify", ("net.",), ()),
        ("unlearn", ("net.model.stages.0", "net.model.stages.1", "bias."), ("net.model.stages.2", "net.model.fc")),
    ],
)
def test_gradient_flow(loss: str, reached: tuple[str, ...], untouched: tuple[str, ...]) -> None:
    method = make_method("lnl")
    value = method(loss, make_batch(), clock("unlearn", epoch=1))["loss"]
    names = [name for name, _ in method.named_parameters()]
    grads = torch.autograd.grad(value, list(method.parameters()), allow_unused=True)
    for name, grad in zip(names, grads, strict=True):
        if name.startswith(untouched) and untouched:
            assert grad is None, f"{name} is reached by {loss}"
        elif name.startswith(reached):
            assert grad is not None, f"{name} is not reached by {loss}"


def test_classify_leaves_h_and_unlearn_leaves_g() -> None:
    method = make_method("lnl")
    engine = Engine(method)
    settings = Settings(optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=0.1, batch_size=8, schedule="constant")
    engine.build_optimizers(settings)
    first, second = method.updates(clock("unlearn"))
    before = weights(method)
    method.updates = lambda now: [first]
    engine.step(make_batch(), clock("unlearn"))
    middle = weights(method)
    method.updates = lambda now: [second]
    engine.step(make_batch(), clock("unlearn", epoch=1))
    after = weights(method)
    parameters = {name for name, _ in method.named_parameters()}
    head = {name for name in parameters if name.startswith("bias.")}
    upper = {
        name for name in parameters if name.startswith(("net.model.stages.2", "net.model.stages.3", "net.model.fc"))
    }
    assert all(torch.equal(before[name], middle[name]) for name in head)
    assert not any(torch.equal(middle[name], after[name]) for name in head)
    assert all(torch.equal(middle[name], after[name]) for name in upper), "decay or momentum moved g"
    assert not any(torch.equal(before[name], middle[name]) for name in upper)


def test_ignored_pixels_give_no_loss() -> None:
    method, batch = make_method("lnl"), make_batch()
    assert batch.bias_map is not None
    logits = method.bias(method.net.tap(batch.image))
    whole = bias_loss(logits, batch)
    changed = [torch.where(batch.bias_map[:, k, None] < 0, 50.0 * head, head) for k, head in enumerate(logits)]
    torch.testing.assert_close(bias_loss(changed, batch), whole)
    batch.bias_map.fill_(-100)
    assert bias_loss(logits, batch) == 0


def test_the_one_pixel_that_is_not_ignored_counts_whole() -> None:
    method, batch = make_method("lnl"), make_batch()
    assert batch.bias_map is not None
    logits = method.bias(method.net.tap(batch.image))
    label = int(batch.bias_map.max())
    batch.bias_map.fill_(-100)
    batch.bias_map[3, :, 4, 5] = label
    alone = sum(-float(head[3, :, 4, 5].detach().log_softmax(0)[label]) for head in logits)
    assert float(bias_loss(logits, batch).detach()) == pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize("grid", [(7, 14), (14, 7), (5, 5)])
def test_dense_labels_are_taken_at_the_nearest_pixel_of_another_grid(grid: tuple[int, int]) -> None:
    batch = make_batch()
    assert batch.bias_map is not None
    height, width = batch.bias_map.shape[2:]
    rows = [int((2 * k + 1) * height / (2 * grid[0])) for k in range(grid[0])]
    columns = [int((2 * k + 1) * width / (2 * grid[1])) for k in range(grid[1])]
    found = bias_targets([torch.zeros(len(batch.label), 8, *grid)] * 3, batch)
    for k, target in enumerate(found):
        assert torch.equal(target, batch.bias_map[:, k][:, rows][:, :, columns])


def test_h_learns_at_a_rate_of_its_own() -> None:
    optims = make_method("lnl", bias_lr_scale=3.0).optimizers()
    assert {name: optim.lr_scale for name, optim in optims.items()} == {"net": 1.0, "bias": 3.0}


def test_two_biases_are_enough_for_h_and_one_is_not() -> None:
    assert isinstance(bias_predictor(replace(make_task(dense=False), biases=2), (32, 14, 14)), PooledHead)
    with pytest.raises(ZooError, match="at least two values; the data set has none to offer"):
        bias_predictor(replace(make_task(dense=False), biases=1), (32, 14, 14))


def test_entropy_is_finite_where_a_probability_is_zero() -> None:
    logits = [torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True)]
    value = negative_entropy(logits)
    value.backward()
    assert value == 0
    assert torch.isfinite(logits[0].grad).all()  # type: ignore[arg-type]
    uniform = negative_entropy([torch.zeros(2, 8)])
    torch.testing.assert_close(uniform, torch.tensor(-math.log(8.0)))


def test_reverse_gradient() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = reverse_gradient(x, 0.3)
    assert torch.equal(x, y)
    (y * torch.tensor([5.0, 7.0])).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([-1.5, -2.1]))


def test_adaptive_scale_follows_the_report() -> None:
    method = make_method("lnl_adaptive")
    published = [0.0, 0.462, 0.762, 0.905, 0.964, 0.987, 0.995]
    scales = [method.reversal_scale(clock("unlearn", epoch=epoch)) for epoch in range(7)]
    assert scales == pytest.approx(published, abs=5e-4)
    by_progress = make_method("lnl_adaptive", reversal="progress")
    dann = {1: 0.05, 5: 0.245, 10: 0.462, 20: 0.762, 50: 0.987}
    for step, scale in dann.items():
        assert by_progress.reversal_scale(clock("unlearn", step=step, steps=101)) == pytest.approx(scale, abs=5e-4)
    assert make_method("lnl_adaptive", scale=0.1).reversal_scale(clock("unlearn", epoch=2)) == pytest.approx(
        0.0762, abs=5e-5
    )
    assert make_method("lnl").reversal_scale(clock("unlearn", epoch=2)) == 0.1


def test_adaptive_gives_f_a_zero_gradient_in_its_first_epoch() -> None:
    method = make_method("lnl_adaptive")
    loss = method("unlearn", make_batch(), clock("unlearn", epoch=0))["loss"]
    for name, parameter in method.named_parameters():
        (grad,) = torch.autograd.grad(loss, [parameter], allow_unused=True, retain_graph=True)
        if name.startswith("bias."):
            assert grad is not None
            if not name.endswith("hidden.bias"):  # batch norm takes a constant away: its gradient is zero anyway
                assert grad.abs().max() > 0, name
        elif grad is not None:
            assert not grad.any(), f"{name} moves in epoch 0"


def test_without_its_terms_lnl_is_erm() -> None:
    settings = Settings(optimizer="sgd", lr=0.1, momentum=0.0, weight_decay=0.0, batch_size=8, schedule="constant")
    nets = []
    for name, config in (("erm", {}), ("lnl", {"lambda_entropy": 0.0, "scale": 0.0, "pretrain_share": 0.0})):
        method = make_method(name, **config)
        engine = Engine(method)
        engine.build_optimizers(settings)
        for step in range(4):
            engine.step(make_batch(seed=step), clock("unlearn", step=step))
        nets.append(dict(method.net.named_parameters()))
    for name, value in nets[0].items():
        assert torch.equal(value, nets[1][name]), name


def test_cmnist_gets_dense_heads_and_other_data_one_head() -> None:
    grid = build_grid(Request(["lnl"], ["cmnist"], protocol="quick"))
    (trial,) = grid.trials.values()
    train, _ = load_splits(trial, None)
    method = method_of(trial, train, Path("nowhere"))
    assert isinstance(method.bias, DenseHeads)
    assert [tuple(head.shape) for head in method.bias(torch.zeros(2, 32, 14, 14))] == [(2, 8, 14, 14)] * 3
    assert method.task.bias_map == ColoredMNIST().card.bias_map == (3, 8, 14, 14)
    other = make_method("lnl", backbone="resnet18")
    logits = other.bias(other.net.tap(make_batch().image))
    assert [tuple(head.shape) for head in logits] == [(8, 8, 2, 2)] * 3
    assert torch.isfinite(other("unlearn", make_batch(), clock("unlearn"))["loss"])
    elsewhere = make_method("lnl", dense=False)
    assert isinstance(elsewhere.bias, PooledHead)
    assert torch.isfinite(elsewhere("unlearn", make_batch(dense=False), clock("unlearn"))["loss"])


def test_paper_schedule() -> None:
    for name in ("lnl", "lnl_adaptive", "blindeye"):
        grid = build_grid(Request([name], ["cmnist:val=0"], protocol="paper"))
        (trial,) = grid.trials.values()
        task = method_of(trial, load_splits(trial, None)[0], Path("nowhere")).task
        plans = plan_stages(build_method(trial, task), trial.settings, trial.stages)
        assert [(p.stage.name, p.epochs, p.settings.lr) for p in plans] == [
            ("pretrain", 100, 0.01),
            ("unlearn", 100, 0.001),
        ]
        assert {p.settings.batch_size for p in plans} == {128}
        assert [plans[0].settings.lr_factor(e, 0, 1) for e in (0, 39, 40, 80)] == pytest.approx([1, 1, 0.1, 0.01])
        assert (trial.config.get("lambda_entropy"), trial.config.get("alpha")) in {(0.01, None), (None, 0.3)}
