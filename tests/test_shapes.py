"""Every shape of method that the papers need fits the contract: what moves, is reset, is drawn, and resumes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from shapes import (
    SHAPES,
    Drawn,
    LastLayer,
    ProductOfExperts,
    SharedForward,
    Sieve,
    Student,
    ThreeStages,
    TwoOnOneSum,
)
from torch import nn
from watching import Seen, WatchingEngine, same

from debias_zoo.backbones import BackboneFactory
from debias_zoo.errors import ZooError
from debias_zoo.method import Method, Task
from debias_zoo.plans import plan_stages
from debias_zoo.protocol import Settings
from debias_zoo.testing import check_method
from debias_zoo.testing.bench import Bench, Ran, differences, from_bytes
from debias_zoo.testing.history import Record, history_of
from debias_zoo.testing.synthetic import uneven_split
from debias_zoo.trainer import Trainer

EPOCHS = 2


def run(cls: type[Method], **options: Any) -> tuple[WatchingEngine, Ran]:
    ran = Bench(cls).fit(epochs=EPOCHS, engine=WatchingEngine, **options)
    assert isinstance(ran.trainer.engine, WatchingEngine)
    return ran.trainer.engine, ran


def records(cls: type[Method], loss: str) -> list[Record]:
    return [record for record in history_of(Bench(cls)).finished() if record.update.loss == loss]


def below(record: Record) -> set[str]:
    """The first parts of the names of what moved."""
    return {name.split(".")[0] for name in record.moved}


@pytest.mark.parametrize("cls", SHAPES, ids=lambda cls: cls.__name__)
def test_the_contract_can_be_kept(cls: type[Method]) -> None:
    assert not {verdict.name: verdict.reason for verdict in check_method(cls) if not verdict.ok}


@pytest.mark.parametrize("cls", SHAPES, ids=lambda cls: cls.__name__)
def test_a_run_resumes_exactly_inside_every_stage(cls: type[Method]) -> None:
    bench = Bench(cls)
    whole = bench.fit(epochs=EPOCHS, keep=True)
    stages = len(whole.trainer.plans)
    inside = [
        next(at for at in whole.checkpoints if at[0] == stage and at[1] == 1 and at[2]) for stage in range(stages)
    ]
    for at in inside:
        resumed = bench.fit(epochs=EPOCHS, build_seed=7, start=whole.checkpoints[at])
        assert differences(whole.outcome(), resumed.outcome()) == [], at


def test_two_updates_share_one_forward() -> None:
    calls: dict[str, int] = {"net": 0, "biased": 0}
    bench = Bench(SharedForward)
    method: Any = bench.build()
    for name in calls:
        method.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    engine = bench.fit(epochs=1, method=method, engine=WatchingEngine).trainer.engine
    assert isinstance(engine, WatchingEngine)
    evaluated = 1  # predict calls the network once for the validation split
    assert calls == {"net": len(engine.seen) + evaluated, "biased": len(engine.seen)}


def test_the_shared_graph_reaches_the_network_and_only_it() -> None:
    assert all(below(record) == {"biased"} for record in records(SharedForward, "biased"))
    for record in records(SharedForward, "debiased"):
        assert below(record) == {"net"}
        assert all(record.gradients.values())


def test_overlapping_optimizers_each_move_their_own() -> None:
    lower = {"net.model.stages.0", "net.model.stages.1"}
    assert all(below(record) == {"aux"} for record in records(Sieve, "identify"))
    forgetting = records(Sieve, "forget")
    for record in forgetting:
        assert {".".join(name.split(".")[:4]) for name in record.moved} == lower
    assert all(below(record) == {"net"} for record in records(Sieve, "main"))
    assert {record.step % Sieve.every for record in forgetting} == {0}
    assert len(forgetting) == len(records(Sieve, "main")) // Sieve.every


def test_overlapping_optimizers_keep_separate_state() -> None:
    engine, _ = run(Sieve)
    forget, main = engine.optimizers["forget"], engine.optimizers["main"]
    shared = set(forget.param_groups[0]["params"]) & set(main.param_groups[0]["params"])
    assert shared == set(forget.param_groups[0]["params"])
    assert all(forget.state[p].get("momentum_buffer") is None for p in shared)
    assert all(main.state[p]["momentum_buffer"].any() for p in shared)


def test_a_reset_brings_back_the_initial_weights_bit_for_bit() -> None:
    engine, ran = run(ThreeStages)
    start, settle, again = (engine.first(stage).state for stage in ("identify", "settle", "again"))
    assert same(start, again, "net.")
    assert not same(start, settle, "net.")
    assert not torch.equal(start["counts"], again["counts"])
    assert not same(start, ran.fit.method.state_dict(), "net.")


def test_a_reset_survives_a_resume_in_an_object_of_another_seed() -> None:
    bench = Bench(ThreeStages)
    whole = bench.fit(epochs=EPOCHS, keep=True, engine=WatchingEngine)
    resumed = bench.fit(
        epochs=EPOCHS, build_seed=7, start=whole.checkpoints[1, 0, 2], engine=WatchingEngine
    ).trainer.engine
    assert isinstance(resumed, WatchingEngine)
    assert isinstance(whole.trainer.engine, WatchingEngine)
    assert same(whole.trainer.engine.first("identify").state, resumed.first("again").state, "net.")


def test_repeats_show_each_error_so_many_times_more() -> None:
    engine, ran = run(ThreeStages)
    method: Any = ran.fit.method
    expected = method.counts
    wrong = int((expected > 1).sum())
    assert 0 < wrong < len(expected)
    assert set(expected.tolist()) == {1, 1 + ThreeStages.extra}
    assert torch.equal(engine.draws("identify", 0, len(expected)), torch.ones_like(expected))
    dropped = len(expected) + ThreeStages.extra * wrong - int(engine.draws("again", 1, len(expected)).sum())
    assert 0 <= dropped < ThreeStages.min_batch
    assert (expected - engine.draws("again", 1, len(expected))).sum() == dropped
    orders = [torch.cat([seen.rows for seen in engine.seen if _at(seen) == ("again", epoch)]) for epoch in (0, 1)]
    assert not torch.equal(*orders)


def _at(seen: Seen) -> tuple[str, int]:
    return seen.clock.stage, seen.clock.epoch


def test_optimizer_state_is_carried_where_a_stage_asks_for_it() -> None:
    bench = Bench(ThreeStages)
    kept = bench.fit(epochs=EPOCHS, keep=True).checkpoints
    momentum = {stage: [entry["momentum_buffer"] for entry in _state(kept[stage, 0, 0]).values()] for stage in range(3)}
    assert momentum[0] == []
    assert all(bool(buffer.any()) for buffer in momentum[1])
    assert momentum[2] == []


def _state(saved: bytes) -> Any:
    return from_bytes(saved)["engine"]["optimizers"]["main"]["state"]


def test_weights_draw_what_they_say_and_never_what_they_leave_out() -> None:
    engine, ran = run(Drawn)
    method: Any = ran.fit.method
    size = len(method.score)
    assert torch.equal(engine.draws("biased", 0, size), torch.ones(size, dtype=torch.int64))
    for epoch in range(EPOCHS):
        draws = engine.draws("debiased", epoch, size)
        assert int(draws.sum()) == Drawn.draws
        assert not draws[::5].any()
        assert int(draws.max()) > 1
    assert not torch.equal(engine.draws("debiased", 0, size), engine.draws("debiased", 1, size))


def test_weights_are_followed_in_proportion() -> None:
    class Skewed(Drawn):
        draws = 4000

        def start_stage(self, stage: Any, train: Any) -> None:
            self.score.copy_(torch.arange(len(self.score)) % 3)

    engine = Bench(Skewed).fit(epochs=1, batch_size=2000, engine=WatchingEngine).trainer.engine
    assert isinstance(engine, WatchingEngine)
    draws = engine.draws("debiased", 0, len(engine.first("debiased").state["score"])).double()
    assert not draws[::3].any()
    assert 1.8 < float(draws[2::3].sum() / draws[1::3].sum()) < 2.2


def test_a_teacher_is_handed_over_read_and_left_alone() -> None:
    bench = Bench(Student)
    method: Any = bench.build()
    before = copy.deepcopy(method.teacher.state_dict())
    ran = bench.fit(epochs=EPOCHS, method=method)
    after = ran.fit.method.state_dict()
    assert same({f"teacher.{name}": value for name, value in before.items()}, after, "teacher.")
    stepped = {p for group in ran.trainer.engine.optimizers["main"].param_groups for p in group["params"]}
    assert not stepped & set(method.teacher.parameters())
    other: Any = bench.build()
    nn.init.zeros_(other.teacher.net.model.fc.weight)
    changed = bench.fit(epochs=EPOCHS, method=other)
    assert not same(after, changed.fit.method.state_dict(), "net.")


def test_a_missing_teacher_is_an_error_that_says_so() -> None:
    factory = BackboneFactory("lnl_convnet", 3, (3, 12, 12), "none", 0)
    with pytest.raises(ZooError, match="no teacher was handed over under the role 'teacher'"):
        Student(factory, Task(3, 0, 10, (3, 12, 12)), Student.Config())


def test_two_networks_step_on_one_sum() -> None:
    for record in records(TwoOnOneSum, "both"):
        assert below(record) == {"net", "biased"}
        assert record.buffers >= {"ema"}
    engine, ran = run(TwoOnOneSum)
    method: Any = ran.fit.method
    seen = torch.zeros(method.ema.shape[1], dtype=torch.bool)
    seen[torch.cat([step.rows for step in engine.seen])] = True
    assert torch.equal((method.ema != 1.0).all(0), seen)


def test_experts_learn_together_and_then_stand_still() -> None:
    engine, ran = run(ProductOfExperts)
    start, target = engine.first("experts").state, engine.first("target").state
    end = ran.fit.method.state_dict()
    for expert in ("deep.", "shallow."):
        assert not same(start, target, expert)
        assert same(target, end, expert), "weights and batch norm statistics of the frozen experts"
    assert same(start, target, "net.")
    assert not same(target, end, "net.")
    assert set(engine.optimizers) == {"experts", "target"}


def test_shares_deal_out_the_epochs() -> None:
    plans = plan_stages(Bench(ProductOfExperts).build(), _settings(9), {})
    assert [(plan.stage.name, plan.epochs) for plan in plans] == [("experts", 3), ("target", 6)]


def _settings(epochs: int) -> Settings:
    return Settings(
        epochs=epochs, batch_size=16, optimizer="sgd", lr=0.03, momentum=0.9, weight_decay=5e-4, schedule="cosine"
    )


def test_what_finish_finds_is_in_the_last_predictions_and_in_the_weights() -> None:
    bench = Bench(LastLayer)
    ran = bench.fit(epochs=EPOCHS)
    method: Any = ran.fit.method
    assert bool(method.means.any())
    logits = method.eval().predict(bench.view(bench.val).image(slice(None)))
    assert torch.equal(ran.fit.predictions["val"]["class"][-1].long(), logits.argmax(1))


def test_finish_with_bias_labels_needs_a_validation_split() -> None:
    bench = Bench(LastLayer)
    method = bench.build()
    trainer = Trainer(WatchingEngine(method), plan_stages(method, _settings(1), {}), uneven_split(0, 12), {}, 0)
    with pytest.raises(ZooError, match="needs a validation split with bias labels"):
        trainer.fit()
