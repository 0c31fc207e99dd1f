"""How long a trial will take: from what the store has seen, or from timing a few steps of it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from .dataset import Split
from .engine import DeviceSplit, Engine, predict_split
from .layouts import seconds_of_steps
from .method import Clock
from .plans import StagePlan, plan_stages
from .runner import load_splits, make_method
from .store import read_results
from .trial import Trial

__all__ = ["expected_seconds", "makespan"]

WARM_UP, TIMED = 1, 2
START_SECONDS = 5.0
"""Importing torch and making the data, once a worker."""


def expected_seconds(
    trials: Iterable[Trial], out: Path, root: Path | None, device: str, threads: int
) -> dict[str, float]:
    """Seconds by identity, with a trial's share of threads; trials that differ in the seed alone are timed once.

    Without those that cannot be timed: their teacher is not trained yet, or something is wrong with them.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            return _expected(trials, out, root, device)
    finally:
        torch.set_num_threads(before)


def _expected(trials: Iterable[Trial], out: Path, root: Path | None, device: str) -> dict[str, float]:
    seen: dict[str, float | None] = {}
    if out.exists():
        for result in read_results(out)[0]:
            if result.environment.get("device") == device:
                seen[result.trial.but_seed()] = result.seconds.get("total", 0.0)
    found = {}
    last: tuple[Any, tuple[Split, dict[str, Split]]] | None = None  # trials of one data set follow each other
    for trial in trials:
        key = trial.but_seed()
        if key not in seen:
            try:
                data = (trial.dataset, trial.params, trial.train_limit, trial.eval_limit)
                if last is None or last[0] != data:
                    last = data, load_splits(trial, root)
                seen[key] = _time(trial, out, *last[1], device)
            except (Exception, SystemExit):  # the worker will tell what is wrong, on this trial alone
                seen[key] = None
        if (seconds := seen[key]) is not None:
            found[trial.identity] = seconds
    return found


def makespan(seconds: list[float], slots: int) -> float:
    """Seconds until trials handed out in this order to ``slots`` workers are all done."""
    free = [START_SECONDS] * max(slots, 1)
    for value in seconds:
        free[free.index(min(free))] += value
    return max(free)


def _time(trial: Trial, out: Path, train: Split, evals: dict[str, Split], device: str) -> float | None:
    if trial.needs:
        return None  # its teacher is not trained yet, so it cannot be built
    method = make_method(trial, train, out)
    engine = Engine(method, device, trial.precision)
    split = engine.split(train, method.sees_bias)
    plans = plan_stages(method, trial.settings, trial.stages)
    total = sum(_stage_seconds(engine, plan, split) for plan in plans)
    probe = engine.split(next(iter(evals.values())).head(512), False)
    started = time.perf_counter()
    predict_split(engine, probe)
    an_image = (time.perf_counter() - started) / len(probe)
    images = sum(len(found) for found in evals.values())
    return total + an_image * images * sum(plan.epochs for plan in plans)


def _stage_seconds(engine: Engine, plan: StagePlan, split: DeviceSplit) -> float:
    """Seconds of a stage, from a few of its steps; the weights are spoilt."""
    size = plan.settings.batch_size or 1
    steps = -(-len(split) // size)
    engine.build_optimizers(plan.settings)
    engine.method.train()
    generator = torch.Generator(engine.device).manual_seed(0)
    rows = torch.arange(min(size, len(split)), device=engine.device)
    clock = Clock(plan.stage.name, 0, plan.epochs, 0, plan.epochs * steps, plan.epochs * steps)
    batch = split.batch(rows, generator)
    seconds_of_steps(engine, batch, clock, WARM_UP)
    return seconds_of_steps(engine, batch, clock, TIMED) / TIMED * steps * plan.epochs
