"""``make bench``: how fast training is, against a bare loop and against the plain way, each pair measured in turn.

Figures are medians over repeated pairs; ratios are taken pair by pair, since the speed of a machine drifts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")  # the most any part of this uses

import torch
import torch.nn.functional as F

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

from plain_lnl import PlainLNL

from debias_zoo.dataset import Split
from debias_zoo.devices import default_precision
from debias_zoo.engine import DeviceSplit, Engine
from debias_zoo.grid import Request, build_grid
from debias_zoo.methods.losses.bias_heads import bias_loss, negative_entropy
from debias_zoo.methods.losses.grl import reverse_gradient
from debias_zoo.plans import StagePlan, plan_stages
from debias_zoo.runner import load_splits, make_method
from debias_zoo.trainer import Trainer
from debias_zoo.trial import Trial

BATCH = 128
FULL = 54_000


def trial_of(name: str, **sets: Any) -> Trial:
    """A standard trial on Colored MNIST."""
    listed = [(name, key, value) for key, value in sets.items()]
    request = Request([name], ["cmnist"], sets=listed, precision=default_precision("cpu"))
    (trial,) = build_grid(request).trials.values()
    return trial


def prepared(trial: Trial, train: Split) -> tuple[Engine, StagePlan]:
    """An engine with the trial's method at its initial weights, and one epoch of its last stage."""
    method = make_method(trial, train, Path("none"))
    plan = plan_stages(method, trial.settings, trial.stages)[-1]
    return Engine(method, "cpu", trial.precision), StagePlan(plan.stage, 1, plan.settings)


def ours(trial: Trial, train: Split, evals: dict[str, Split] | None = None) -> Callable[[], float]:
    """Seconds of one epoch through the trainer, checkpoints and reports included."""

    def run() -> float:
        engine, plan = prepared(trial, train)
        trainer = Trainer(engine, [plan], train, evals or {}, 0, save=lambda state: None, report=lambda state: None)
        started = time.perf_counter()
        trainer.fit()
        return time.perf_counter() - started

    return run


def bare(trial: Trial, train: Split, step: Callable[..., None]) -> Callable[[], float]:
    """Seconds of one epoch of a bare loop over the same tensors: gather, ``step``, nothing else."""

    def run() -> float:
        engine, plan = prepared(trial, train)
        method, data = engine.method.train(), DeviceSplit(train, engine.device, True)
        lr = plan.settings.lr or 0.0
        groups = [list(method.net.parameters())]
        if hasattr(method, "bias"):
            groups.append(list(method.bias.parameters()))
        optimizers = [torch.optim.SGD(group, lr, 0.9, weight_decay=5e-4, fused=True) for group in groups]
        order = torch.randperm(len(train))
        generator = torch.Generator()
        started = time.perf_counter()
        for start in range(0, len(train), BATCH):
            batch = data.batch(order[start : start + BATCH], generator)
            step(method, batch, optimizers, engine.autocast)
        return time.perf_counter() - started

    return run


def bare_erm(method: Any, batch: Any, optimizers: list[Any], autocast: Callable[[], Any]) -> None:
    """ERM by hand."""
    with autocast():
        loss = F.cross_entropy(method.net(batch.image).float(), batch.label)
    loss.backward()
    optimizers[0].step()
    optimizers[0].zero_grad()


def bare_lnl(method: Any, batch: Any, optimizers: list[Any], autocast: Callable[[], Any]) -> None:
    """LNL's two updates by hand."""
    net, bias = optimizers
    with autocast():
        features, z = method.net.features_and_tap(batch.image)
        loss = F.cross_entropy(method.net.classify(features).float(), batch.label) + 0.01 * negative_entropy(
            method.bias(z)
        )
    loss.backward(inputs=list(method.net.parameters()))
    net.step()
    net.zero_grad()
    with autocast():
        loss = bias_loss(method.bias(reverse_gradient(method.net.tap(batch.image), 0.1)), batch)
    loss.backward()
    for optimizer in (net, bias):
        optimizer.step()
        optimizer.zero_grad()


def pairs(first: Callable[[], float], second: Callable[[], float], count: int) -> tuple[list[float], list[float]]:
    """Both timed ``count`` times in turn, after a warm-up."""
    first(), second()
    timed = [(first(), second()) for _ in range(count)]
    return [a for a, _ in timed], [b for _, b in timed]


def ratio(a: list[float], b: list[float]) -> str:
    """Median of a / b pair by pair, with its range."""
    found = [x / y for x, y in zip(a, b, strict=True)]
    return f"{statistics.median(found):.3f} ({min(found):.3f} ... {max(found):.3f})"


def overhead(count: int, images: int) -> None:
    """Training through the trainer against a bare loop; one thread."""
    torch.set_num_threads(1)
    for name, step, sets in (("erm", bare_erm, {}), ("lnl", bare_lnl, {"pretrain_share": 0.0, "scale": 0.1})):
        trial = trial_of(name, **sets)
        train = load_splits(trial, None)[0].head(images)
        own, other = pairs(ours(trial, train), bare(trial, train, step), count)
        print(f"overhead  {name}: trainer / bare loop = {ratio(own, other)}; goal at most 1.05")


def evaluation() -> None:
    """The share of one epoch's time that evaluating all splits takes; one thread."""
    torch.set_num_threads(1)
    for name in ("lnl", "blindeye", "rebias", "erm"):
        trial = trial_of(name)
        train, evals = load_splits(trial, None)
        engine, plan = prepared(trial, train)
        trainer = Trainer(engine, [plan], train, evals, 0)
        seconds = trainer.fit().seconds
        share = seconds["evaluate"] / sum(seconds.values())
        print(
            f"evaluate  {name}: {seconds['train']:.1f} s an epoch, {seconds['evaluate']:.1f} s for "
            f"{sum(map(len, evals.values()))} images, share {share:.1%}; goal under 8 %"
        )


def worker(images: int) -> None:
    """One of two processes side by side: an epoch of LNL as published, begun on the starting signal."""
    torch.set_num_threads(1)
    trial = trial_of("lnl", pretrain_share=0.0, scale=0.1)
    train = load_splits(trial, None)[0].head(images)
    ours(trial, train.head(10 * BATCH))()
    engine, plan = prepared(trial, train)
    trainer = Trainer(engine, [plan], train, {}, 0, save=lambda state: None, report=lambda state: None)
    print("ready", flush=True)
    sys.stdin.readline()
    trainer.fit()
    print("done", flush=True)


def side_by_side(images: int, processes: int = 2) -> float:
    """Seconds until as many processes as cores have each done an epoch of ``images``."""
    command = [sys.executable, str(HERE / "speed.py"), "--worker", str(images)]
    pipe = subprocess.PIPE
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env) for _ in range(processes)]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
    begun = time.perf_counter()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    seconds = time.perf_counter() - begun
    for process in started:
        process.communicate()
    return seconds


def throughput(count: int, images: int) -> None:
    """Epochs an hour of LNL as published on two cores, against the plain way in one process with two threads."""
    trial = trial_of("lnl")
    train = load_splits(trial, None)[0].head(images)
    plain = PlainLNL(train.images, train.labels)

    def plainly() -> float:
        torch.set_num_threads(2)
        started = time.perf_counter()
        plain.epoch()
        return time.perf_counter() - started

    own, other = pairs(lambda: side_by_side(images), plainly, count)
    whole = FULL / images
    mine = [2 * 3600 / (value * whole) for value in own]
    theirs = [3600 / (value * whole) for value in other]
    print(
        f"LNL       two cores: {statistics.median(mine):.0f} epochs an hour against {statistics.median(theirs):.0f} "
        f"the plain way, ratio {ratio(mine, theirs)}; goal 2.5, better 3"
    )


def start() -> None:
    """Seconds until the command line answers."""
    for command in (["--help"], ["list", "methods"]):
        taken = []
        for _ in range(7):
            begun = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "debias_zoo", *command], check=True, capture_output=True, cwd=HERE.parent.parent
            )
            taken.append(time.perf_counter() - begun)
        print(f"start     debias-zoo {' '.join(command)}: {statistics.median(taken):.2f} s; goal under 0.5")


def main() -> None:
    """Measure everything, or what is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", help="start, overhead, evaluate, throughput; nothing: all")
    parser.add_argument("--images", type=int, default=12_800)
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        worker(asked.worker)
        return
    parts: dict[str, Callable[[], None]] = {
        "start": start,
        "overhead": lambda: overhead(asked.count, asked.images),
        "evaluate": evaluation,
        "throughput": lambda: throughput(asked.count, asked.images),
    }
    for name in asked.what or parts:
        parts[name]()


if __name__ == "__main__":
    main()
