"""Several seeds as one program: each trial is what it is alone, within float tolerance, or it is trained alone."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from commands import children, gone, zoo
from safetensors.torch import load_file
from torch import Tensor

from debias_zoo import stacking
from debias_zoo.course import Course
from debias_zoo.engine import Engine
from debias_zoo.method import Batch, Clock, Method, Paper, Task, Update
from debias_zoo.registry import load_method
from debias_zoo.stacking import together
from debias_zoo.testing.bench import SETTINGS, Bench, from_bytes, same_bits, to_bytes
from debias_zoo.trainer import Fit, Trainer

SEEDS = (0, 1, 2)
NO_PAPER = Paper("", "", "", 0)


class Group:
    """Trainers of one configuration, one a seed."""

    def __init__(self, cls: type[Method], backbone: str, epochs: int = 2, precision: str = "fp32") -> None:
        self.bench = Bench(cls, backbone=backbone)
        self.epochs, self.precision = epochs, precision
        self.fits: dict[int, Fit] = {}
        self.failed: dict[int, str] = {}
        self.told: list[str] = []
        self.saved: dict[int, list[bytes]] = {seed: [] for seed in SEEDS}

    def trainer(self, seed: int) -> Trainer:
        method = self.bench.build(seed)
        engine = Engine(method, "cpu", self.precision)
        plans = self.bench.plans(method, self.epochs, SETTINGS)
        trainer = Trainer(
            engine,
            plans,
            self.bench.train,
            {"val": self.bench.val},
            seed,
            save=lambda state: self.saved[seed].append(to_bytes(state)),
        )
        trainer.checkpoint_seconds = 0.0
        return trainer

    def separately(self) -> dict[int, Fit]:
        return {seed: self.trainer(seed).fit() for seed in SEEDS}

    def stacked(self, states: dict[int, bytes] | None = None) -> dict[int, Fit]:
        def course(seed: int) -> Course[None]:
            state = None if states is None or seed not in states else from_bytes(states[seed])
            self.fits[seed] = yield from self.trainer(seed).course(state)

        def ended(k: int, failed: str) -> None:
            self.failed[SEEDS[k]] = failed

        together([course(seed) for seed in SEEDS], ended, self.told.append)
        return self.fits


def apart(one: Fit, other: Fit) -> float:
    """The largest relative difference of a tensor of the two methods."""
    mine, theirs = one.method.state_dict(), other.method.state_dict()
    worst = 0.0
    for name, value in mine.items():
        a, b = value.double(), theirs[name].double()
        off = torch.where(a == b, 0.0, a - b).norm() / torch.where(b.isfinite(), b, 0.0).norm().clamp(min=1e-3)
        worst = max(worst, float(off))
    return worst


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        ("erm", "mlp"),
        ("erm", "lnl_convnet"),
        ("erm", "simple_convnet"),
        ("gray", "lnl_convnet"),
        ("upweight", "mlp"),
        ("subsample", "mlp"),
        ("group_dro", "mlp"),
        ("group_dro", "simple_convnet"),
        ("spectral_decoupling", "mlp"),
        ("irm", "mlp"),
        ("domain_independent", "mlp"),
    ],
)
def test_a_stacked_run_is_the_run_of_each_seed_alone(name: str, backbone: str) -> None:
    alone = Group(load_method(name), backbone).separately()
    group = Group(load_method(name), backbone)
    stacked = group.stacked()
    assert group.told == []
    assert group.failed == dict.fromkeys(SEEDS, "")
    for seed in SEEDS:
        assert apart(stacked[seed], alone[seed]) < 2e-3
        assert apart(stacked[seed], alone[(seed + 1) % 3]) > 0.1
        mine, theirs = stacked[seed], alone[seed]
        assert torch.equal(mine.predictions["val"]["class"], theirs.predictions["val"]["class"])
        assert [row.keys() for row in mine.curves] == [row.keys() for row in theirs.curves]
        assert [row["main"] for row in mine.curves] == pytest.approx([row["main"] for row in theirs.curves], rel=1e-3)
        assert (mine.steps, mine.passes, mine.selectable) == (theirs.steps, theirs.passes, theirs.selectable)
        assert mine.notes == ["trained in one program with 2 other seeds (--stack-seeds)"]


def test_a_stack_in_bf16_agrees_as_far_as_bf16_goes() -> None:
    alone = Group(load_method("erm"), "mlp", precision="bf16").separately()
    group = Group(load_method("erm"), "mlp", precision="bf16")
    stacked = group.stacked()
    assert group.told == []
    for seed in SEEDS:
        assert apart(stacked[seed], alone[seed]) < 0.05


# --- what cannot be batched


class Plain(Method):
    name = "plain_again"
    is_baseline = True
    paper = NO_PAPER

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(self.logits(batch), batch.label)}

    def logits(self, batch: Batch) -> Tensor:
        return self.net(batch.image)


class Dropping(Plain):
    name = "dropping"

    def logits(self, batch: Batch) -> Tensor:
        return F.dropout(self.net(batch.image), 0.5, self.training)


class Drawing(Plain):
    name = "drawing"

    def logits(self, batch: Batch) -> Tensor:
        return self.net(batch.image) + torch.rand(10, generator=batch.generator)[:1]


class Branching(Plain):
    name = "branching"

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        found = F.cross_entropy(self.net(batch.image), batch.label)
        return {"loss": found * 2.0 if found > 0.5 else found}


class Remembering(Plain):
    """What it remembers of a seed is not a buffer, so that the stack does not see it."""

    name = "remembering"

    def __init__(self, backbones: Any, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.factor = 1.0 + 100.0 * float(next(self.net.parameters()).detach().flatten()[0].abs())

    def logits(self, batch: Batch) -> Tensor:
        return self.factor * self.net(batch.image)


class Twice(Plain):
    name = "twice"

    def updates(self, clock: Clock) -> list[Update]:
        return [Update("first", ("main",)), Update("second", ("main",))]


@pytest.mark.parametrize(
    ("cls", "reason"),
    [
        (Dropping, "RuntimeError: vmap: called random operation"),
        (Drawing, "RuntimeError: vmap: called random operation"),
        (Branching, "RuntimeError: vmap: It looks like you're attempting to use a Tensor in some data-dependent"),
        (Remembering, "numbers differ from those of a step alone by "),
        (Twice, "a batch has several updates, and what they share cannot be batched"),
    ],
)
def test_what_cannot_be_batched_is_trained_one_after_the_other_and_the_reason_told(
    cls: type[Method], reason: str
) -> None:
    alone = Group(cls, "mlp").separately()
    group = Group(cls, "mlp")
    stacked = group.stacked()
    (told,) = group.told
    assert told.startswith(f"{cls.name}: in stage 'main' seeds are trained one after the other: {reason}")
    for seed in SEEDS:
        state = stacked[seed].method.state_dict()
        assert all(same_bits(value, state[name]) for name, value in alone[seed].method.state_dict().items())
        assert stacked[seed].notes == []


class Late(Dropping):
    """Dropout from the second epoch on, long after the stack was proved."""

    name = "late"

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        logits = self.logits(batch) if clock.epoch else self.net(batch.image)
        return {"loss": F.cross_entropy(logits, batch.label)}


def test_what_cannot_be_batched_any_more_goes_on_one_after_the_other() -> None:
    alone = Group(Late, "mlp").separately()
    group = Group(Late, "mlp")
    stacked = group.stacked()
    assert "random operation" in group.told[0]
    assert group.failed == dict.fromkeys(SEEDS, "")
    for seed in SEEDS:
        assert apart(stacked[seed], alone[seed]) < 1e-4
        assert stacked[seed].steps == alone[seed].steps
        assert stacked[seed].notes == ["trained in one program with 2 other seeds (--stack-seeds)"]


def test_a_proof_changes_nothing() -> None:
    group = Group(load_method("group_dro"), "simple_convnet")
    courses = [group.trainer(seed).course() for seed in SEEDS]
    steps = [next(course) for course in courses]
    before = [{k: v.clone() for k, v in step.engine.method.state_dict().items()} for step in steps]
    stacking._prove(steps, Update("main", ("main",)))
    for step, state in zip(steps, before, strict=True):
        assert all(same_bits(value, state[name]) for name, value in step.engine.method.state_dict().items())
        assert all(parameter.grad is None for parameter in step.engine.method.parameters())


# --- what happens to one of them


class Breaking(Plain):
    """The seed whose first weight is as given breaks in its third step."""

    name = "breaking"

    def __init__(self, backbones: Any, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.register_buffer("broken", torch.zeros(()))
        self.broken: Tensor

    def logits(self, batch: Batch) -> Tensor:
        return self.net(batch.image) + self.broken


def test_a_seed_that_diverges_fails_alone() -> None:
    group = Group(Breaking, "mlp")
    build = group.bench.build

    def broken(seed: int) -> Method:
        method = build(seed)
        if seed == 1:
            method.broken.fill_(torch.inf)
        return method

    group.bench.build = broken  # type: ignore[method-assign, assignment]
    fits = group.stacked()
    assert set(fits) == {0, 2}
    assert group.failed[0] == group.failed[2] == ""
    assert "a loss became NaN or infinite" in group.failed[1]


def test_seeds_resumed_from_different_moments_meet_and_end_alike() -> None:
    whole = Group(load_method("erm"), "mlp")
    fits = whole.stacked()
    states = {0: whole.saved[0][1], 2: whole.saved[2][5]}
    again = Group(load_method("erm"), "mlp")
    resumed = again.stacked(states)
    assert again.told == []
    assert len(again.saved[0]) > len(again.saved[2])
    for seed in SEEDS:
        assert apart(resumed[seed], fits[seed]) < 1e-4
        assert len(resumed[seed].curves) == len(fits[seed].curves)


def test_a_stack_leaves_the_random_state_as_it_was_and_shares_its_time() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    group = Group(load_method("erm"), "mlp")
    fits = group.stacked()
    assert torch.equal(torch.get_rng_state(), before)
    times = [fits[seed].seconds["train"] for seed in SEEDS]
    assert max(times) < 2 * min(times)


# --- on the command line

STACK = ["run", "--methods", "erm", "--dataset", "cmnist-lff", "--protocol", "quick", "--device", "cpu", "--seeds", "3"]
STACK += ["--precision", "fp32", "--threads", "1", "--jobs", "1"]


def trained(out: Path) -> dict[str, tuple[dict[str, Any], dict[str, Tensor], Any]]:
    """Result, weights and predictions by the name of the trial's folder."""
    found = {}
    for path in out.rglob("result.json"):
        with np.load(path.parent / "predictions.npz", allow_pickle=False) as arrays:
            classes = {name: arrays[name] for name in arrays.files if name.endswith(".class")}
        found[path.parent.name] = json.loads(path.read_text()), load_file(path.parent / "model.safetensors"), classes
    return found


@pytest.mark.slow
def test_a_stack_that_is_killed_is_finished_by_the_same_command_and_is_as_each_alone(tmp_path: Path) -> None:
    whole = zoo(*STACK, "--out", "alone", cwd=tmp_path)
    said, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, said
    killed = zoo(*STACK, "--out", "stack", "--stack-seeds", "3", cwd=tmp_path)
    until(lambda: len(list(tmp_path.glob("stack/*/*/*/curves.jsonl"))) == 3, killed)
    workers = children(killed.pid)
    killed.kill()
    killed.communicate()
    until(lambda: all(map(gone, workers)))
    assert not list(tmp_path.glob("stack/*/*/*/result.json")), "it ended before it could be killed"
    again = zoo(*STACK, "--out", "stack", "--stack-seeds", "3", cwd=tmp_path)
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 0, said
    alone, stacked = trained(tmp_path / "alone"), trained(tmp_path / "stack")
    assert set(alone) == set(stacked)
    for name, (result, weights, classes) in alone.items():
        other, others, theirs = stacked[name]
        assert other["identity"] == result["identity"]
        assert other["trial"] == result["trial"]
        assert other["cost"]["steps"] == result["cost"]["steps"]
        assert other["notes"] == ["trained in one program with 2 other seeds (--stack-seeds)"]
        for key, value in weights.items():
            torch.testing.assert_close(others[key], value, rtol=1e-3, atol=1e-4)
        for key, value in classes.items():
            assert (theirs[key] == value).mean() > 0.99
    assert not list(tmp_path.glob("stack/*/*/*/checkpoint.pt"))


def until(done: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Wait for something that a process does."""
    for _ in range(3000):
        if done():
            return
        assert process is None or process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    raise AssertionError("it took too long")
