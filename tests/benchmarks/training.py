"""``make bench``: how near training comes to what the machine can do, by backbone, precision and number of threads.

Three things are timed in turn, several times, and ratios are taken round by round, since the speed of a machine drifts:
steps of ERM through the trainer, a large matrix product of the same type, and the products of one such step (its
convolutions and matrix products, forward and backward, with the very tensors they got) run alone.

- GFLOP/s counts those products alone, as ``torch.utils.flop_counter`` does.
- of matmul: that rate over the rate of the large matrix product.
- of products: the time of the products alone over the time of a step: the share of the attainable convolution rate.
- outside: the share of a step that is neither forward, backward nor optimizer: gathering images, seeds, sums, clocks.

One thread is timed in processor seconds, which others on the machine hardly touch; two are timed by the wall clock, and
mean something only where both cores are free.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")  # the most any part of this uses
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from debias_zoo.arrays import STANDARD as IMAGES
from debias_zoo.assembly import dataset_of
from debias_zoo.backbones import BackboneFactory
from debias_zoo.course import Course
from debias_zoo.dataset import Split
from debias_zoo.devices import keep_freed_memory
from debias_zoo.engine import Engine, usual_layout
from debias_zoo.grid import Request, build_grid
from debias_zoo.layouts import measure
from debias_zoo.method import Batch, Clock, Update
from debias_zoo.plans import StagePlan, plan_stages
from debias_zoo.protocol import Settings
from debias_zoo.registry import load_method
from debias_zoo.stacking import Stacker
from debias_zoo.trainer import Fit, Trainer, task_of

CLASSES = 10
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
GOAL_PRODUCTS, GOAL_OUTSIDE = 0.50, 0.03
"""Of the net in ``GOALS``."""


@dataclass(frozen=True)
class Case:
    """A backbone as it is trained: the size of its images, its settings, and steps that are timed at once."""

    backbone: str
    size: int
    settings: Settings
    steps: int
    options: Mapping[str, Any] = field(default_factory=dict)

    def split(self) -> Split:
        """Images drawn at random, as many as the timed steps take."""
        random = np.random.default_rng(0)
        count = self.steps * (self.settings.batch_size or 1)
        images = random.integers(0, 256, (count, self.size, self.size, 3), np.uint8)
        return Split(images, random.integers(0, CLASSES, count), None)

    def engine(self, precision: str, seed: int = 0, kind: type[Engine] = Engine) -> Engine:
        """ERM on this backbone, with the stage's optimizers."""
        shape = (3, self.size, self.size)
        factory = BackboneFactory(self.backbone, CLASSES, shape, "none", seed, dict(self.options))
        erm = load_method("erm")
        engine = kind(erm(factory, task_of(self.split(), CLASSES, 0, (), None, False), erm.Config()), "cpu", precision)
        engine.build_optimizers(self.settings)
        engine.method.train()
        return engine

    def plan(self, engine: Engine) -> StagePlan:
        """One epoch."""
        (plan,) = plan_stages(engine.method, self.settings, {})
        return StagePlan(plan.stage, 1, plan.settings)


def standard(dataset: str) -> Settings:
    """The standard settings of a bundled data set."""
    (trial,) = build_grid(Request(["erm"], [dataset])).trials.values()
    return dataset_of(trial).card.training["standard"]


def cases() -> dict[str, Case]:
    """What is measured: Colored MNIST's net, the MLP of LfF's, and a ResNet-18 on images of 64 pixels."""
    return {
        "lnl_convnet": Case("lnl_convnet", 28, standard("cmnist"), 40),
        "mlp": Case("mlp", 28, standard("cmnist-lff"), 100, {"depth": 3, "width": 100}),
        "resnet18": Case("resnet18", 64, IMAGES, 3),
    }


GOALS = "lnl_convnet"


def now() -> float:
    """Seconds: of the processor with one thread, of the wall clock with more."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


class PartsEngine(Engine):
    """Adds up the seconds of forward, backward and optimizer."""

    inside = 0.0

    def backward(self, update: Update, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        started = now()
        found = super().backward(update, batch, clock)
        self.inside += now() - started
        return found

    def apply(self, update: Update) -> None:
        started = now()
        super().apply(update)
        self.inside += now() - started


class Products(TorchDispatchMode):
    """Keeps every product of what runs under it, with its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in flop_registry:
            kept = tuple(arg.detach().clone() if isinstance(arg, Tensor) else arg for arg in args)  # strides are kept
            self.calls.append((func, kept, kwargs or {}))
        return func(*args, **(kwargs or {}))

    def again(self) -> float:
        """Seconds of all of them."""
        started = now()
        with torch.no_grad():
            for func, args, kwargs in self.calls:
                func(*args, **kwargs)
        return now() - started


def matmul_rate(kind: torch.dtype, size: int = 2048, count: int = 3) -> float:
    """FLOP/s of a large matrix product."""
    a, b = torch.randn(size, size, dtype=kind), torch.randn(size, size, dtype=kind)
    a @ b
    started = now()
    for _ in range(count):
        a @ b
    return 2.0 * size**3 * count / (now() - started)


def example(case: Case) -> tuple[Batch, Clock]:
    """A batch as the trainer makes it."""
    split, size = case.split(), case.settings.batch_size or 1
    return Trainer(case.engine("fp32"), [], split, {}, 0).train.batch(torch.arange(size), torch.Generator()), Clock(
        "main", 0, 1, 0, case.steps, case.steps
    )


def rates(case: Case, precision: str, rounds: int) -> str:
    """One row of the table."""
    batch, clock = example(case)
    engine = case.engine(precision)
    with Products() as products, FlopCounterMode(display=False) as counter:
        engine.step(batch, clock)
    flops = float(counter.get_total_flops())
    split, images = case.split(), case.steps * (case.settings.batch_size or 1)
    found: list[tuple[float, ...]] = []
    for k in range(rounds + 1):
        watched = case.engine(precision, kind=PartsEngine)
        assert isinstance(watched, PartsEngine)
        trainer = Trainer(watched, [case.plan(watched)], split, {}, 0)
        started = now()
        trainer.fit()
        seconds = now() - started
        alone = statistics.median(products.again() for _ in range(max(3, case.steps // 4)))
        rate, peak = flops * case.steps / seconds, matmul_rate(PRECISIONS[precision])
        if k:  # the first round warms up
            outside = 1.0 - watched.inside / seconds
            found.append((images / seconds, rate / 1e9, rate / peak, alone * case.steps / seconds, outside))
    speed, gflops, of_matmul, of_products, outside = map(statistics.median, zip(*found, strict=True))
    return f"{speed:9.0f} {gflops:9.1f} {of_matmul:9.1%} {of_products:11.1%} {outside:8.1%}"


def report_rates(chosen: Mapping[str, Case], rounds: int, threads: tuple[int, ...]) -> None:
    """Print the table."""
    print(f"{'backbone':12} precision threads  images/s   GFLOP/s of matmul of products  outside")
    for name, case in chosen.items():
        for precision in PRECISIONS:
            for count in threads:
                torch.set_num_threads(count)
                print(f"{name:12} {precision:9} {count:7} {rates(case, precision, rounds)}", flush=True)
    if GOALS in chosen:
        print(f"goals for {GOALS}: of products at least {GOAL_PRODUCTS:.0%}, outside under {GOAL_OUTSIDE:.0%}")


def report_layouts(chosen: Mapping[str, Case]) -> None:
    """Milliseconds of a step in every layout, seconds until a compiled one runs, and after how many steps that pays."""
    torch.set_num_threads(1)
    print(f"{'backbone':12} precision layout                    ms a step  starts in  pays after")
    for name, case in chosen.items():
        for precision in PRECISIONS:
            engine = case.engine(precision)
            images, usual = case.split().head(case.settings.batch_size), usual_layout(engine.method)
            torch.compiler.reset()
            found = measure(lambda case=case: case.engine("fp32").method, case.plan(engine), images, "cpu", precision)
            base = found[usual.name]
            for layout, timing in found.items():
                gain = base.step - timing.step
                after = f"{max(timing.start - base.start, 0.0) / gain:.0f} steps" if gain > 0.0 else "never"
                pays = "the usual one" if layout == usual.name else after
                numbers = f"{timing.step * 1e3:9.1f} {timing.start:8.1f} s  {pays}"
                print(f"{name:12} {precision:9} {layout:25} {numbers}", flush=True)


def report_stacked(rounds: int, seeds: int = 4) -> None:
    """Images a second of several seeds one after the other, and as one program; one thread."""
    torch.set_num_threads(1)
    print(f"{'backbone':14} precision batch  seeds  separate   stacked  stacked / separate")
    small = standard("cmnist-lff")
    tiny = Settings(batch_size=32).over(small)
    for case in (
        Case("mlp", 28, small, 20, {"depth": 3, "width": 100}),
        Case("mlp", 28, tiny, 60, {"depth": 3, "width": 100}),
        Case("lnl_convnet", 28, standard("cmnist"), 4),
        Case("simple_convnet", 28, Settings(batch_size=32).over(standard("biased-mnist")), 1, {"kernel": 3}),
    ):
        for precision in PRECISIONS:
            pairs = [(run_seeds(case, precision, seeds, False), run_seeds(case, precision, seeds, True))]
            pairs += [
                (run_seeds(case, precision, seeds, False), run_seeds(case, precision, seeds, True))
                for _ in range(rounds)
            ]
            size = case.settings.batch_size or 1
            images = seeds * case.steps * size
            separate, stacked = (images / statistics.median(pair[k] for pair in pairs[1:]) for k in (0, 1))
            ratio = statistics.median(pair[0] / pair[1] for pair in pairs[1:])
            numbers = f"{size:5} {seeds:6} {separate:9.0f} {stacked:9.0f} {ratio:18.2f}"
            print(f"{case.backbone:14} {precision:9} {numbers}", flush=True)


def run_seeds(case: Case, precision: str, seeds: int, stacked: bool) -> float:
    """Seconds of an epoch of each seed, without what a stack proves at its first step."""
    split = case.split()

    def course(seed: int) -> Course[Fit]:
        engine = case.engine(precision, seed)
        return Trainer(engine, [case.plan(engine)], split, {}, seed).course()

    courses = [course(seed) for seed in range(seeds)]
    stacker = Stacker(print)
    steps = [next(each) for each in courses]
    if stacked:
        stacker.prove(steps)
    started = now()
    for _ in range(case.steps):
        made = stacker.make(steps) if stacked else [step.make for step in steps]
        done = [make() for make in made]
        with suppress(StopIteration):
            steps = [each.send(one) for each, one in zip(courses, done, strict=True)]
    return now() - started


def main() -> None:
    """Measure everything, or what is named."""
    known = cases()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="rates, layouts, stacked; nothing: rates and stacked")
    parser.add_argument("--backbones", default=",".join(known), help=f"of {', '.join(known)}")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    keep_freed_memory()
    chosen = {name: known[name] for name in asked.backbones.split(",")}
    threads = tuple(int(count) for count in asked.threads.split(","))
    parts: dict[str, Callable[[], None]] = {
        "rates": lambda: report_rates(chosen, asked.rounds, threads),
        "layouts": lambda: report_layouts(chosen),  # minutes of compiling
        "stacked": lambda: report_stacked(asked.rounds),
    }
    for name in asked.what or ("rates", "stacked"):
        parts[name]()


if __name__ == "__main__":
    main()
