"""Several seeds as one program: each trial is what it is alone, within float tolerance, or it is trained alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from debias_zoo.course import Course
from debias_zoo.engine import Engine
from debias_zoo.method import Batch, Clock, Method, Paper
from debias_zoo.registry import load_method
from debias_zoo.stacking import together
from debias_zoo.testing.bench import Bench, from_bytes, to_bytes
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
        plans = self.bench.plans(method, self.epochs, Bench.SETTINGS if hasattr(Bench, "SETTINGS") else SETTINGS)
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


from debias_zoo.testing.bench import SETTINGS  # noqa: E402


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
    print(name, backbone, [apart(stacked[s], alone[s]) for s in SEEDS], apart(alone[0], alone[1]))
    for seed in SEEDS:
        assert apart(stacked[seed], alone[seed]) < 1e-3
        assert apart(stacked[seed], alone[(seed + 1) % 3]) > 0.1
