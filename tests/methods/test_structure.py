"""What every method is made of: its stages with their shares, its updates, the networks it asks for, what it logs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from replicas import make_batch, make_method, make_task

from debias_zoo.backbones import Backbone, BackboneFactory
from debias_zoo.method import Clock, Method
from debias_zoo.registry import load_method, names

MAIN = ("", "main", True)
PLAIN = [("main", 1.0, (), [("main", ("main",), {"loss"})])]


@dataclass(frozen=True)
class Structure:
    """Stages as (name, share of the epochs, submodules that start anew, updates), an update as (loss, optimizers that
    step, numbers that are logged); networks as (name or "" for the run's own, role, whether with a classifier).
    """

    stages: list[tuple[str, float, tuple[str, ...], list[tuple[str, tuple[str, ...], set[str]]]]] = field(
        default_factory=lambda: PLAIN
    )
    networks: list[tuple[str, str, bool]] = field(default_factory=lambda: [MAIN])


UNLEARNING = [
    ("pretrain", 0.5, (), [("pretrain", ("net",), {"loss"})]),
    (
        "unlearn",
        0.5,
        (),
        [("classify", ("net",), {"loss", "entropy"}), ("unlearn", ("net", "bias"), {"loss"})],
    ),
]
SIMPLE = ("simple_convnet", "biased", True)

STRUCTURES = {
    "erm": Structure(),
    "gray": Structure(),
    "blindeye": Structure(
        [
            ("pretrain", 0.5, (), [("pretrain", ("net",), {"loss"})]),
            (
                "unlearn",
                0.5,
                (),
                [("recognise", ("bias",), {"loss"}), ("confuse", ("net",), {"loss", "confusion"})],
            ),
        ]
    ),
    "lnl": Structure(UNLEARNING),
    "lnl_adaptive": Structure(UNLEARNING),
    "rebias": Structure(
        [
            (
                "main",
                1.0,
                (),
                [("biased", ("biased",), {"loss", "hsic"}), ("debiased", ("net",), {"loss", "hsic"})],
            )
        ],
        [MAIN, SIMPLE],
    ),
    "rubi": Structure(
        [("main", 1.0, (), [("biased", ("biased",), {"loss"}), ("debiased", ("main",), {"loss", "mask"})])],
        [MAIN, SIMPLE],
    ),
    "rubi_label": Structure([("main", 1.0, (), [("main", ("main",), {"loss", "mask"})])]),
    "hex": Structure(networks=[("", "main", False)]),
    "group_dro": Structure([("main", 1.0, (), [("main", ("main",), {"loss", "worst_group"})])]),
    "feature_sieve": Structure(
        [
            (
                "main",
                1.0,
                (),
                [("identify", ("aux",), {"loss"}), ("forget", ("forget",), {"loss"}), ("main", ("main",), {"loss"})],
            )
        ]
    ),
    "dedier": Structure(),
    "dedier_gdro": Structure(),
    "denetdm": Structure(
        [
            ("experts", 0.5, (), [("experts", ("experts",), {"loss"})]),
            ("target", 0.5, (), [("target", ("target",), {"loss", "product", "distillation"})]),
        ],
        [MAIN, ("", "deep", False)],
    ),
    "upweight": Structure(),
    "subsample": Structure(),
    "lff": Structure(
        [("main", 1.0, (), [("both", ("biased", "net"), {"loss", "task_loss", "weight"})])],
        [MAIN, ("", "biased", True)],
    ),
    "jtt": Structure(
        [
            ("identify", 0.2, (), [("identify", ("main",), {"loss", "errors"})]),
            ("retrain", 0.8, ("net",), [("retrain", ("main",), {"loss"})]),
        ]
    ),
    "dfa": Structure(
        [
            ("disentangle", 0.2, (), [("disentangle", ("net", "biased"), {"loss", "bias_loss", "weight"})]),
            ("swap", 0.8, (), [("swap", ("net", "biased"), {"loss", "bias_loss", "swapped", "weight"})]),
        ],
        [("", "main", False), ("", "biased", False)],
    ),
    "lc": Structure(
        [("main", 1.0, (), [("both", ("biased", "net"), {"loss", "task_loss", "conflicting"})])],
        [MAIN, ("", "biased", True)],
    ),
    "end": Structure([("main", 1.0, (), [("main", ("main",), {"loss", "apart", "together"})])]),
    "dfr": Structure(),
    "spectral_decoupling": Structure([("main", 1.0, (), [("main", ("main",), {"loss", "penalty"})])]),
    "learned_mixin": Structure(
        [
            ("biased", 0.06, (), [("biased", ("biased",), {"loss"})]),
            ("debiased", 0.94, (), [("debiased", ("debiased",), {"loss", "gate"})]),
        ],
        [MAIN, SIMPLE],
    ),
    "pgd": Structure(
        [
            ("biased", 0.5, (), [("biased", ("main",), {"loss"})]),
            ("debiased", 0.5, (), [("debiased", ("main",), {"loss"})]),
        ]
    ),
    "domain_independent": Structure(networks=[("", "main", False)]),
    "irm": Structure(
        [
            ("anneal", 0.1, (), [("main", ("main",), {"loss", "penalty", "risk"})]),
            ("penalise", 0.9, (), [("main", ("main",), {"loss", "penalty", "risk"})]),
        ]
    ),
}


class Asked(BackboneFactory):
    """Remembers which networks it was asked for."""

    def __init__(self, cls: type[Method], shape: tuple[int, int, int], classes: int) -> None:
        super().__init__("lnl_convnet", classes, shape, "cifar", 0)
        self.cls = cls
        self.asked: list[tuple[str, str, bool]] = []

    def __call__(
        self,
        name: str | None = None,
        *,
        role: str = "main",
        head: bool = True,
        embed_dim: int | None = None,
        **options: Any,
    ) -> Backbone:
        self.asked.append((name or "", role, head))
        return super().__call__(name, role=role, head=head, embed_dim=embed_dim, **options)

    def teacher(self, role: str) -> Method:
        taught: Method = make_method(self.cls.teachers[role])
        return taught.eval().requires_grad_(False)


def moment(stage: str) -> Clock:
    return Clock(stage, 0, 5, 0, 10, 10)


@pytest.mark.parametrize("name", names("method"))
def test_a_method_is_made_of_what_its_paper_says(name: str) -> None:
    cls = load_method(name)
    task = make_task(sees_bias=cls.sees_bias)
    factory = Asked(cls, task.image_shape, task.classes)
    method = cls(factory, task, cls.Config()).double().train()
    assert method.task is task
    found = []
    for stage in method.stages():
        batch = make_batch()
        batch = batch if cls.sees_bias else replace(batch, bias=None, bias_map=None)
        clock = moment(stage.name)
        updates = [(one.loss, one.steps, set(method(one.loss, batch, clock))) for one in method.updates(clock)]
        found.append((stage.name, pytest.approx(stage.share), stage.reset, updates))
    assert found == STRUCTURES[name].stages
    assert factory.asked == STRUCTURES[name].networks


@pytest.mark.parametrize("name", ["lnl", "lnl_adaptive", "blindeye", "feature_sieve", "dedier"])
@pytest.mark.parametrize("tap", [0, 2])
def test_the_tap_that_is_asked_for_is_the_one_that_is_read(name: str, tap: int) -> None:
    cls = load_method(name)
    task = make_task(dense=False, sees_bias=cls.sees_bias)
    method: Any = cls(Asked(cls, task.image_shape, task.classes), task, cls.Config(tap=tap)).double().train()
    read: list[int | None] = []
    for way in ("tap", "features_and_tap"):
        plain = getattr(method.net, way)
        setattr(method.net, way, lambda image, stage=None, plain=plain: read.append(stage) or plain(image, stage))
    batch = make_batch(dense=False)
    if name == "dedier":
        method.read(batch.image)
    else:
        for stage in method.stages()[-1:]:
            for update in method.updates(moment(stage.name)):
                method(update.loss, batch, moment(stage.name))
    assert set(read) == {tap}
