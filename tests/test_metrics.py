from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from debias_zoo.metrics import METRICS, group_metrics
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
