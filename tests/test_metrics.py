from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debias_zoo.errors import ZooError
from debias_zoo.metrics import METRICS, group_metrics, known_metrics, wilson
from debias_zoo.trial import Groups

GROUPS = Groups(
    classes=("a", "b", "c"),
    biases=("p", "q", "r", "s"),
    aligned=((0,), (1,), (2, 3)),
    train=((50, 1, 0, 0), (2, 40, 0, 0), (3, 0, 20, 20)),
)


def test_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    biases = np.array([0, 0, 1, 1, 0, 2, 3, 0])
    predicted = np.array([0, 1, 0, 1, 0, 2, 2, 1])
    found = group_metrics(predicted, labels, biases, GROUPS)
    # groups (0,0) 1/2, (0,1) 1/1, (1,1) 1/1, (1,0) 0/1, (2,2) 1/1, (2,3) 1/1, (2,0) 0/1
    assert found["accuracy"] == pytest.approx(5 / 8)
    assert found["unbiased"] == pytest.approx((0.5 + 1 + 1 + 0 + 1 + 1 + 0) / 7)
    assert found["worst_group"] == 0
    assert found["aligned"] == pytest.approx((0.5 + 1 + 1 + 1) / 4)
    assert found["conflicting"] == pytest.approx(1 / 3)
    assert found["gap"] == pytest.approx(3.5 / 4 - 1 / 3)
    assert (found["n"], found["groups"], found["worst_n"]) == (8, 7, 1)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=60))
def test_against_a_loop(rows: list[tuple[int, int, int]]) -> None:
    labels, biases, predicted = (np.array(column) for column in zip(*rows, strict=True))
    found = group_metrics(predicted, labels, biases, GROUPS)
    groups: dict[tuple[int, int], list[bool]] = {}
    for label, bias, guess in rows:
        groups.setdefault((label, bias), []).append(guess == label)
    means = {group: sum(hits) / len(hits) for group, hits in groups.items()}
    assert found["unbiased"] == pytest.approx(sum(means.values()) / len(means))
    assert found["worst_group"] == pytest.approx(min(means.values()))
    tied = [value for (label, bias), value in means.items() if bias in GROUPS.aligned[label]]
    free = [value for (label, bias), value in means.items() if bias not in GROUPS.aligned[label]]
    assert found["aligned"] == (pytest.approx(sum(tied) / len(tied)) if tied else None)
    assert found["conflicting"] == (pytest.approx(sum(free) / len(free)) if free else None)
    assert (found["gap"] is None) == (not tied or not free)


def test_without_bias_labels_only_accuracy_is_defined() -> None:
    found = group_metrics(np.array([0, 1]), np.array([0, 0]), None, GROUPS)
    assert found["accuracy"] == 0.5
    assert all(found[name] is None for name in METRICS if name != "accuracy")


def test_an_empty_split_defines_nothing() -> None:
    empty = np.array([], dtype=np.int64)
    assert all(group_metrics(empty, empty, empty, GROUPS)[name] is None for name in METRICS)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=60))
@settings(deadline=None, max_examples=40)  # fairlearn is slow at its first call
def test_against_fairlearn(rows: list[tuple[int, int, int]]) -> None:
    from fairlearn.metrics import MetricFrame
    from sklearn.metrics import accuracy_score

    labels, biases, predicted = (np.array(column) for column in zip(*rows, strict=True))
    found = group_metrics(predicted, labels, biases, GROUPS)
    frame = MetricFrame(
        metrics=accuracy_score, y_true=labels, y_pred=predicted, sensitive_features={"label": labels, "bias": biases}
    )
    by_group = frame.by_group.dropna()  # fairlearn lists the groups without images as NaN
    shares = np.array([GROUPS.train[label][bias] for label, bias in by_group.index])  # type: ignore[index]
    tied = np.array([bias in GROUPS.aligned[label] for label, bias in by_group.index])
    values = by_group.to_numpy(dtype=float)
    assert found["accuracy"] == pytest.approx(frame.overall)
    assert found["unbiased"] == pytest.approx(values.mean())
    assert found["worst_group"] == pytest.approx(values.min())
    assert found["aligned"] == (pytest.approx(values[tied].mean()) if tied.any() else None)
    assert found["conflicting"] == (pytest.approx(values[~tied].mean()) if not tied.all() else None)
    weighted = pytest.approx((values * shares).sum() / shares.sum()) if shares.sum() else None
    assert found["train_weighted"] == weighted
    assert (found["groups"], found["empty_groups"]) == (len(values), 12 - len(values))


def test_calibration_against_a_loop() -> None:
    random = np.random.default_rng(0)
    labels, biases = random.integers(0, 3, 500), random.integers(0, 4, 500)
    predicted = np.where(random.random(500) < 0.7, labels, random.integers(0, 3, 500))
    log_odds = random.normal(1.0, 2.0, 500).astype(np.float16)
    confidence = 1 / (1 + np.exp(-log_odds.astype(np.float64)))

    def error(rows: npt.NDArray[np.bool_]) -> float:
        total = 0.0
        for low in range(15):
            inside = rows & (confidence > low / 15) & (confidence <= (low + 1) / 15)
            if inside.any():
                right = (predicted == labels)[inside].mean()
                total += inside.sum() * abs(right - confidence[inside].mean())
        return total / rows.sum()

    found = group_metrics(predicted, labels, biases, GROUPS, log_odds)
    assert found["ece"] == pytest.approx(error(np.ones(500, dtype=bool)))
    groups = [(labels == label) & (biases == bias) for label in range(3) for bias in range(4)]
    assert found["ece_worst"] == pytest.approx(max(error(rows) for rows in groups))
    assert found["auroc"] is None, "there are three classes"


def test_auroc_against_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    two = Groups(classes=("a", "b"), biases=("p", "q"), aligned=((0,), (1,)))
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 300)
    second = random.normal(labels * 0.8, 1.0)  # log odds of the second class
    predicted, log_odds = (second > 0).astype(np.int64), np.abs(second)
    found = group_metrics(predicted, labels, labels, two, log_odds)
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, second))
    assert found["train_weighted"] is None, "the training images have no bias labels"
    one_class = group_metrics(predicted[labels == 1], labels[labels == 1], None, two, log_odds[labels == 1])
    assert one_class["auroc"] is None


@pytest.mark.parametrize(("right", "n"), [(0, 10), (3, 10), (10, 10), (250, 1000)])
def test_wilson_against_scipy(right: int, n: int) -> None:
    from scipy.stats import binomtest

    expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson(right, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert wilson(0, 0) == (0.0, 1.0)


def test_unknown_metrics_are_refused() -> None:
    assert known_metrics(["ece", "accuracy", "ece"]) == ("ece", "accuracy")
    with pytest.raises(ZooError, match="unknown metric 'acuracy'; did you mean 'accuracy'"):
        known_metrics(["acuracy"])
