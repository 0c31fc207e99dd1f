from __future__ import annotations

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

from debias_zoo.backbones import BackboneFactory
from debias_zoo.method import Task
from debias_zoo.methods.upweight import Upweight
from debias_zoo.testing import method_checks

WATERBIRDS = ((3498, 184), (56, 1057))


def upweight(counts: tuple[tuple[int, ...], ...], form: str = "sampling") -> Upweight:
    """The method before its stage, on a training split with these groups."""
    task = Task(len(counts), len(counts[0]), sum(map(sum, counts)), (3, 12, 12), (), None, counts)
    factory = BackboneFactory("lnl_convnet", task.classes, task.image_shape, "cifar", 0)
    method = Upweight(factory, task, Upweight.Config(form=form)).double()
    method.start_stage(method.stages()[0], label_view(counts))  # type: ignore[arg-type]
    return method


def test_sampling_is_plain_cross_entropy() -> None:
    method, batch = make_method("upweight"), make_batch()
    w = weights(method)
    expected = cross_entropy(lnl_net(w, batch.image)[0], batch.label)
    assert_same_gradients(method, method("main", batch, clock())["loss"], expected, w, ("net.",))


def test_weights_are_the_inverse_of_the_group_sizes() -> None:
    method, batch, view = upweight(COUNTS, "weights"), make_batch(), label_view()
    rows = torch.tensor([3, 44, 0, 17, 21, 8, 30, 11])
    batch = replace(batch, label=view.labels[rows], bias=view.biases[rows], index=rows)
    w = weights(method)
    logits, _ = lnl_net(w, batch.image)
    expected = torch.zeros((), dtype=torch.float64)
    for i in range(8):
        count = COUNTS[int(batch.label[i])][int(batch.bias[i])]  # type: ignore[index]
        expected = expected + 45 / (12 * count) * cross_entropy(logits[i : i + 1], batch.label[i : i + 1]) / 8
    assert_same_gradients(method, method("main", batch, clock())["loss"], expected, w, ("net.",), atol=1e-7)


def test_golden_weights() -> None:
    method, view = upweight(WATERBIRDS), label_view(WATERBIRDS)
    found = [[float(method.weight[(view.labels == y) & (view.biases == b)][0]) for b in (0, 1)] for y in (0, 1)]
    assert [[4 * value for value in row] for row in found] == [
        pytest.approx([1.3707833047, 26.0597826087], rel=1e-6),
        pytest.approx([85.625, 4.5364238411], rel=1e-6),
    ]
    assert float(method.weight.mean()) == pytest.approx(1.0, rel=1e-6)


def test_both_forms_have_the_same_expected_loss() -> None:
    losses = torch.rand(45, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sampling = upweight(COUNTS).sampling()
    assert sampling is not None
    drawn = (sampling.w / sampling.w.sum() * losses).sum()
    torch.testing.assert_close(drawn, (upweight(COUNTS, "weights").weight * losses).mean(), rtol=1e-6, atol=0.0)
    assert upweight(COUNTS, "weights").sampling() is None


def test_an_empty_group_changes_no_other_group() -> None:
    counts = ((9, 0, 1, 4), (3, 8, 2, 1), (1, 2, 7, 5))
    method, view = upweight(counts, "weights"), label_view(counts)
    assert torch.isfinite(method.weight).all()
    assert float(method.weight.mean()) == pytest.approx(1.0, rel=1e-6)
    assert float(method.weight[(view.labels == 2) & (view.biases == 2)][0]) == pytest.approx(43 / (11 * 7), rel=1e-6)


@pytest.mark.parametrize("form", ["sampling", "weights"])
def test_the_loss_reaches_every_parameter(form: str) -> None:
    method = make_method("upweight", form=form)
    found = gradients(method, method("main", make_batch(), clock())["loss"])
    assert all(grad is not None for grad in found.values())


@pytest.mark.parametrize("form", ["sampling", "weights"])
def test_on_equal_groups_it_is_erm(form: str) -> None:
    even = tuple((4,) * BIASES for _ in range(CLASSES))
    method = upweight(even, form)
    assert torch.equal(method.weight, torch.ones(48, dtype=torch.float64))
    task = make_task()
    assert (task.classes, task.image_shape) == (method.task.classes, method.task.image_shape)
    batches = [make_batch(seed=seed) for seed in range(4)]
    erm = weights_after(make_method("erm"), batches)
    own = weights_after(method, batches)
    for name, value in erm.items():
        assert torch.equal(value, own[name]), name


def test_weights_keep_the_contract_too() -> None:
    wanted = {"finite_loss", "supervision", "resumes", "any_device", "groups", "not_erm", "bf16"}
    checks = [check for check in method_checks(Upweight, {"form": "weights"}) if check.name in wanted]
    assert [check.name for check in checks if not check.verdict().ok] == []
    assert len(checks) == len(wanted)
