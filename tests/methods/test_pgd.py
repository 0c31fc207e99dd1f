from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from replicas import (
    LabelView,
    assert_same_gradients,
    biased_cross_entropy,
    clock,
    cross_entropy,
    lnl_net,
    make_batch,
    make_method,
    weights,
    weights_after,
)
from watching import WatchingEngine, same

from debias_zoo.method import Batch
from debias_zoo.methods.pgd import PGD
from debias_zoo.testing.bench import Bench, from_bytes


def test_both_losses() -> None:
    method, batch = make_method("pgd", q=0.6), make_batch()
    w = weights(method)
    logits, _ = lnl_net(w, batch.image)
    for stage, replica in (
        ("biased", biased_cross_entropy(logits, batch.label, 0.6)),
        ("debiased", cross_entropy(logits, batch.label)),
    ):
        assert_same_gradients(method, method(stage, batch, clock(stage))["loss"], replica, w, ("net.",))


class View(LabelView):
    """Three batches of eight images."""

    def batches(self, size: int, every: int = 1) -> Iterator[Batch]:
        for k in range(3):
            batch = make_batch(8, seed=k)
            batch.index.add_(8 * k)
            yield batch


THREE = View(torch.zeros(24, dtype=torch.long), None)


@pytest.mark.parametrize("norm", [2.0, 0.7])
def test_scores_are_norms_of_each_images_own_gradient(norm: float) -> None:
    method = make_method("pgd", norm=norm).eval()
    w = weights(method)
    expected = []
    for batch in THREE.batches(8):
        logits, _ = lnl_net(w, batch.image, training=False)
        for z, y in zip(logits, batch.label, strict=True):
            (grad,) = torch.autograd.grad(cross_entropy(z[None], y[None]), w["net.model.fc.weight"], retain_graph=True)
            expected.append(float((grad.abs() ** norm).sum() ** (1 / norm)))
    biased, debiased = method.stages()
    with torch.no_grad():
        method.start_stage(biased, THREE)
        assert method.sampling() is None
        method.start_stage(debiased, THREE)
    assert method.score[:24].tolist() == pytest.approx(expected, rel=1e-6)
    assert not method.score[24:].any()


def test_images_are_drawn_in_proportion_to_their_scores() -> None:
    score = torch.rand(45, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for uniform in (0.0, 0.25):
        method = make_method("pgd", uniform_share=uniform)
        method.score.copy_(score)
        drawn = method.sampling()
        assert drawn.draws is None
        expected = [(1 - uniform) * float(value) / float(score.sum()) + uniform / 45 for value in score]
        assert (drawn.w / drawn.w.sum()).tolist() == pytest.approx(expected, rel=1e-12)


def test_the_second_stage_goes_on_from_the_biased_weights_with_their_scores() -> None:
    bench = Bench(PGD, None, "mlp")
    ran = bench.fit(epochs=2, engine=WatchingEngine, keep=True)
    engine, size = ran.trainer.engine, len(bench.train)
    assert isinstance(engine, WatchingEngine)
    assert [engine.draws("biased", epoch, size).tolist() for epoch in range(2)] == [[1] * size] * 2
    start = from_bytes(ran.checkpoints[1, 0, 0])
    last = from_bytes(ran.checkpoints[0, 2, 0])
    assert same(start["engine"]["method"], last["engine"]["method"], "net.")
    assert all(not state["state"] for state in start["engine"]["optimizers"].values()), "momentum starts anew"
    fresh: Any = bench.build(seed=1)
    fresh.load_state_dict(start["engine"]["method"])
    images = bench.batch()
    with torch.no_grad():
        scores = fresh.eval().gradient_norms(images).clamp(min=1e-8)
    torch.testing.assert_close(fresh.score, scores)
    draws = engine.draws("debiased", 0, size)
    assert int(draws.sum()) == size
    assert int(draws.max()) > 1
    assert torch.equal(fresh.sampling().w, ran.fit.method.sampling().w)  # type: ignore[union-attr]


def test_on_the_same_batches_the_second_stage_is_erm() -> None:
    batches = [make_batch(seed=k) for k in range(4)]
    pgd = weights_after(make_method("pgd"), batches, "debiased")
    assert same(pgd, weights_after(make_method("erm"), batches), "net.")
