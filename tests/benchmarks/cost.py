"""What a training step of every method costs over ERM's: counted passes beside the measured time.

Hooks count how often each stage of a network, and each head, runs forward and backward in a step, and which gradients a
backward gives (of the input, of the weights). Each of these runs is then timed alone, on an input it got. Predicted is
the sum of these times over the same sum for ERM, with what ERM's step takes besides (the batch, the loss, the
optimizer) added to both. What a method does outside of its networks is not predicted: it shows as the difference.

It is the cost of a step, at the end of each stage: epochs of other lengths and what happens between them are not in it.

One thread, in processor seconds; everything is timed in turn, several times, and medians are printed.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from debias_zoo.assembly import build_method, dataset_of
from debias_zoo.backbones import Backbone
from debias_zoo.dataset import Split
from debias_zoo.devices import default_precision
from debias_zoo.engine import DeviceSplit, Engine
from debias_zoo.errors import ZooError
from debias_zoo.grid import Request, build_grid
from debias_zoo.method import Batch, Clock, Method, Update
from debias_zoo.nets import StagedNet
from debias_zoo.plans import plan_stages
from debias_zoo.registry import entries, load_method
from debias_zoo.runner import load_splits
from debias_zoo.testing.bench import Moment
from debias_zoo.trainer import Trainer, task_of
from debias_zoo.trial import Trial

BASELINE = "erm"
BATCH = 128
STEPS = 10
"""Steps that are timed at once: what a method does at every fifth step is in it twice."""

REHEARSAL = 10 * BATCH
"""Images of the short runs that bring each method to the end of each of its stages."""

EPOCHS = 5
"""Of these runs, all stages together."""

BACKBONES = {"cmnist": None, "cmnist-lff": "lnl_convnet"}
"""None: the data set's own, which is LNL's net as well."""

MARKED = 0.15
"""Rows whose measured cost is further than this from the predicted one are marked."""

PRECISION = default_precision("cpu")


class Kind(NamedTuple):
    """What runs of one part in one way share: they take the same time."""

    module: str  # its repr
    inputs: tuple[Any, ...]
    grad: bool
    autocast: bool
    training: bool
    backward: tuple[bool, tuple[str, ...]] | None = None  # gradient of the input?, parameters with a gradient


class Sample(NamedTuple):
    """A part, inputs it got and, for a backward, gradients of its outputs: by layout as they came."""

    module: nn.Module
    inputs: tuple[Any, ...]
    grads: dict[int, Tensor]  # by place among the outputs


class Run(NamedTuple):
    """A part that runs; ``images``: how many."""

    part: str
    kind: Kind
    images: int


# --- counting ---------------------------------------------------------------------------------------------------------


def parts_of(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The disjoint modules that are counted: stages and classifiers of networks, and every other module as a whole."""
    opened = isinstance(module, Method | Backbone | StagedNet) or type(module).forward is nn.Module.forward
    model = path.endswith(".model") and not isinstance(module, nn.Sequential)
    if opened or model or any(isinstance(child, Backbone) for child in module.modules()):
        for name, child in module.named_children():
            yield from parts_of(child, f"{path}.{name}" if path else name)
    elif not isinstance(module, nn.Identity):
        yield path, module


def network_of(part: str) -> str:
    """The network or head that a part belongs to: ``net``, ``biased``, ``teacher.net``."""
    first, *names = part.split(".")
    ends = [k for k, name in enumerate(names) if name in {"normalize", "model", "embed", "classifier"}]
    return ".".join([first, *names[: ends[0]]] if ends else [first])


class CountingEngine(Engine):
    """Counts every forward and backward of every part, and keeps a sample of each kind."""

    def __init__(self, method: Method, samples: dict[Kind, Sample]) -> None:
        super().__init__(method, precision=PRECISION)
        self.runs: Counter[Run] = Counter()
        self.samples = samples
        self._stepped: set[int] = set()
        self._backwards = 0
        for name, part in parts_of(self.method):
            part.register_forward_hook(partial(self._forward, name, copy.deepcopy(part)))

    def backward(self, update: Update, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        self._stepped = {id(parameter) for parameter in self.stepped(update)}
        self._backwards += 1
        return super().backward(update, batch, clock)

    def _forward(self, name: str, alone: nn.Module, part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        tensors = [value for value in inputs if isinstance(value, Tensor)]
        shapes = tuple((tuple(value.shape), value.dtype, value.requires_grad) for value in tensors)
        modes = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), part.training
        run = Run(name, Kind(repr(part), shapes, *modes), len(tensors[0]))
        self.runs[run] += 1
        if run.kind not in self.samples:
            self.samples[run.kind] = Sample(alone, tuple(map(_detached, inputs)), {})
        seen: dict[int, Run] = {}  # the backward runs that belong to this forward, by backward
        for place, value in enumerate(_tensors(output)):
            if value.requires_grad:
                value.register_hook(partial(self._backward, run, part, seen, place))
        for value in tensors:
            if value.requires_grad and not value.is_leaf:
                value.register_hook(lambda _: self._input_reached(seen))

    def _backward(self, run: Run, part: nn.Module, seen: dict[int, Run], place: int, grad: Tensor) -> None:
        self.samples[run.kind].grads.setdefault(place, grad.detach())
        if self._backwards not in seen:
            own = tuple(name for name, value in part.named_parameters() if id(value) in self._stepped)
            self._note(run._replace(kind=run.kind._replace(backward=(False, own))), seen)

    def _input_reached(self, seen: dict[int, Run]) -> None:
        run = seen.get(self._backwards)
        if run is not None and run.kind.backward is not None and not run.kind.backward[0]:
            self.runs[run] -= 1
            self._note(run._replace(kind=run.kind._replace(backward=(True, run.kind.backward[1]))), seen)

    def _note(self, run: Run, seen: dict[int, Run]) -> None:
        seen[self._backwards] = run
        self.runs[run] += 1


def _detached(value: Any) -> Any:
    return value.detach().clone().requires_grad_(value.requires_grad) if isinstance(value, Tensor) else value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


# --- timing -----------------------------------------------------------------------------------------------------------


def alone(kind: Kind, sample: Sample) -> Callable[[], object]:
    """A call that runs a sample once, forward or backward."""
    module = sample.module.train(kind.training)
    if hasattr(module, "inplace"):
        module.inplace = False  # or it would write over the sample

    def forward() -> object:
        with torch.autocast("cpu", torch.bfloat16, enabled=kind.autocast), torch.set_grad_enabled(kind.grad):
            return module(*sample.inputs)

    if kind.backward is None:
        return forward
    given, names = kind.backward
    wanted = [value for value in sample.inputs if given and isinstance(value, Tensor) and value.requires_grad]
    wanted += [value for name, value in module.named_parameters() if name in names]
    outputs = [value for place, value in enumerate(_tensors(forward())) if place in sample.grads]
    grads = [grad for _, grad in sorted(sample.grads.items())]
    if not wanted:
        return lambda: None
    return lambda: torch.autograd.grad(outputs, wanted, grads, retain_graph=True, allow_unused=True)


@dataclass
class Cost:
    """What one kind of run takes, each time it was asked."""

    kind: Kind
    sample: Sample
    seconds: list[float] = field(default_factory=list)

    def again(self) -> None:
        """Time it once more, for about a hundredth of a second; nothing is kept but the seconds."""
        call = alone(self.kind, self.sample)
        call()
        repeats = max(1, round(0.01 / max(_seconds(call, 1), 1e-5)))
        self.seconds.append(_seconds(call, repeats))

    @property
    def median(self) -> float:
        """Seconds of one run."""
        return statistics.median(self.seconds)


def _seconds(call: Callable[[], object], repeats: int) -> float:
    started = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - started) / repeats


# --- methods ----------------------------------------------------------------------------------------------------------


class Rehearsal(Engine):
    """Keeps the method before the last epoch that had these updates, for each stage and set of updates."""

    def __init__(self, method: Method) -> None:
        super().__init__(method, precision=PRECISION)
        self.moments: dict[tuple[str, ...], Moment] = {}
        self._epoch: tuple[str, int] | None = None

    def step(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        if self._epoch != (clock.stage, clock.epoch):
            losses = dict.fromkeys(update.loss for update in self.method.updates(clock))
            self.moments[clock.stage, *losses] = Moment(copy.deepcopy(self.method), clock, self._settings)
        self._epoch = clock.stage, clock.epoch
        return super().step(batch, clock)


@dataclass
class Stage:
    """One stage of one method, or what it does in some epochs of it: what a step runs, and how long it took."""

    label: str
    data: str
    moment: Moment
    view: DeviceSplit
    runs: Counter[Run] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    def steps(self, engine: Engine, count: int = STEPS) -> None:
        """So many steps, each on its own batch."""
        for step in range(count):
            rows = torch.arange(step * BATCH, (step + 1) * BATCH) % len(self.view)
            batch = self.view.batch(rows, torch.Generator().manual_seed(step))
            engine.step(batch, replace(self.moment.clock, step=self.moment.clock.step + step))

    def count(self, samples: dict[Kind, Sample]) -> None:
        """Find out what a step runs."""
        engine = CountingEngine(copy.deepcopy(self.moment.method), samples)
        engine.build_optimizers(self.moment.settings)
        engine.method.train()
        self.steps(engine)
        self.runs = Counter({run: times for run, times in engine.runs.items() if times})

    def timed(self) -> float:
        """Seconds of a step, of a fresh copy that is warm."""
        engine = self.moment.engine(precision=PRECISION)
        engine.method.train()
        self.steps(engine, 2)
        started = time.process_time()
        self.steps(engine)
        return (time.process_time() - started) / STEPS

    def counted(self, costs: Mapping[Kind, Cost]) -> float:
        """Seconds of a step by its runs."""
        return sum(times / STEPS * costs[run.kind].median for run, times in self.runs.items())


@lru_cache(maxsize=2)
def splits_of(data: str) -> tuple[Split, dict[str, Split]]:
    """The first images of a data set's splits."""
    (trial,) = build_grid(Request([BASELINE], [data])).trials.values()
    train, evals = load_splits(trial, None)
    return train.head(REHEARSAL), {name: split.head(4 * BATCH) for name, split in evals.items()}


def stages_of(name: str) -> list[Stage]:
    """The stages of a method on Colored MNIST; where it needs conflicting images, on LfF's with the same network."""
    try:
        return stages_on(name, "cmnist")
    except ZooError:
        return stages_on(name, "cmnist-lff")


def stages_on(name: str, data: str) -> list[Stage]:
    """The stages of a method, found by a short run."""
    sets = [(name, "train.batch_size", BATCH), (name, "train.epochs", EPOCHS)]
    grid = build_grid(Request([name], [data], backbone=BACKBONES[data], sets=sets))
    trial = grid.trials[grid.asked[0]]
    train, evals = splits_of(data)
    engine = Rehearsal(build(trial, train))
    Trainer(engine, plan_stages(engine.method, trial.settings, trial.stages), train, evals, 0).fit()
    view = DeviceSplit(train, engine.device, engine.method.sees_bias)
    stages = Counter(stage for stage, *_ in engine.moments)
    return [
        Stage(f"{name} {stage}" + (f" ({', '.join(losses)})" if stages[stage] > 1 else ""), data, moment, view)
        for (stage, *losses), moment in engine.moments.items()
    ]


def build(trial: Trial, train: Split) -> Method:
    """The method of a trial, its teachers untrained: they cost the same."""
    card = dataset_of(trial).card
    teachers = {role: build(needed, train).eval().requires_grad_(False) for role, needed in trial.needs.items()}
    sees = load_method(trial.method).sees_bias
    task = task_of(train, len(card.classes), len(card.biases), card.bias_parts, card.bias_map, sees)
    return build_method(trial, task, dict(teachers))


# --- the table --------------------------------------------------------------------------------------------------------


def passes(stage: Stage, base: Stage, costs: Mapping[Kind, Cost]) -> str:
    """``net 1.77/1.52, bias 2.00/2.00``: forward and backward passes of each network a step.

    A part of a network counts by its share in the time of a whole pass of it, which for ``net`` is the baseline's.
    """
    times: dict[tuple[str, bool], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    whole: dict[tuple[str, bool], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for run, count in [*stage.runs.items(), *dict.fromkeys(base.runs, 0).items()]:
        key = network_of(run.part), run.kind.backward is not None
        times[key][run.part] += count / STEPS * run.images / BATCH
        whole[key][run.part] = max(whole[key][run.part], costs[run.kind].median * BATCH / run.images)

    def share(*key: Any) -> float:
        total = sum(whole[key].values())
        return sum(times[key][part] * cost for part, cost in whole[key].items()) / total if total else 0.0

    networks = dict.fromkeys(network for network, _ in times)
    return ", ".join(f"{network} {share(network, False):.2f}/{share(network, True):.2f}" for network in networks)


def measure(stages: list[Stage], baselines: Mapping[str, Stage], rounds: int) -> dict[Kind, Cost]:
    """Count, then time everything in turn, ``rounds`` times; each stage right after its baseline."""
    samples: dict[Kind, Sample] = {}
    kinds: dict[Kind, None] = {}
    for stage in [*baselines.values(), *stages]:
        stage.count(samples)
        kinds.update(dict.fromkeys(run.kind for run in stage.runs))
    costs = {kind: Cost(kind, samples[kind._replace(backward=None)]) for kind in kinds}
    for _ in range(rounds):
        for stage in stages:
            base = baselines[stage.data]
            base.seconds.append(base.timed())
            stage.seconds.append(stage.timed())
            stage.ratios.append(stage.seconds[-1] / base.seconds[-1])
        for cost in costs.values():
            cost.again()
    return costs


def main() -> None:
    """Measure all methods, or those named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="nothing: all")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    stages: list[Stage] = []
    for name in asked.methods or entries("method"):
        try:
            stages += stages_of(name)
        except ZooError as error:
            print(f"{name}: {error}")
    baselines = {data: stages_on(BASELINE, data)[0] for data in {stage.data for stage in stages}}
    costs = measure(stages, baselines, asked.rounds)
    report(stages, baselines, costs)


def report(stages: list[Stage], baselines: Mapping[str, Stage], costs: Mapping[Kind, Cost]) -> None:
    """Print the table."""
    print(f"{'method, stage':34} {'data':11} predicted measured  differs  passes forward/backward of its networks")
    for stage in stages:
        base = baselines[stage.data]
        rest = max(0.0, statistics.median(base.seconds) - base.counted(costs))
        predicted = (stage.counted(costs) + rest) / (base.counted(costs) + rest)
        measured = statistics.median(stage.ratios)
        off = measured / predicted - 1.0
        mark = "*" if abs(off) > MARKED else " "
        numbers = f"{predicted:9.2f} {measured:8.2f} {off:+8.0%}{mark}"
        print(f"{stage.label:34} {stage.data:11} {numbers} {passes(stage, base, costs)}")
    for data, base in baselines.items():
        whole, inside = statistics.median(base.seconds) * 1e3, base.counted(costs) * 1e3
        print(
            f"{BASELINE} on {data}: {whole:.1f} ms a step of {BATCH} images in {PRECISION}, {inside:.1f} in its network"
        )
    print(f"*: measured and predicted differ by more than {MARKED:.0%}")


if __name__ == "__main__":
    main()
