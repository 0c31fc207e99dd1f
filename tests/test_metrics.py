from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, roc_auc_score

from debias_zoo.errors import ZooError
from debias_zoo.metrics import ALL_METRICS, METRICS, goodness, group_metrics, known_metrics, wilson
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


TWO = Groups(classes=("no", "yes"), biases=("p", "q", "r"), aligned=((0,), (1, 2)), train=((9, 1, 0), (0, 3, 7)))

IMAGE = st.tuples(
    st.integers(0, 1), st.integers(0, 2), st.integers(0, 1), st.floats(0, 60, width=16) | st.just(float("inf"))
)


def columns(rows: list[tuple[int, int, int, float]]) -> tuple[Any, Any, Any, Any]:
    labels, biases, predicted, log_odds = (np.array(column) for column in zip(*rows, strict=True))
    return predicted, labels, biases, log_odds.astype(np.float16)


@settings(max_examples=40, deadline=None)  # fairlearn takes its time
@given(st.lists(IMAGE, min_size=1, max_size=40))
def test_against_fairlearn_and_scikit_learn(rows: list[tuple[int, int, int, float]]) -> None:
    predicted, labels, biases, log_odds = columns(rows)
    found = group_metrics(predicted, labels, biases, TWO, log_odds)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    frame = MetricFrame(
        metrics={"accuracy": accuracy_score, "count": lambda true, guess: len(true)},
        y_true=labels,
        y_pred=predicted,
        sensitive_features={"label": labels, "bias": biases},
    )
    groups = frame.by_group.dropna()  # fairlearn has a row for every combination, with or without images
    accuracy = groups["accuracy"].astype(float)
    assert found["unbiased"] == pytest.approx(accuracy.mean())
    assert found["worst_group"] == pytest.approx(frame.group_min()["accuracy"])
    worst = int(found["worst_label"] or 0), int(found["worst_bias"] or 0)
    assert accuracy.loc[worst] == found["worst_group"]
    assert groups["count"].loc[worst] == found["worst_n"]
    assert (found["n"], found["groups"], found["empty_groups"]) == (len(rows), len(groups), 6 - len(groups))
    shares = {key: TWO.train[key[0]][key[1]] for key in accuracy.index} if TWO.train else {}
    expected = sum(accuracy[key] * share for key, share in shares.items()) / (sum(shares.values()) or 1)
    assert found["train_weighted"] == (pytest.approx(expected) if any(shares.values()) else None)


@given(st.lists(IMAGE, min_size=1, max_size=40))
def test_calibration_error_is_that_of_a_literal_loop(rows: list[tuple[int, int, int, float]]) -> None:
    predicted, labels, biases, log_odds = columns(rows)
    found = group_metrics(predicted, labels, biases, TWO, log_odds)
    whole = literal_ece(rows)
    parts = [literal_ece([row for row in rows if row[:2] == key]) for key in {row[:2] for row in rows}]
    assert found["ece"] == pytest.approx(whole, abs=1e-12)
    assert found["ece_worst"] == pytest.approx(max(parts), abs=1e-12)


def literal_ece(rows: list[tuple[int, int, int, float]]) -> float:
    """Guo et al., ICML 2017, equation 3: bins ((m - 1) / M, m / M]; a confidence of 0 falls into the first."""
    total = 0.0
    for place in range(15):
        confidences, hits = [], []
        for label, _, guess, odds in rows:
            confidence = 1 / (1 + math.exp(-float(np.float16(odds))))
            if place / 15 < confidence <= (place + 1) / 15:
                confidences.append(confidence)
                hits.append(guess == label)
        if hits:
            gap = abs(sum(hits) / len(hits) - sum(confidences) / len(confidences))
            total += len(hits) / len(rows) * gap
    return total


@given(st.lists(IMAGE, min_size=2, max_size=40))
def test_auroc_is_scikit_learns_of_the_second_classs_log_odds(rows: list[tuple[int, int, int, float]]) -> None:
    predicted, labels, biases, log_odds = columns(rows)
    found = group_metrics(predicted, labels, biases, TWO, log_odds)["auroc"]
    if len(set(labels.tolist())) < 2:
        assert found is None
        return
    score = [min(float(o), 7e4) * (1 if guess else -1) for guess, o in zip(predicted, log_odds, strict=True)]
    pairs = [
        (a, b) for a, k in zip(score, labels, strict=True) if k for b, j in zip(score, labels, strict=True) if not j
    ]
    wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs)
    assert found == pytest.approx(roc_auc_score(labels, score))
    assert found == pytest.approx(wins / len(pairs))


def test_auroc_orders_images_of_which_the_network_is_certain() -> None:
    log_odds = np.array([50.0, 40.0, 50.0, 40.0], dtype=np.float16)  # the sigmoid of each is 1 in float64
    found = group_metrics(np.array([1, 1, 0, 0]), np.array([1, 0, 0, 1]), None, TWO, log_odds)
    assert found["auroc"] == 0.75  # the pairs (1st, 2nd), (1st, 3rd), (4th, 3rd) are in order, (4th, 2nd) is not


def test_more_than_two_classes_have_no_auroc_and_no_log_odds_no_calibration() -> None:
    labels = np.array([0, 1, 2])
    assert group_metrics(labels, labels, labels, GROUPS, np.ones(3))["auroc"] is None
    found = group_metrics(labels, labels, labels, GROUPS)
    assert (found["ece"], found["ece_worst"], found["auroc"]) == (None, None, None)


def test_groups_without_images_are_left_out_and_counted() -> None:
    labels, biases = np.array([0, 0, 2]), np.array([0, 1, 3])
    found = group_metrics(labels, labels, biases, GROUPS)
    assert (found["groups"], found["empty_groups"]) == (3, 9)
    assert (found["unbiased"], found["worst_group"], found["conflicting"]) == (1, 1, 1)
    assert found["train_weighted"] == 1.0  # over groups with images in both splits


def test_training_shares_without_a_common_group_define_nothing() -> None:
    one = np.array([0])
    assert group_metrics(one, one, np.array([2]), GROUPS)["train_weighted"] is None
    unknown = GROUPS.model_copy(update={"train": None})
    assert group_metrics(one, one, np.array([0]), unknown)["train_weighted"] is None


def test_the_worst_group_is_the_first_of_several() -> None:
    labels, biases = np.array([0, 1, 2]), np.array([1, 2, 0])
    found = group_metrics((labels + 1) % 3, labels, biases, GROUPS)
    assert (found["worst_label"], found["worst_bias"], found["worst_n"]) == (0, 1, 1)


@given(st.integers(0, 400), st.integers(1, 400), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilson_is_scipys(right: int, n: int, confidence: float) -> None:
    right = min(right, n)
    low, high = wilson(right, n, confidence)
    scipys = binomtest(right, n).proportion_ci(confidence, method="wilson")
    assert (low, high) == (pytest.approx(scipys.low, abs=1e-9), pytest.approx(scipys.high, abs=1e-9))
    assert 0 <= low <= right / n <= high <= 1


def test_wilson_without_images_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_every_metric_is_defined_and_unknown_ones_are_refused() -> None:
    assert known_metrics(["gap", "accuracy", "gap"]) == ("gap", "accuracy")
    with pytest.raises(ZooError, match="unknown metric 'acuracy'; did you mean 'accuracy'"):
        known_metrics(["acuracy"])
    one = np.array([0, 1])
    assert set(ALL_METRICS) <= set(group_metrics(one, one, one, TWO, np.ones(2)))


@pytest.mark.parametrize(("metric", "better", "worse"), [("accuracy", 0.9, 0.8), ("gap", -0.1, 0.2), ("ece", 0.1, 0.2)])
def test_goodness_grows_with_what_is_better(metric: str, better: float, worse: float) -> None:
    assert goodness(metric, better) > goodness(metric, worse)
