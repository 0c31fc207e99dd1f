"""How networks lie in memory and whether they are compiled: by rule, as asked for, or as measured."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from debias_zoo import layouts
from debias_zoo.engine import Engine, Layout, usual_layout
from debias_zoo.errors import ZooError
from debias_zoo.grid import Request, build_grid
from debias_zoo.layouts import Timing, candidates, facts_of, fastest, kept_timings, measure, pick_layout
from debias_zoo.method import Method
from debias_zoo.registry import load_method
from debias_zoo.runner import run_trial
from debias_zoo.testing.bench import SETTINGS, Bench, differences
from debias_zoo.trial import Trial

LAST, FIRST = Layout(channels_last=True), Layout(channels_last=False)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Compile by tracing alone, which needs no compiler; the shapes that ran through what was compiled."""
    shapes: list[torch.Size] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        shapes.append(next(x.shape for x in inputs if x.dim() == 4))
        return graph.forward

    whole = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: whole(self, backend=backend, **options))
    torch._dynamo.reset()
    return shapes


@pytest.fixture
def trial() -> Trial:
    (found,) = build_grid(
        Request(["erm"], ["cmnist"], protocol="quick", sets=[("erm", "train.epochs", 1)])
    ).trials.values()
    return found.model_copy(update={"train_limit": 300, "eval_limit": 20})


def bench(name: str = "erm", backbone: str = "lnl_convnet") -> Bench:
    return Bench(load_method(name), backbone=backbone)


@pytest.mark.parametrize(("backbone", "layout"), [("lnl_convnet", LAST), ("resnet18", LAST), ("mlp", FIRST)])
def test_the_usual_layout_follows_from_the_network(backbone: str, layout: Layout) -> None:
    assert usual_layout(bench(backbone=backbone).build()) == layout


def test_the_fastest_counts_what_compiling_takes_and_must_be_clearly_faster() -> None:
    compiled = Layout(channels_last=True, compiled=True)
    found = {LAST.name: Timing(0.0, 1.0), FIRST.name: Timing(0.0, 0.97), compiled.name: Timing(100.0, 0.5)}
    assert fastest(found, LAST, 150) == LAST
    assert fastest(found, LAST, 1000) == compiled
    assert fastest({**found, FIRST.name: Timing(0.0, 0.9)}, LAST, 150) == FIRST
    assert fastest({LAST.name: Timing(0.0, 1.0)}, LAST, 10) == LAST


def test_what_was_measured_is_kept_until_it_is_damaged_or_something_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trial: Trial
) -> None:
    monkeypatch.setenv("DEBIAS_ZOO_CACHE", str(tmp_path))
    made: list[int] = []

    def make() -> dict[str, Timing]:
        made.append(len(made))
        return {LAST.name: Timing(1.0, float(len(made)))}

    facts = facts_of(trial, "cpu", 128, (28, 28, 3))
    assert [kept_timings(facts, make)[LAST.name].step for _ in range(2)] == [1.0, 1.0]
    (file,) = (tmp_path / "layouts").glob("*.json")
    assert json.loads(file.read_text())["backbone"] == "lnl_convnet"
    file.write_text("{")
    assert kept_timings(facts, make)[LAST.name].step == 2.0
    for other in ({"batch": 64}, {"precision": "bf16"}, {"threads": 99}, {"backbone": "mlp"}):
        kept_timings({**facts, **other}, make)
    assert len(made) == 6


def test_a_mode_is_off_on_or_auto(trial: Trial) -> None:
    own = bench()

    def unbuilt() -> Method:
        raise AssertionError("only what is measured is built again")

    assert pick_layout("off", trial, own.build(), unbuilt, own.train, "cpu") == LAST
    assert pick_layout("on", trial, own.build(), unbuilt, own.train, "cpu") == Layout(compiled=True)
    with pytest.raises(ZooError, match="unknown --compile 'of'"):
        pick_layout("of", trial, own.build(), unbuilt, own.train, "cpu")


def test_auto_takes_what_takes_least_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trial: Trial, traced: list[torch.Size]
) -> None:
    monkeypatch.setenv("DEBIAS_ZOO_CACHE", str(tmp_path))
    asked = []

    def timed(engine: Engine, batch: Any, clock: Any, count: int) -> float:
        asked.append(engine.layout)
        return count * (1.0 if engine.layout.channels_last else 0.5)

    monkeypatch.setattr(layouts, "seconds_of_steps", timed)
    own = bench()
    assert pick_layout("auto", trial, own.build(), own.build, own.train, "cpu") == FIRST
    assert set(asked) == set(candidates())
    asked.clear()
    assert pick_layout("auto", trial, own.build(), own.build, own.train, "cpu") == FIRST
    assert asked == []


def test_a_layout_that_cannot_be_compiled_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler here")

    whole = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: whole(self, backend=backend, **options))
    torch._dynamo.reset()
    own = bench()
    (plan,) = own.plans(own.build(), 1, SETTINGS)
    found = measure(own.build, plan, own.train.head(16), "cpu", "fp32")
    assert set(found) == {LAST.name, FIRST.name}
    assert all(timing.step > 0.0 for timing in found.values())


@pytest.mark.parametrize("name", ["erm", "lnl"])
def test_full_batches_of_training_are_compiled_and_nothing_else(name: str, traced: list[torch.Size]) -> None:
    own = bench(name)
    compiled = Layout(channels_last=True, compiled=True)

    def run(layout: Layout) -> dict[str, Any]:
        return own.fit(epochs=1, engine=lambda method: Engine(method, "cpu", "fp32", layout)).outcome()

    plain = run(LAST)
    assert traced == []
    assert differences(plain, run(compiled)) == []  # tracing changes no bit
    assert {shape[0] for shape in traced} == {own.batch_size}


def test_copies_of_a_compiled_network_are_not_compiled_and_weights_keep_their_names(traced: list[torch.Size]) -> None:
    method: Method = bench().build()
    names = list(method.state_dict())
    Engine(method, layout=Layout(compiled=True))
    assert list(method.state_dict()) == names
    twin = copy.deepcopy(method).train()
    image = torch.rand(4, 3, 12, 12)
    twin.net(image)
    assert traced == []
    assert {id(p) for p in twin.parameters()}.isdisjoint({id(p) for p in method.parameters()})
    method.train().net(image)
    assert len(traced) == 1


def test_a_result_says_its_layout(trial: Trial, tmp_path: Path, traced: list[torch.Size]) -> None:
    plain = run_trial(trial, tmp_path / "plain")
    compiled = run_trial(trial, tmp_path / "compiled", compiling="on")
    assert plain.environment["layout"] == "channels last"
    assert compiled.environment["layout"] == "channels last, compiled"
    assert plain.identity == compiled.identity
    assert plain.metrics == compiled.metrics
    assert traced


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # inductor's own
@pytest.mark.parametrize("backbone", ["lnl_convnet", "mlp"])
def test_a_compiled_step_is_the_step_within_tolerance(backbone: str) -> None:
    torch._dynamo.reset()
    own = bench(backbone=backbone)

    def run(layout: Layout) -> Any:
        return own.fit(
            epochs=1, engine=lambda method: Engine(method, "cpu", "fp32", layout)
        ).trainer.method.state_dict()

    plain = run(usual_layout(own.build()))
    for layout in candidates():
        found = run(layout)
        for name, value in plain.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
