"""Intervals over images and seeds, beside scipy's bootstrap and a loop that draws image by image."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from debias_zoo.errors import ZooError
from debias_zoo.metrics import group_metrics
from debias_zoo.reports.bootstrap import RESAMPLED, Interval, bootstrap, contrasts
from debias_zoo.trial import Groups

GROUPS = Groups(
    classes=("a", "b"), biases=("p", "q", "r"), aligned=((0,), (1, 2)), train=((50, 1, 0), (2, 40, 20))
)  # the group (0, 2) has no image below
SIZES = {(0, 0): 200, (0, 1): 40, (1, 0): 30, (1, 1): 150, (1, 2): 80}
SHARES = {(0, 0): 0.95, (0, 1): 0.5, (1, 0): 0.4, (1, 1): 0.9, (1, 2): 0.85}

LABELS = np.array([label for (label, _), size in SIZES.items() for _ in range(size)])
BIASES = np.array([bias for (_, bias), size in SIZES.items() for _ in range(size)])
EASE = np.array([SHARES[pair] for pair in zip(LABELS, BIASES, strict=True)])

Right = npt.NDArray[np.bool_]


def made(seeds: int, seed: int = 0) -> Right:
    """(seeds, N): seeds differ in how good they are, and find the same images hard."""
    random = np.random.default_rng(seed)
    hard = random.random(len(EASE))
    return np.stack([hard * 0.7 + random.random(len(EASE)) * 0.3 < EASE + random.normal() * 0.05 for _ in range(seeds)])


def only(right: Right, metric: str, draws: int = 4000) -> Interval:
    found = bootstrap({"m": right}, LABELS, BIASES, GROUPS, [metric], draws=draws)["m"][metric]
    assert found is not None
    return found


def by_group(right: Right) -> dict[tuple[int, int], npt.NDArray[np.float64]]:
    return {pair: right[(pair[0] == LABELS) & (pair[1] == BIASES)].astype(float) for pair in SIZES}


def literal(means: dict[tuple[int, int], npt.NDArray[np.float64]], metric: str) -> npt.NDArray[np.float64]:
    """A metric of groups' accuracies, written out."""
    aligned = (means[0, 0] + means[1, 1] + means[1, 2]) / 3
    conflicting = (means[0, 1] + means[1, 0]) / 2
    train = 50 * means[0, 0] + means[0, 1] + 2 * means[1, 0] + 40 * means[1, 1] + 20 * means[1, 2]
    return {
        "unbiased": (3 * aligned + 2 * conflicting) / 5,
        "aligned": aligned,
        "conflicting": conflicting,
        "gap": aligned - conflicting,
        "worst_group": np.min(list(means.values()), axis=0),
        "train_weighted": train / 113,
    }[metric]


def close(found: Interval, draws: npt.NDArray[np.float64]) -> None:
    """The ends are the quantiles of other draws, as far as both are known: a quarter of the standard error."""
    low, high = np.quantile(draws, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.25 * draws.std())


@pytest.mark.parametrize("metric", RESAMPLED)
def test_the_value_is_the_mean_of_the_seeds_metrics(metric: str) -> None:
    right = made(4)
    predicted = np.where(right, LABELS, 1 - LABELS)
    each = [group_metrics(one, LABELS, BIASES, GROUPS)[metric] for one in predicted]
    assert only(right, metric, 10).value == pytest.approx(np.mean(np.array(each, dtype=float)), abs=1e-12)


def test_accuracy_of_one_seed_is_scipys() -> None:
    right = made(1)
    theirs = stats.bootstrap(
        (right[0].astype(float),), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(5)
    )
    close(only(right, "accuracy"), theirs.bootstrap_distribution)


@pytest.mark.parametrize("metric", [metric for metric in RESAMPLED if metric != "accuracy"])
def test_group_metrics_of_one_seed_are_scipys_within_groups(metric: str) -> None:
    right = made(1)

    def statistic(*groups: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
        return literal({pair: one.mean(axis=axis) for pair, one in zip(SIZES, groups, strict=True)}, metric)

    theirs = stats.bootstrap(
        tuple(by_group(right[0]).values()),
        statistic,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(5),
    ).bootstrap_distribution
    found = only(right, metric)
    if metric == "worst_group":
        assert theirs.mean() < found.value - 0.005  # the smallest of resampled groups is smaller still
        theirs = theirs + found.value - theirs.mean()
    close(found, theirs)


@pytest.mark.parametrize("metric", ["accuracy", "unbiased", "gap"])
def test_over_seeds_and_images_as_a_loop_draws_them(metric: str) -> None:
    right, random, draws = made(4), np.random.default_rng(9), []
    places = {pair: np.flatnonzero((pair[0] == LABELS) & (pair[1] == BIASES)) for pair in SIZES}
    for _ in range(3000):
        seeds = random.choice(4, 4)
        if metric == "accuracy":
            images = random.choice(len(LABELS), len(LABELS))
            draws.append(np.mean([right[seed][images].mean() for seed in seeds]))
        else:
            drawn = {pair: random.choice(own, len(own)) for pair, own in places.items()}
            values = [literal({pair: right[seed][own].mean() for pair, own in drawn.items()}, metric) for seed in seeds]
            draws.append(np.mean(values))
    close(only(right, metric), np.array(draws))


@pytest.mark.parametrize("metric", RESAMPLED)
def test_a_seed_that_repeats_another_tells_nothing_new(metric: str) -> None:
    one, five = made(1), np.repeat(made(1), 5, axis=0)
    assert (only(five, metric).low, only(five, metric).high) == pytest.approx(
        (only(one, metric).low, only(one, metric).high), abs=1e-12
    )


def test_seeds_that_differ_widen_the_interval() -> None:
    right = made(1)[0]
    worse = right & (np.random.default_rng(2).random(len(right)) < 0.8)
    apart = only(np.stack([right, worse, right, worse]), "accuracy")
    alike = only(np.stack([right, right, right, right]), "accuracy")
    assert apart.high - apart.low > 2 * (alike.high - alike.low)


def test_intervals_hold_what_they_should() -> None:
    """95 % intervals of many methods on images of their own: unbiased accuracy, and worst group as tests give it."""
    random, methods = np.random.default_rng(3), 400
    right = {str(place): random.random((1, len(EASE))) < EASE for place in range(methods)}
    found = bootstrap(right, LABELS, BIASES, GROUPS, ["unbiased", "worst_group"], draws=500)
    worst = np.mean([one["worst_group"].value for one in found.values()])  # type: ignore[union-attr]
    for metric, truth in (("unbiased", np.mean(list(SHARES.values()))), ("worst_group", worst)):
        held = np.mean([one[metric].low <= truth <= one[metric].high for one in found.values()])  # type: ignore[union-attr]
        assert 0.90 <= held <= 0.98, (metric, held)  # 0.95 +- 0.022 by chance, and the bootstrap is a little narrow


def test_the_worst_of_many_equal_groups_lies_in_its_interval() -> None:
    groups = Groups(classes=tuple("abcdefghij"), biases=tuple("abcdefghij"), aligned=tuple((k,) for k in range(10)))
    labels, biases = np.repeat(np.arange(10), 500), np.tile(np.repeat(np.arange(10), 50), 10)
    right = np.random.default_rng(0).random((3, 5000)) < 0.8
    found = bootstrap({"m": right}, labels, biases, groups, ["worst_group"])["m"]["worst_group"]
    assert found is not None
    assert found.low < found.value < found.high


def test_no_interval_depends_on_other_methods() -> None:
    a, b = made(3), made(2, seed=1)
    alone = bootstrap({"b": b}, LABELS, BIASES, GROUPS, RESAMPLED, draws=200)["b"]
    assert bootstrap({"a": a, "b": b}, LABELS, BIASES, GROUPS, RESAMPLED, draws=200)["b"] == alone
    assert bootstrap({"b": b}, LABELS, BIASES, GROUPS, ["gap"], draws=200)["b"]["gap"] == alone["gap"]


def test_the_seed_decides_and_nothing_else_is_touched() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index]
    first, again = only(made(3), "accuracy"), only(made(3), "accuracy")
    other = bootstrap({"m": made(3)}, LABELS, BIASES, GROUPS, ["accuracy"], seed=1)["m"]["accuracy"]
    assert first == again
    assert other is not None
    assert other != first
    assert np.array_equal(np.random.get_state()[1], before)  # type: ignore[index]


def test_what_was_resampled_is_said() -> None:
    assert only(made(1), "gap", 10).over == "500 test images alone: there is one seed"
    assert only(made(3), "gap", 10).over == "500 test images and 3 seeds"


def test_what_no_image_defines_has_no_interval() -> None:
    right = {"m": made(2)}
    without = bootstrap(right, LABELS, None, GROUPS, draws=10)["m"]
    assert [metric for metric, one in without.items() if one is not None] == ["accuracy"]
    tied = np.where(LABELS == 0, 0, 1)  # all images are bias-aligned
    found = bootstrap(right, LABELS, tied, GROUPS, draws=10)["m"]
    assert [metric for metric, one in found.items() if one is None] == ["conflicting", "gap"]
    nothing = np.array([], dtype=np.int64)
    empty = bootstrap({"m": np.zeros((2, 0), dtype=bool)}, nothing, nothing, GROUPS)["m"]
    assert set(empty.values()) == {None}
    assert bootstrap({}, LABELS, BIASES, GROUPS) == {}


def test_what_cannot_be_resampled_is_refused() -> None:
    with pytest.raises(ZooError, match=r"unknown metric 'auroc'.*predicted right"):
        bootstrap({"m": made(1)}, LABELS, BIASES, GROUPS, ["auroc"])
    for wrong in (made(1)[:, 1:], made(1)[0], made(1)[:0]):
        with pytest.raises(ZooError, match=r"bootstrap of 'm': given right of shape .* allowed is"):
            bootstrap({"m": wrong}, LABELS, BIASES, GROUPS)


def test_a_hundred_methods_take_seconds() -> None:
    """About one second on one core; the limit leaves room for a busy machine, not for a loop over draws."""
    random = np.random.default_rng(0)
    groups = Groups(classes=tuple("abcdefghij"), biases=tuple("abcdefghij"), aligned=tuple((k,) for k in range(10)))
    labels, biases = random.integers(10, size=10_000), random.integers(10, size=10_000)
    right = {str(place): random.random((3, 10_000)) < 0.8 for place in range(100)}
    start = time.process_time()
    bootstrap(right, labels, biases, groups)
    assert time.process_time() - start < 8


def by_seed(right: Right) -> dict[int, Right]:
    return dict(enumerate(right))


@pytest.mark.parametrize("metric", ["accuracy", "unbiased", "gap", "worst_group"])
def test_a_contrast_is_the_difference_over_shared_draws(metric: str) -> None:
    """Beside a loop that draws the same seeds and the same images, group by group, for both."""
    one, other = made(3, 1), made(3, 2)
    found = contrasts({"a": by_seed(one), "b": by_seed(other)}, "b", LABELS, BIASES, GROUPS, metric, draws=3000)["a"]
    random = np.random.default_rng(5)
    members = [np.flatnonzero((pair[0] == LABELS) & (pair[1] == BIASES)) for pair in SIZES]

    def value(right: Right, seeds: npt.NDArray[np.int64], rows: list[npt.NDArray[np.int64]]) -> float:
        numbers = []
        for seed in seeds:
            own = right[seed]
            if metric == "accuracy":
                numbers.append(float(own[np.concatenate(rows)].mean()))
                continue
            means = {pair: np.array(own[some].mean()) for pair, some in zip(SIZES, rows, strict=True)}
            number = float(literal(means, metric))
            numbers.append(abs(number) if metric == "gap" else number)
        return float(np.mean(numbers))

    everything = np.arange(3)
    truth = value(one, everything, members) - value(other, everything, members)
    drawn = []
    for _ in range(3000):
        seeds = random.integers(3, size=3)
        if metric == "accuracy":
            rows = [random.integers(len(LABELS), size=len(LABELS))]
        else:
            rows = [some[random.integers(len(some), size=len(some))] for some in members]
        drawn.append(value(one, seeds, rows) - value(other, seeds, rows))
    low, high = np.quantile(drawn, [0.025, 0.975])
    if metric == "worst_group":
        low, high = (end + truth - np.mean(drawn) for end in (low, high))
    assert found.value == pytest.approx(truth)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.08 * (high - low))


def test_what_both_share_does_not_widen_a_contrast() -> None:
    one = made(3)
    same = contrasts({"a": by_seed(one), "b": by_seed(one)}, "b", LABELS, BIASES, GROUPS, "unbiased")["a"]
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    alone = only(one, "unbiased")
    better = one | (np.random.default_rng(0).random(one.shape) < 0.1)
    found = contrasts({"a": by_seed(better), "b": by_seed(one)}, "b", LABELS, BIASES, GROUPS, "unbiased")["a"]
    assert found.high - found.low < (alone.high - alone.low) / 1.5
    assert 0 <= found.low < found.value < found.high


def test_contrasts_are_over_the_seeds_that_both_have() -> None:
    right = made(4)
    given = {"a": {0: right[0], 3: right[1]}, "b": {3: right[2], 7: right[3]}, "c": {1: right[0]}}
    found = contrasts(given, "b", LABELS, BIASES, GROUPS, "accuracy")
    assert list(found) == ["a"], "c shares no seed with b"
    assert found["a"].value == pytest.approx(right[1].mean() - right[2].mean())
    assert found["a"].seeds == 1
    assert found["a"].low < found["a"].value < found["a"].high, "of one pair, over images"
    assert contrasts(given, "d", LABELS, BIASES, GROUPS, "accuracy") == {}
    assert contrasts(given, "b", LABELS, None, GROUPS, "unbiased") == {}
