from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from replicas import (
    BIASES,
    CLASSES,
    COUNTS,
    assert_same_gradients,
    clock,
    cross_entropy,
    gradients,
    label_view,
    lnl_net,
    make_batch,
    make_method,
    make_task,
    weights,
    weights_after,
)
from torch import Tensor

from debias_zoo.backbones import BackboneFactory
from debias_zoo.errors import ZooError
from debias_zoo.method import Batch
from debias_zoo.methods.group_dro import GroupDRO, adjustments, ascend
from debias_zoo.methods.losses.groups import batch_bias, group_index, training_counts

GROUPS = CLASSES * BIASES
LOSSES = torch.tensor([1, 0.5, 2, 0.1], dtype=torch.float64)
UNIFORM = torch.full((4,), 0.25, dtype=torch.float64).log()
EVERYWHERE = torch.ones(4, dtype=torch.bool)
WATERBIRDS = torch.tensor([3498, 184, 56, 1057], dtype=torch.float64)


def replica(logits: Tensor, batch: Batch, q: list[float], eta: float, c: list[float]) -> tuple[Tensor, list[float]]:
    """The loss and the new q, one group after the other."""
    q = list(q)
    losses: dict[int, Tensor] = {}
    for y in range(CLASSES):
        for b in range(BIASES):
            rows = [i for i in range(len(logits)) if int(batch.label[i]) == y and int(batch.bias[i]) == b]  # type: ignore[index]
            if rows:
                losses[y * BIASES + b] = cross_entropy(logits[rows], batch.label[rows])
    for k, loss in losses.items():
        q[k] *= math.exp(eta * (float(loss.detach()) + c[k] / math.sqrt(COUNTS[k // BIASES][k % BIASES])))
    q = [value / sum(q) for value in q]
    return sum(q[k] * loss for k, loss in losses.items()), q  # type: ignore[return-value]


def test_two_steps_weight_the_groups_by_the_new_q() -> None:
    c = [0.5 * k for k in range(GROUPS)]
    method = make_method("group_dro", eta=0.7, adjustment=c)
    q = [1 / GROUPS] * GROUPS
    for seed in (1, 2):
        batch = make_batch(10, seed)
        assert len(set((batch.label * BIASES + batch.bias).tolist())) < GROUPS, "some group should be missing"
        w = weights(method)
        loss = method("main", batch, clock())["loss"]
        expected, q = replica(lnl_net(w, batch.image)[0], batch, q, 0.7, c)
        assert_same_gradients(method, loss, expected, w, ("net.",), atol=1e-7)
        torch.testing.assert_close(method.log_q.exp(), torch.tensor(q, dtype=torch.float64), rtol=1e-6, atol=1e-9)


def test_golden_values() -> None:
    q = ascend(UNIFORM, LOSSES, EVERYWHERE, 0.01).exp()
    assert q.tolist() == pytest.approx([0.2502438, 0.2489957, 0.25275879, 0.24800171], abs=5e-9)
    assert float(q @ LOSSES) == pytest.approx(0.9050594013643962, rel=1e-14)
    adjusted = LOSSES + adjustments(2.0, WATERBIRDS)
    assert adjusted.tolist() == pytest.approx([1.03381583, 0.64744196, 2.26726124, 0.16151663], abs=5e-9)
    q = ascend(UNIFORM, adjusted, EVERYWHERE, 0.01).exp()
    assert q.tolist() == pytest.approx([0.25000816, 0.24904405, 0.25311097, 0.24783682], abs=5e-9)
    assert float(q @ LOSSES) == pytest.approx(0.9055358006856138, rel=1e-14)


def test_every_group_has_its_own_adjustment_and_a_zero_leaves_the_others() -> None:
    some = adjustments([2.0, 0.0, 2.0, 2.0], WATERBIRDS)
    assert torch.equal(some, adjustments(2.0, WATERBIRDS) * torch.tensor([1.0, 0.0, 1.0, 1.0]))
    with pytest.raises(ZooError, match="adjustment has 2 numbers; give one, or one for each of 12 groups"):
        make_method("group_dro", adjustment=(1.0, 2.0))


def test_groups_that_the_batch_lacks_keep_their_weights_to_each_other() -> None:
    present = torch.tensor([True, False, True, False])
    start = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    q = ascend(start.log(), LOSSES + adjustments(2.0, WATERBIRDS), present, 0.5).exp()
    assert float(q.sum()) == pytest.approx(1.0)
    assert float(q[1] / q[3]) == pytest.approx(0.5, rel=1e-12)
    assert q[2] / q[1] > start[2] / start[1]


def test_a_group_that_was_easy_for_long_can_become_the_worst() -> None:
    log_q = torch.full((2,), 0.5).log()
    easy, hard = torch.tensor([0.0, 2.0]), torch.tensor([2.0, 0.0])
    for losses in (easy, hard, hard):  # a thousand steps each
        log_q = ascend(log_q, 1000.0 * losses, torch.ones(2, dtype=torch.bool), 0.1)
        assert torch.isfinite(log_q).all()
    assert log_q[0].exp() > 0.99


def test_q_is_uniform_over_groups_with_training_images() -> None:
    task = replace(make_task(), group_counts=((9, 0, 1, 4), (0, 8, 2, 1), (1, 2, 0, 5)))
    factory = BackboneFactory("lnl_convnet", CLASSES, task.image_shape, "cifar", 0)
    method = GroupDRO(factory, task, GroupDRO.Config(adjustment=3.0))
    held = torch.tensor(task.group_counts).flatten() > 0
    torch.testing.assert_close(method.log_q.exp(), held / 9.0)
    batch = make_batch(24)
    kept = held[batch.label * BIASES + batch.bias].nonzero().squeeze(1)  # type: ignore[operator]
    fields = {name: getattr(batch, name)[kept] for name in ("image", "label", "bias", "bias_map", "index")}
    loss = method.double()("main", replace(batch, **fields), clock())["loss"]
    assert torch.isfinite(loss)
    assert torch.equal(method.log_q.exp() > 0, held)
    torch.testing.assert_close(method.log_q.exp().sum(), torch.ones((), dtype=torch.float64))


def test_all_groups_are_equally_likely_to_be_drawn() -> None:
    method, view = make_method("group_dro"), label_view()
    method.start_stage(method.stages()[0], view)
    w = method.sampling().w
    assert method.sampling().draws is None
    for y, row in enumerate(COUNTS):
        for b, count in enumerate(row):
            members = w[(view.labels == y) & (view.biases == b)]
            assert members.tolist() == pytest.approx([45 / count] * count)


def test_the_loss_reaches_every_parameter_and_q_is_constant() -> None:
    method = make_method("group_dro")
    loss = method("main", make_batch(), clock())["loss"]
    assert all(grad is not None for grad in gradients(method, loss).values())
    assert not method.log_q.requires_grad
    assert {name for name, _ in method.named_buffers()} >= {"log_q", "margin", "weight"}


def test_without_ascent_and_on_equal_groups_it_is_erm() -> None:
    batches = []
    for seed in range(4):
        batch = make_batch(24, seed)
        batches.append(replace(batch, bias=torch.arange(24) // CLASSES % BIASES))
        assert torch.bincount(batch.label * BIASES + batches[-1].bias).tolist() == [2] * GROUPS  # type: ignore[operator]
    erm = weights_after(make_method("erm"), batches)
    dro = weights_after(make_method("group_dro", eta=0.0), batches)
    for name, value in erm.items():
        torch.testing.assert_close(value, dro[name], rtol=1e-6, atol=1e-9)


def test_without_bias_labels_there_are_no_groups() -> None:
    batch = replace(make_batch(), bias=None)
    hidden = make_task().hidden()
    for ask in (lambda: group_index(batch.label, None, hidden), lambda: training_counts(hidden)):
        with pytest.raises(ZooError, match=r"^groups need bias labels; there are none$"):
            ask()
    with pytest.raises(ZooError, match=r"^the batch holds no bias labels$"):
        batch_bias(batch)
