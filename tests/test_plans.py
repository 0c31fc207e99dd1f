"""Plans, schedules and single updates: what a stage's settings do."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from debias_zoo.engine import Engine
from debias_zoo.errors import ZooError
from debias_zoo.method import Batch, Clock, Method, Paper, Stage
from debias_zoo.plans import plan_stages
from debias_zoo.protocol import Settings, split_epochs
from debias_zoo.registry import load_method
from debias_zoo.testing.bench import Bench
from debias_zoo.trainer import Trainer

SETTINGS = Settings(
    epochs=2, batch_size=16, optimizer="sgd", lr=0.03, momentum=0.9, weight_decay=5e-4, schedule="cosine"
)


class Small(Method):
    """ERM."""

    name = "small"
    paper = Paper("", "", "", 0)

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(self.net(batch.image), batch.label)}


class Staged(Small):
    def stages(self) -> list[Stage]:
        return [Stage("first", 1.0, Settings(lr=0.5, clip=2.0)), Stage("second", 3.0)]


def test_stage_settings_are_merged_the_closer_one_wins() -> None:
    method = Bench(Staged).build()
    own = {"first": Settings(lr=0.7, weight_decay=0.0), "second": Settings(batch_size=4)}
    first, second = plan_stages(method, replace_settings(SETTINGS, epochs=8), own)
    assert (first.epochs, second.epochs) == (2, 6)
    assert (first.settings.lr, first.settings.clip, first.settings.weight_decay) == (0.7, 2.0, 0.0)
    assert (second.settings.lr, second.settings.clip, second.settings.batch_size) == (0.03, None, 4)
    assert first.settings.momentum == second.settings.momentum == 0.9


def replace_settings(settings: Settings, **fields: Any) -> Settings:
    return Settings(**fields).over(settings)


def test_a_stage_with_epochs_of_its_own_leaves_the_rest_to_the_others() -> None:
    method = Bench(Staged).build()
    plans = plan_stages(method, replace_settings(SETTINGS, epochs=8), {"first": Settings(epochs=5)})
    assert [plan.epochs for plan in plans] == [5, 3]


@pytest.mark.parametrize(
    ("settings", "own", "words"),
    [
        (Settings(epochs=2, lr=0.1), {}, "batch_size, optimizer, momentum, weight_decay, schedule not set"),
        (Settings(batch_size=2), {}, "no number of epochs is set for small"),
    ],
)
def test_plans_that_cannot_be_made_say_what_is_missing(
    settings: Settings, own: dict[str, Settings], words: str
) -> None:
    with pytest.raises(ZooError, match=words):
        plan_stages(Bench(Staged).build(), settings, own)


@given(st.integers(0, 60), st.lists(st.floats(0.01, 10.0), min_size=1, max_size=5))
def test_epochs_are_dealt_out_whole_and_by_share(total: int, shares: list[float]) -> None:
    epochs = split_epochs(total, shares)
    assert sum(epochs) == max(total, len(shares))
    assert min(epochs) >= 1
    if total > 2 * len(shares) * sum(shares) / min(shares):
        exact = [total * share / sum(shares) for share in shares]
        assert all(abs(got - want) < 1.0 for got, want in zip(epochs, exact, strict=True))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Settings(schedule="constant"), [1.0, 1.0, 1.0, 1.0]),
        (Settings(schedule="cosine"), [(1.0 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]),
        (Settings(schedule="step", step_epochs=1, gamma=0.1), [1.0, 1.0, 0.1, 0.1]),
    ],
)
def test_the_learning_rate_follows_its_schedule(schedule: Settings, expected: list[float]) -> None:
    rates: list[float] = []

    class Rates(Engine):
        def step(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
            logged = super().step(batch, clock)
            rates.append(self.optimizers["main"].param_groups[0]["lr"])
            return logged

    bench = Bench(Small)
    method, split = bench.build(), bench.train.head(32)
    Trainer(Rates(method), plan_stages(method, schedule.over(SETTINGS), {}), split, {}, 0).fit()
    assert rates == pytest.approx([0.03 * factor for factor in expected])


def test_clipping_bounds_the_gradient_of_an_update() -> None:
    bench = Bench(Small)
    engine = Engine(bench.build())
    engine.build_optimizers(replace_settings(SETTINGS, clip=1e-3, momentum=0.0, weight_decay=0.0, lr=1.0))
    before = torch.cat([p.detach().flatten() for p in engine.method.parameters()]).clone()
    engine.step(bench.batch(), Clock("main", 0, 1, 0, 1, 1))
    moved = torch.cat([p.detach().flatten() for p in engine.method.parameters()]) - before
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-3)


def test_an_update_gives_gradients_to_what_it_steps_and_leaves_none_behind() -> None:
    bench = Bench(load_method("lnl"))
    engine = Engine(bench.build())
    engine.build_optimizers(SETTINGS)
    batch, clock = bench.batch(), Clock("unlearn", 0, 1, 0, 1, 1)
    unlearn = engine.method.updates(clock)[1]
    engine.backward(unlearn, batch, clock)
    graded = {name for name, p in engine.method.named_parameters() if p.grad is not None}
    assert not {
        name for name in graded if name.startswith(("net.model.stages.2", "net.model.stages.3", "net.model.fc"))
    }
    assert {name.split(".")[0] for name in graded} == {"net", "bias"}
    engine.apply(unlearn)
    assert all(p.grad is None for p in engine.method.parameters())


def test_scratch_is_emptied_with_the_batch() -> None:
    bench = Bench(load_method("rebias"))
    engine = Engine(bench.build())
    engine.build_optimizers(SETTINGS)
    batch = bench.batch()
    engine.step(batch, Clock("main", 0, 1, 0, 1, 1))
    assert batch.scratch == {}
