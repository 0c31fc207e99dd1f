from __future__ import annotations

from typing import Any

import pytest
import torch
from replicas import (
    assert_same_gradients,
    clock,
    cross_entropy,
    lnl_net,
    make_batch,
    make_method,
    weights,
    weights_after,
)
from watching import WatchingEngine, same

from debias_zoo.engine import Engine
from debias_zoo.method import Method, Repeats
from debias_zoo.methods.jtt import JTT
from debias_zoo.plans import plan_stages
from debias_zoo.protocol import Settings
from debias_zoo.testing.bench import Bench, differences, from_bytes

SETTINGS = Settings(optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=0.0, batch_size=8, schedule="constant")


@pytest.mark.parametrize("stage", ["identify", "retrain"])
def test_both_stages_minimise_the_mean_cross_entropy(stage: str) -> None:
    method, batch = make_method("jtt"), make_batch()
    w = weights(method)
    replica = cross_entropy(lnl_net(w, batch.image)[0], batch.label)
    assert_same_gradients(method, method(stage, batch, clock(stage))["loss"], replica, w, ("net.",))


def test_errors_are_those_of_the_last_epoch_before_each_step() -> None:
    method = make_method("jtt")
    engine = Engine(method)
    engine.build_optimizers(SETTINGS)
    expected = torch.zeros(45, dtype=torch.bool)
    for epoch in (3, 4):
        for k in range(2):
            batch = make_batch(seed=10 * epoch + k)
            batch.index.add_(8 * k)
            logits, _ = lnl_net(weights(method), batch.image)
            if epoch == 4:
                expected[batch.index] = logits.argmax(1) != batch.label
            engine.step(batch, clock("identify", epoch=epoch))
        assert torch.equal(method.wrong, expected)
    assert 0 < int(expected.sum()) < 16
    before = method.wrong.clone()
    engine.step(make_batch(seed=99), clock("retrain", epoch=4))
    assert torch.equal(method.wrong, before)


def test_errors_are_shown_more_often_in_the_second_stage_alone() -> None:
    bench = Bench(JTT, {"lambda_up": 3}, "mlp")
    ran = bench.fit(epochs=2, engine=WatchingEngine)
    engine, method = ran.trainer.engine, ran.fit.method
    assert isinstance(engine, WatchingEngine)
    size = len(bench.train)
    for epoch in range(2):
        assert engine.draws("identify", epoch, size).tolist() == [1] * size
        assert engine.draws("retrain", epoch, size).tolist() == (1 + 3 * method.errors.long()).tolist()  # type: ignore[operator]
    assert 0 < int(method.errors.sum()) < size  # type: ignore[operator]
    start = bench.build().state_dict()
    assert same(engine.first("retrain").state, start, "net."), "the second stage starts from the initial weights"
    assert not same(engine.seen[-1].state, start, "net.")


class FlagsAtOnce(JTT):
    """The sampling reads what the epoch has not finished: a run resumed within it draws other images."""

    def sampling(self) -> Repeats:
        return Repeats(1 + self.config.lambda_up * self.wrong.long())


def resumed_in_the_last_identifying_epoch(cls: type[Method]) -> list[str]:
    bench = Bench(cls, {"lambda_up": 2}, "mlp")
    whole = bench.fit(epochs=2, keep=True)
    saved = whole.checkpoints[0, 1, 2]
    return differences(whole.outcome(), bench.fit(epochs=2, build_seed=1, start=saved).outcome())


def test_a_run_killed_while_it_finds_errors_resumes_exactly() -> None:
    assert resumed_in_the_last_identifying_epoch(JTT) == []
    assert "method.errors" in resumed_in_the_last_identifying_epoch(FlagsAtOnce)


def test_errors_are_in_the_checkpoint() -> None:
    bench = Bench(JTT, {"lambda_up": 2}, "mlp")
    ran = bench.fit(epochs=1, keep=True)
    fresh: Any = bench.build(seed=1)
    fresh.load_state_dict(from_bytes(ran.checkpoints[1, 0, 0])["engine"]["method"])
    assert torch.equal(fresh.sampling().counts, ran.fit.method.sampling().counts)  # type: ignore[union-attr]
    assert int(fresh.sampling().counts.max()) == 3


def test_without_repeats_the_second_stage_is_erm() -> None:
    batches = [make_batch(seed=k) for k in range(4)]
    jtt = weights_after(make_method("jtt", lambda_up=0), batches, "retrain")
    assert same(jtt, weights_after(make_method("erm"), batches), "net.")
    method = make_method("jtt", lambda_up=0)
    method.errors.fill_(True)
    assert method.sampling().counts.tolist() == [1] * 45


def test_the_papers_schedules() -> None:
    found = {}
    for recipe in JTT.recipes:
        plans = plan_stages(make_method("jtt", **recipe.config), recipe.settings, recipe.stages)
        assert [plan.stage.reset for plan in plans] == [(), ("net",)]
        found[recipe.dataset] = ([plan.epochs for plan in plans], recipe.config["lambda_up"])
    assert (found["waterbirds"], found["celeba"]) == (([60, 300], 100), ([1, 50], 50))
