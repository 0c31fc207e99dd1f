"""What methods ask of data: bias labels, groups, more than one class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from registered import Unlabelled, register

from debias_zoo.dataset import Card, Split
from debias_zoo.errors import ZooError
from debias_zoo.grid import Request, build_grid
from debias_zoo.method import Backbones, Task
from debias_zoo.methods.erm import ERM
from debias_zoo.runner import run_trial


@pytest.fixture
def unlabelled(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, Unlabelled)


@pytest.mark.usefixtures("unlabelled")
def test_data_without_bias_labels(tmp_path: Path) -> None:
    request = Request(["lnl"], ["unlabelled"], protocol="quick")
    with pytest.raises(ZooError, match="method 'lnl' needs bias labels; data set 'unlabelled' has none"):
        build_grid(request)
    (trial,) = build_grid(replace(request, methods=["erm"])).trials.values()
    result = run_trial(trial, tmp_path)
    assert result.metrics["test"]["worst_group"] is None
    assert result.metrics["test"]["accuracy"] is not None


def test_what_a_method_needs_is_asked_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    class Balancing(ERM):
        name = "balancing"
        needs_conflicting = True

    class Selecting(ERM):
        name = "selecting"
        needs_val_bias = True

    register(monkeypatch, Balancing, Selecting)
    with pytest.raises(ZooError, match="every training image of a class has one bias"):
        build_grid(Request(["balancing"], ["cmnist"]))
    with pytest.raises(ZooError, match="'selecting' needs a validation split"):
        build_grid(Request(["selecting"], ["cmnist:val=0"]))
    (trial,) = build_grid(Request(["selecting"], ["cmnist"])).trials.values()
    assert trial.supervision.level == "bias labels to select"


class OneGroup(Unlabelled):
    """Every image has one label and one bias."""

    name = "one-group"

    @property
    def card(self) -> Card:
        return Card(**{**super().card.model_dump(), "biases": ("a", "b")})

    def load(self, root: Any, split: str) -> Split:
        images = super().load(root, split).images
        return Split(images, np.zeros(40, np.int64), np.ones(40, np.int64))


def test_one_class_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, OneGroup)
    for method in ("lnl", "erm"):
        with pytest.raises(ZooError, match="'one-group' has 1 class in its training split; there must be two"):
            build_grid(Request([method], ["one-group"], protocol="quick"))


def test_methods_that_see_groups_are_built_on_those_of_the_training_split(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Task] = []

    class Counting(ERM):
        name = "counting"
        sees_bias = True

        def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
            super().__init__(backbones, task, config)
            seen.append(task)

    register(monkeypatch, Counting)
    build_grid(Request(["counting"], ["cmnist"]))
    counts = np.array(seen[-1].group_counts)
    assert counts.sum() == seen[-1].train_size == 54_000
    assert (np.diag(counts) == counts.sum(1)).all()


@pytest.mark.parametrize(
    ("labels", "biases", "words"),
    [
        ([0, 1] * 10, None, "which in 'made' is 'val'; it has none"),
        ([0] * 20, [0, 1] * 10, "it has no image of class two"),
        ([0, 1] * 10, [0, 1] * 10, "every class has one bias there"),
    ],
)
def test_a_validation_split_that_fits_no_last_layer_is_refused_before_training(
    labels: list[int], biases: list[int] | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Made(Unlabelled):
        name = "made"

        @property
        def card(self) -> Card:
            changed = {"classes": ("one", "two"), "aligned": ((0,), (1,)), "biases": ("a", "b")}
            return Card(**{**super().card.model_dump(), **changed, "eval_splits": ("val", "test")})

        def load(self, root: Any, split: str) -> Split:
            images = super().load(root, "train").images[:20]
            if split == "val":
                return Split(images, np.array(labels), None if biases is None else np.array(biases))
            return Split(images, np.arange(20) % 2, np.arange(20) // 2 % 2)

        def fingerprint(self, root: Any) -> str:
            return str((labels, biases))  # what was read once is remembered under it

    register(monkeypatch, Made)
    with pytest.raises(ZooError, match=words):
        build_grid(Request(["dfr"], ["made"], protocol="quick"))
