"""The training loop: resumed runs, the stop at NaN, dropped batches, the firewall, plans and schedules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from shapes import Drawn
from torch import Tensor
from watching import WatchingEngine

from debias_zoo.dataset import IGNORED, Split
from debias_zoo.engine import DeviceSplit, Engine, predict_split, quiet
from debias_zoo.errors import DivergedError, ZooError
from debias_zoo.method import Batch, Clock, Method, Paper, Stage, Task, View
from debias_zoo.plans import plan_stages
from debias_zoo.protocol import Settings
from debias_zoo.registry import load_method
from debias_zoo.testing.bench import Bench, differences, from_bytes, to_bytes
from debias_zoo.testing.synthetic import BIASES, CLASSES, uneven_split
from debias_zoo.trainer import Trainer, task_of

SETTINGS = Settings(
    epochs=2, batch_size=16, optimizer="sgd", lr=0.03, momentum=0.9, weight_decay=5e-4, schedule="cosine"
)


class Small(Method):
    """ERM that remembers what it was handed."""

    name = "small"
    paper = Paper("", "", "", 0)

    def __init__(self, backbones: Any, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.handed: list[Batch] = []
        self.views: list[View] = []

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        self.handed.append(batch)
        return {"loss": torch.nn.functional.cross_entropy(self.net(batch.image), batch.label)}

    def start_stage(self, stage: Stage, train: View) -> None:
        self.views.append(train)

    def finish(self, train: View, val: View) -> None:
        self.views += [train, val]


class Seeing(Small):
    name = "seeing"
    sees_bias = True


class Choosy(Small):
    name = "choosy"
    min_batch = 5


def trained(cls: type[Method], split: Split | None = None, **options: Any) -> tuple[Any, Trainer]:
    """A method, and the trainer that has run it."""
    bench = Bench(cls)
    method = bench.build(split=split)
    settings = options.pop("settings", SETTINGS)
    trainer = Trainer(
        WatchingEngine(method),
        plan_stages(method, settings, {}),
        bench.train if split is None else split,
        {"val": bench.val},
        seed=0,
        **options,
    )
    trainer.fit()
    return method, trainer


# --- resuming


@pytest.mark.parametrize("name", ["lnl", "rebias", "drawn"])
def test_a_run_resumed_from_any_checkpoint_ends_bit_for_bit_alike(name: str) -> None:
    bench = Bench(Drawn if name == "drawn" else load_method(name))
    whole = bench.fit(epochs=2, keep=True, batch_size=24)
    stages = len(whole.trainer.plans)
    assert {at[0] for at in whole.checkpoints} == set(range(stages))
    assert any(at[2] for at in whole.checkpoints), "within an epoch"
    for at, saved in whole.checkpoints.items():
        resumed = bench.fit(epochs=2, batch_size=24, build_seed=5, start=saved)
        assert differences(whole.outcome(), resumed.outcome()) == [], at


def test_a_resumed_run_can_be_interrupted_again() -> None:
    bench = Bench(load_method("lnl"))
    whole = bench.fit(epochs=2, keep=True)
    once = bench.fit(epochs=2, build_seed=5, start=whole.checkpoints[0, 1, 1], keep=True)
    twice = bench.fit(epochs=2, build_seed=6, start=once.checkpoints[1, 1, 2])
    assert differences(whole.outcome(), twice.outcome()) == []
    assert all(same_checkpoint(whole.checkpoints[at], saved) for at, saved in once.checkpoints.items())


def same_checkpoint(one: bytes, other: bytes) -> bool:
    def weights(saved: bytes) -> Any:
        return {str(k): v for k, v in from_bytes(saved)["engine"]["method"].items()}

    return differences(weights(one), weights(other)) == []


def test_saving_changes_no_number() -> None:
    bench = Bench(load_method("blindeye"))
    assert differences(bench.fit(epochs=2).outcome(), bench.fit(epochs=2, keep=True).outcome()) == []


def test_checkpoints_hold_tensors_and_plain_values_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "checkpoint_seconds", 0.0)
    kept: list[bytes] = []
    trained(Small, save=lambda state: kept.append(to_bytes(state)))
    assert set(from_bytes(kept[-1])) == {"device", "engine", "progress", "predictions", "initial", "notes"}


def test_predictions_and_curves_have_a_row_for_every_epoch_of_every_stage() -> None:
    fit = Bench(load_method("lnl")).fit(epochs=2).fit
    assert [(row["stage"], row["epoch"]) for row in fit.curves] == [
        ("pretrain", 0),
        ("pretrain", 1),
        ("unlearn", 0),
        ("unlearn", 1),
    ]
    found = fit.predictions["val"]
    assert found["class"].dtype == torch.uint8
    assert found["class"].shape == found["log_odds"].shape == (4, len(Bench(Small).val))


# --- the stop at NaN


class Diverges(Small):
    """Its loss becomes NaN in the second epoch's third step."""

    name = "diverges"

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        found = super().forward(loss, batch, clock)
        bad = clock.epoch == 1 and clock.step % (clock.steps // clock.epochs) == 2
        return {"loss": found["loss"] * (float("nan") if bad else 1.0)}


def test_nan_stops_the_run_and_names_stage_epoch_and_step() -> None:
    with pytest.raises(DivergedError, match=r"diverges: .* in stage 'main', epoch 1, step 2\b"):
        trained(Diverges)


def test_no_checkpoint_holds_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "checkpoint_seconds", 0.0)
    kept: list[dict[str, Any]] = []
    with pytest.raises(DivergedError, match="epoch 1, step 2"):
        trained(Diverges, save=lambda state: kept.append(from_bytes(to_bytes(state))))
    assert kept
    assert all(bool(torch.isfinite(value.float()).all()) for value in kept[-1]["engine"]["method"].values())
    assert (kept[-1]["progress"]["epoch"], kept[-1]["progress"]["step"]) == (1, 2)


def test_a_logged_number_that_is_not_finite_stops_it_too() -> None:
    class LogsInfinity(Small):
        def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
            return {**super().forward(loss, batch, clock), "ratio": batch.image.new_tensor(float("inf"))}

    with pytest.raises(DivergedError, match="epoch 0, step 0"):
        trained(LogsInfinity)


# --- batches


@pytest.mark.parametrize(("count", "steps", "dropped"), [(32, 2, 0), (36, 2, 4), (37, 3, 0)])
def test_a_last_batch_below_min_batch_is_dropped_and_noted(count: int, steps: int, dropped: int) -> None:
    method, trainer = trained(Choosy, uneven_split(64, 12).head(count))
    assert len(method.handed) == 2 * steps
    assert min(len(batch.index) for batch in method.handed) >= Choosy.min_batch
    expected = [f"stage 'main': the last {dropped} images of an epoch were dropped (min_batch)"] if dropped else []
    assert trainer.notes == expected


def test_too_few_images_are_an_error() -> None:
    with pytest.raises(ZooError, match="choosy needs batches of at least 5; an epoch has 4"):
        trained(Choosy, uneven_split(64, 12).head(4))


def test_every_image_is_shown_once_an_epoch_in_an_order_of_its_own() -> None:
    method, _ = trained(Small)
    rows = [torch.cat([b.index for b in method.handed[part]]) for part in (slice(0, 4), slice(4, 8))]
    assert all(torch.equal(order.sort().values, torch.arange(len(order))) for order in rows)
    assert not torch.equal(*rows)


def test_every_method_of_a_seed_sees_the_same_order() -> None:
    small, _ = trained(Small)
    seeing, _ = trained(Seeing)
    assert all(torch.equal(a.index, b.index) for a, b in zip(small.handed, seeing.handed, strict=True))


def test_images_are_floats_between_0_and_1_and_ignored_pixels_are_marked() -> None:
    split = uneven_split(0, 12)
    view = DeviceSplit(split, torch.device("cpu"), see_bias=True)
    batch = view.batch(torch.tensor([3, 1]), torch.Generator())
    torch.testing.assert_close(batch.image.permute(0, 2, 3, 1), torch.from_numpy(split.images[[3, 1]]) / 255.0)
    assert float(view.image(slice(None)).max()) <= 1.0
    assert batch.bias_map is not None
    assert split.bias_map is not None
    marked = torch.from_numpy(split.bias_map[[3, 1]] == IGNORED)
    assert torch.equal(batch.bias_map == -100, marked)
    assert bool(marked.any())


def test_a_view_gives_every_so_manieth_image_in_order() -> None:
    view = DeviceSplit(uneven_split(0, 12), torch.device("cpu"), see_bias=True)
    rows = [batch.index.tolist() for batch in view.batches(4, every=5)]
    assert [row for part in rows for row in part] == list(range(0, len(view), 5))
    assert {len(part) for part in rows[:-1]} == {4}


# --- the firewall


def test_a_method_that_sees_no_bias_can_reach_no_bias_label() -> None:
    method, _ = trained(Small)
    assert all(batch.bias is None and batch.bias_map is None for batch in method.handed)
    assert method.task.biases == 0
    assert method.task.group_counts is None
    assert method.task.bias_map is None
    assert method.task.bias_parts == ()
    assert len(method.views) == 3
    for view in method.views:
        assert view.biases is None
        assert all(batch.bias is None and batch.bias_map is None for batch in view.batches(50))


def test_a_method_that_sees_bias_is_handed_the_labels_of_training_and_no_others() -> None:
    method, _ = trained(Seeing)
    split = Bench(Small).train
    assert split.biases is not None
    for batch in method.handed:
        assert torch.equal(batch.bias, torch.from_numpy(split.biases)[batch.index])
    start, train, val = method.views
    assert torch.equal(train.biases, torch.from_numpy(split.biases))
    assert torch.equal(start.biases, train.biases)
    assert val.biases is None, "bias labels of the validation split are for needs_val_bias"


def test_a_task_tells_what_the_split_holds() -> None:
    split = uneven_split(0, 12)
    task = task_of(split, CLASSES, BIASES, (2, 2), (3, 8, 6, 6), see_bias=True)
    assert split.biases is not None
    counts = np.zeros((CLASSES, BIASES), dtype=int)
    np.add.at(counts, (split.labels, split.biases), 1)
    assert task == Task(3, 4, len(split), (3, 12, 12), (2, 2), (3, 8, 6, 6), tuple(map(tuple, counts.tolist())))
    assert task_of(replace(split, bias_map=None), CLASSES, BIASES, (), (3, 8, 6, 6), see_bias=True).bias_map is None
    assert task_of(split, CLASSES, BIASES, (2, 2), (3, 8, 6, 6), see_bias=False) == task.hidden()


# --- evaluation and hooks


class Drawing(Small):
    """Draws in every hook."""

    name = "drawing"

    def draw(self, view: View) -> None:
        self.drawn = [*getattr(self, "drawn", []), float(torch.rand((), generator=view.generator))]

    def start_stage(self, stage: Stage, train: View) -> None:
        self.draw(train)

    def end_epoch(self, clock: Clock, train: View) -> None:
        self.draw(train)

    def finish(self, train: View, val: View) -> None:
        self.draw(val)


def test_what_hooks_draw_depends_on_the_seed_and_the_moment_alone() -> None:
    bench = Bench(Drawing)
    first, again, other = (bench.fit(epochs=2, seed=seed).fit.method.drawn for seed in (0, 0, 1))
    assert first == again
    assert len({*first, *other}) == 8, "a number was drawn twice"


def test_predictions_are_the_class_and_its_log_odds() -> None:
    bench = Bench(Small)
    engine = Engine(bench.build())
    found, odds = predict_split(engine, bench.view(bench.val))
    with quiet(engine.method):
        p = engine.method.predict(bench.view(bench.val).image(slice(None))).double().softmax(1)
    assert torch.equal(found, p.argmax(1))
    best = p.max(1).values
    torch.testing.assert_close(odds.double(), (best / (1.0 - best)).log(), rtol=2e-3, atol=2e-3)
    assert engine.method.training


def test_hooks_run_in_eval_mode_without_gradients_and_modes_come_back() -> None:
    found: list[tuple[bool, bool]] = []

    class Hooked(Small):
        def start_stage(self, stage: Stage, train: View) -> None:
            found.append((self.net.training, torch.is_grad_enabled()))

        def end_epoch(self, clock: Clock, train: View) -> None:
            found.append((self.net.training, torch.is_grad_enabled()))

        def finish(self, train: View, val: View) -> None:
            found.append((self.net.training, torch.is_grad_enabled()))

    method, _ = trained(Hooked)
    assert found == [(False, False)] * 4
    assert method.training


def test_progress_is_told_with_the_last_step_of_every_epoch() -> None:
    told: list[dict[str, Any]] = []
    _, trainer = trained(Small, report=told.append)
    assert [row["done"] for row in told][-1] == trainer.total == 8
    assert told[-1]["stage"] == "main"
    assert told[-1]["loss"].keys() == {"main"}
    assert told[-1]["accuracy"].keys() == {"val"}


def test_unknown_sampling_is_refused() -> None:
    class Odd(Small):
        def sampling(self) -> Any:
            return [1, 2, 3]

    with pytest.raises(ZooError, match="must give None, Weights or Repeats; got list"):
        trained(Odd)


def test_resetting_what_holds_no_weights_is_refused() -> None:
    class Resets(Small):
        def stages(self) -> list[Stage]:
            return [Stage("main", reset=("nte",))]

    with pytest.raises(ZooError, match="resets 'nte', which holds no weights"):
        trained(Resets)


def test_denormal_numbers_count_as_zero_inside_alone() -> None:
    small = torch.full((1,), 2e-38)
    assert bool((small * 0.25).any())
    seen: list[bool] = []

    class Watching(Engine):
        def step(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
            seen.append(bool((small * 0.25).any()))
            return super().step(batch, clock)

    Bench(load_method("erm")).fit(epochs=1, engine=Watching)
    assert set(seen) == {not torch.set_flush_denormal(False)}, "but where the processor cannot"
    assert bool((small * 0.25).any()), "as it was"
