"""How networks lie in memory and whether they are compiled: by rule, as asked for, or as measured here (``--compile``).

Every layout computes the same sums in another order, so that numbers of one configuration differ in their last digits,
and after an epoch by about as much as with another number of threads. So the default, ``off``, measures nothing: the
layout follows from the method alone. What ``auto`` has measured is kept in the cache, and every result says its layout.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from .cache import alone, cache_folder
from .dataset import Split
from .devices import processor
from .engine import Engine, Layout, usual_layout
from .errors import unknown
from .method import Batch, Clock, Method
from .plans import StagePlan, plan_stages
from .trial import Trial
from .writing import write_text

MODES = ("off", "on", "auto")
WARM_UP, STEPS, ROUNDS = 2, 3, 5
WORTH = 0.95
"""Another layout is taken where a run takes less than this part of the time it takes with the usual one."""


@dataclass(frozen=True)
class Timing:
    """Seconds of the first steps, which hold what compiling takes, and of a step after them."""

    start: float
    step: float

    def of_run(self, steps: int) -> float:
        """Seconds of a run of so many steps."""
        return self.start + steps * self.step


Timings = Mapping[str, Timing]
"""By the layout's name; a layout that cannot run is missing."""


def pick_layout(
    mode: str, trial: Trial, method: Method, again: Callable[[], Method], train: Split, device: str
) -> Layout:
    """The layout of a trial's networks.

    Args:
        mode: "off": the usual one. "on": the usual one, compiled. "auto": the one with which the run takes least time.
        trial: whose networks.
        method: the trial's.
        again: builds it anew, to spoil it.
        train: its training split.
        device: where it trains.

    Raises:
        ZooError: the mode is unknown, or the cache cannot be written.
    """
    if mode not in MODES:
        raise unknown("--compile", mode, MODES)
    usual = usual_layout(method)
    if mode != "off":
        torch.compiler.reset()  # torch compiles eight forms of a function and no more: earlier trials may have had them
    if mode != "auto":
        return Layout(usual.channels_last, compiled=mode == "on")
    plans = plan_stages(method, trial.settings, trial.stages)
    sizes = [(plan, plan.settings.batch_size or 1) for plan in plans]
    steps = sum(plan.epochs * max(len(train) // size, 1) for plan, size in sizes)
    longest, size = max(sizes, key=lambda found: found[0].epochs)
    facts = facts_of(trial, device, min(size, len(train)), tuple(train.images.shape[1:]))
    found = kept_timings(facts, lambda: measure(again, longest, train.head(size), device, trial.precision))
    torch.compiler.reset()
    return fastest(found, usual, steps)


def facts_of(trial: Trial, device: str, batch: int, shape: tuple[int, ...]) -> dict[str, Any]:
    """What a measurement depends on."""
    return {
        "backbone": trial.backbone,
        "options": trial.backbone_options,
        "method": trial.method,
        "config": trial.config,
        "shape": list(shape),
        "batch": batch,
        "precision": trial.precision,
        "device": device,
        "processor": processor(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def kept_timings(facts: Mapping[str, Any], make: Callable[[], Timings]) -> Timings:
    """What ``make`` measured the first time it was asked for these facts; from the cache afterwards."""
    folder = cache_folder() / "layouts"
    key = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=8).hexdigest()
    file = folder / f"{key}.json"
    with alone(folder):
        try:
            known = json.loads(file.read_text())["seconds"]
            return {name: Timing(**value) for name, value in known.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # missing or damaged
            found = make()
        seconds = {name: asdict(timing) for name, timing in found.items()}
        write_text(file, json.dumps({**facts, "seconds": seconds}, indent=1) + "\n")
    return found


def fastest(found: Timings, usual: Layout, steps: int) -> Layout:
    """The layout with which ``steps`` steps take least time; the usual one, if no other is clearly faster."""
    every = {layout.name: layout for layout in candidates()}
    best = min(found, key=lambda name: found[name].of_run(steps))
    worth = found[best].of_run(steps) < WORTH * found[usual.name].of_run(steps)
    return every[best] if worth else usual


def candidates() -> list[Layout]:
    """All layouts there are."""
    return [Layout(last, compiled) for compiled in (False, True) for last in (True, False)]


def measure(make: Callable[[], Method], plan: StagePlan, images: Split, device: str, precision: str) -> Timings:
    """Time a few steps of every layout in turn; one that cannot run, for lack of a compiler, is left out.

    ``torch.compiler.reset()`` must have been called where others were compiled before.
    """
    start: dict[str, float] = {}
    steps: dict[str, Callable[[], float]] = {}
    with torch.random.fork_rng(devices=[]):
        for layout in candidates():
            engine = Engine(make(), device, precision, layout)
            run = partial(seconds_of_steps, engine, *_prepared(engine, plan, images))
            begun = time.perf_counter()  # compilers run in processes of their own
            try:
                run(WARM_UP)
            except Exception:
                if not layout.compiled:
                    raise
                continue
            start[layout.name] = time.perf_counter() - begun
            steps[layout.name] = partial(run, STEPS)
        rounds = [{name: timed() / STEPS for name, timed in steps.items()} for _ in range(ROUNDS)]
    step = {name: statistics.median(found[name] for found in rounds) for name in steps}
    return {name: Timing(max(0.0, start[name] - WARM_UP * step[name]), step[name]) for name in steps}


def _prepared(engine: Engine, plan: StagePlan, images: Split) -> tuple[Batch, Clock]:
    engine.build_optimizers(plan.settings)
    engine.method.train()
    view = engine.split(images, engine.method.sees_bias)
    rows = torch.arange(len(view), device=engine.device)
    clock = Clock(plan.stage.name, 0, plan.epochs, 0, plan.epochs, plan.epochs)
    return view.batch(rows, torch.Generator(engine.device).manual_seed(0)), clock


def seconds_of_steps(engine: Engine, batch: Batch, clock: Clock, count: int) -> float:
    """Of the processor where one thread of it does all, so that others on the machine hardly matter."""
    now = time.process_time if engine.device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    started = now()
    for _ in range(count):
        engine.seed(0)
        logged = engine.step(batch, clock)
    for value in logged.values():
        value.cpu()  # waits for the device
    return now() - started
