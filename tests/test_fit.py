"""``fit``: one method on images at hand, as a trial of a comparison is trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from debias_zoo import Batch, Clock, Method, Split, ZooError, fit
from debias_zoo.methods.erm import ERM
from debias_zoo.metrics import METRICS, group_metrics


def made(count: int, aligned: float, seed: int = 0) -> tuple[Any, Any, Any]:
    """Images whose upper, middle or lower third is bright (the label), and in red, green or blue (the bias)."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    biases = np.where(random.random(count) < aligned, labels, random.integers(0, 3, count))
    images = random.integers(0, 60, (count, 28, 28, 3), dtype=np.uint8)
    for image, label, bias in zip(images, labels, biases, strict=True):
        image[9 * label : 9 * label + 9] += 100
        image[:, :, bias] += 60
    return images, labels, biases


TRAIN, VAL, TEST = made(240, 0.9), made(60, 0.9, 1), made(90, 0.33, 2)
QUICK: dict[str, Any] = {"backbone": "lnl_convnet", "set": {"train.epochs": 1}, "device": "cpu", "progress": False}


def test_fit_trains_measures_and_predicts() -> None:
    found = fit("lnl", TRAIN, VAL, TEST, classes=["up", "mid", "low"], precision="fp32", **QUICK)
    assert set(found.metrics) == {"val", "test"}
    assert found.classes == ("up", "mid", "low")
    assert found.groups.aligned == ((0,), (1,), (2,))
    assert [row["stage"] for row in found.curves] == ["pretrain", "unlearn"]
    logits = found.logits(TEST[0])
    assert logits.shape == (90, 3)
    assert found.features(TEST[0]).shape == (90, 64)
    np.testing.assert_allclose(found.predict(TEST[0]).sum(1), 1.0, rtol=1e-5)
    expected = group_metrics(logits.argmax(1), TEST[1], TEST[2], found.groups)
    for metric in METRICS:
        assert found.metrics["test"][metric] == pytest.approx(expected[metric])
    assert not any(parameter.requires_grad for parameter in found.model.parameters())
    assert repr(found).startswith("<Fitted: lnl, 3 classes, images of 28 x 28 with 3 channels; accuracy: val 0.")
    assert found.trial.config == type(found.model).Config().model_dump(mode="json")


def test_fit_is_the_same_again_and_leaves_random_numbers_alone() -> None:
    before = torch.random.get_rng_state()
    one = fit("erm", TRAIN, tests={"night": TEST}, **QUICK)
    assert torch.equal(torch.random.get_rng_state(), before)
    channels_first = TRAIN[0].transpose(0, 3, 1, 2), *TRAIN[1:]
    as_split = Split(TEST[0], TEST[1], TEST[2])
    other = fit("erm", channels_first, tests={"night": as_split}, **QUICK)
    assert one.metrics == other.metrics
    assert np.array_equal(one.logits(TEST[0]), other.logits(TEST[0]))
    third = fit("erm", TRAIN, tests={"night": TEST}, seed=1, **QUICK)
    assert not np.array_equal(one.logits(TEST[0]), third.logits(TEST[0]))


class Peeking(ERM):
    """Looks for bias labels, which it does not declare to see."""

    name = "peeking"
    seen: list[Tensor | None] = []

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        self.seen.append(batch.bias)
        return super().forward(loss, batch, clock)


def test_fit_takes_a_class_and_keeps_the_firewall() -> None:
    Peeking.seen.clear()
    found = fit(Peeking, TRAIN, **QUICK)
    assert isinstance(found.model, Peeking)
    assert Peeking.seen
    assert all(bias is None for bias in Peeking.seen)
    assert found.metrics == {}
    assert np.array_equal(found.logits(TEST[0]), fit("erm", TRAIN, **QUICK).logits(TEST[0]))


def test_fit_trains_teachers_first(capsys: pytest.CaptureFixture[str]) -> None:
    how = {**QUICK, "set": {"train.epochs": 1, "erm.train.epochs": 1}, "progress": True}
    found = fit("dedier", TRAIN, tests=TEST, **how)
    said = [line for line in capsys.readouterr().out.splitlines() if "done" in line]
    assert said == ["erm on given, seed 0: done", "dedier on given, seed 0: done"]
    teacher: Any = found.model.teacher
    assert isinstance(teacher, ERM)
    how |= {"set": {"train.epochs": 1}, "progress": False}
    alone = fit("erm", TRAIN, tests=TEST, **how)
    assert np.array_equal(teacher.predict(torch.zeros(1, 3, 28, 28)), alone.model.predict(torch.zeros(1, 3, 28, 28)))


class Nameless(Method):
    """Has no name."""


BAD: list[tuple[Any, dict[str, Any], str]] = [
    ("lnn", {}, "unknown method 'lnn'"),
    (Nameless, {}, "fit takes a method's name, or its class with a `name`"),
    (7, {}, "fit takes a method's name"),
    ("lnl", {"train": TRAIN[:2]}, "method 'lnl' needs bias labels; training images of 'given' have none"),
    ("dfr", {"val": None}, "needs a validation split with bias labels"),
    ("erm", {"train": TRAIN[0]}, r"train: give a Split, or \(images, labels\)"),
    ("erm", {"train": (TRAIN[0] / 255.0, TRAIN[1])}, "must be uint8"),
    ("erm", {"train": (np.zeros((4, 8, 8, 5), np.uint8), TRAIN[1][:4])}, "must have 1 or 3 channels"),
    ("erm", {"train": (TRAIN[0], TRAIN[1][:5])}, "labels has 5 rows, images 240"),
    ("erm", {"train": (TRAIN[0], TRAIN[1] - 1)}, "train: labels must be whole numbers from 0; got int64 from -1"),
    ("erm", {"train": (TRAIN[0], TRAIN[1][:, None])}, r"labels must be \(N,\), one whole number an image"),
    ("erm", {"train": (TRAIN[0], TRAIN[1] * 0)}, "1 class in its training split; there must be two"),
    ("erm", {"tests": (TEST[0], TEST[1] + 1)}, "test: label 3 has no training image; those have 0, 1, 2"),
    ("erm", {"train": (TRAIN[0], TRAIN[1] * 10**9)}, "train: labels must be 0, 1, 2, ..., below 100000; got 0, 1000"),
    ("erm", {"set": ["train.epochs=1"]}, "set: give a mapping, such as {'train.epochs': 3}"),
    ("erm", {"set": {"lr": 1}}, "'lr' is one of training: erm.train.lr"),
    ("erm", {"tests": (TEST[0][:0], TEST[1][:0])}, "test: there are no images"),
    ("erm", {"tests": (TEST[0][:, :20], TEST[1])}, r"images of 'test' are \(20, 28, 3\), those of 'train'"),
    ("erm", {"tests": {"val": TEST}}, "no test split can be called 'val'"),
    ("erm", {"classes": ["a"]}, "labels go up to 2, but there are 1 names: a"),
    ("erm", {"set": {"x": 1}}, "unknown setting of method 'erm': 'x'"),
    ("erm", {"set": {"foo.lr": 1}}, "erm has no stage 'foo'"),
    ("erm", {"set": {"train.lr": -1}}, "lr=-1"),
    ("dedier", {"set": {"train.epochs": 1, "erm.foo.lr": 1}}, "erm has no stage 'foo'"),
    ("erm", {"backbone": "nix"}, "unknown backbone 'nix'"),
    ("erm", {"normalize": "nix"}, "unknown normalisation 'nix'"),
    ("erm", {"device": "cuda:9"}, "device 'cuda:9' is not here"),
    ("erm", {"precision": "fp8"}, "unknown precision 'fp8'"),
    ("erm", {"weights": "nowhere.pt"}, "there is no such file"),
    ("erm", {"set": {"train.epochs": 1, "train.lr": 1e20}}, "a loss became NaN or infinite"),
]


@pytest.mark.parametrize(("method", "options", "words"), BAD, ids=range(len(BAD)))
def test_what_cannot_be_fitted_is_told(method: Any, options: dict[str, Any], words: str) -> None:
    given = {"train": TRAIN, "val": VAL, **QUICK, **options}
    with pytest.raises(ZooError, match=words):
        fit(method, **given)
