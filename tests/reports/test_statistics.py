"""Paired differences beside scipy, statsmodels and scikit-posthocs, and beside all 2^n signs."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import scikit_posthocs
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from debias_zoo.errors import ZooError
from debias_zoo.reports.statistics import (
    Difference,
    holm,
    paired_difference,
    paired_differences,
    smallest_p,
)


def scored(values: dict[str, list[float]]) -> dict[str, dict[tuple[str, int], float]]:
    """Three seeds a data set."""
    return {
        method: {(f"data{place // 3}", place % 3): value for place, value in enumerate(own)}
        for method, own in values.items()
    }


def drawn(methods: int, pairs: int, seed: int = 0, decimals: int = 6) -> dict[str, list[float]]:
    random = np.random.default_rng(seed)
    level, hard = random.normal(0.7, 0.02, methods), random.normal(0, 0.1, pairs)
    return {
        f"m{place}": [round(float(x), decimals) for x in level[place] + hard + random.normal(0, 0.02, pairs)]
        for place in range(methods)
    }


def test_by_hand() -> None:
    scores = scored({"a": [0.5, 0.6, 0.9], "b": [0.4, 0.6, 0.7]})
    found = paired_difference(scores, "a", "b")
    assert (found.pairs, found.differing, found.mean) == (3, 2, pytest.approx(0.1))
    assert (found.low, found.high) == (pytest.approx(0.0), pytest.approx(0.2))
    assert paired_difference(scores, "b", "a").mean == pytest.approx(-0.1)


def test_several_comparisons_are_made_as_each_alone() -> None:
    scores = scored({"a": [-0.5, 0.6, 0.9, 0.2], "b": [0.4, -0.6, 0.7, 0.1], "c": [0.1, 0.2, 0.3, 0.4]})
    pairs = [("a", "b"), ("a", "c")]
    for options in ({}, {"metric": "gap", "confidence": 0.5, "seed": 3}):
        alone = tuple(paired_difference(scores, *pair, **options) for pair in pairs)  # type: ignore[arg-type]
        assert paired_differences(scores, pairs, **options) == alone  # type: ignore[arg-type]
    gap, plain = (paired_difference(scores, "a", "b", metric).mean for metric in ("gap", "accuracy"))
    assert gap == pytest.approx(0.1)
    assert plain == pytest.approx(0.15)
    with pytest.raises(ZooError, match=r"unknown method 'd'.*these have scores"):
        paired_differences(scores, [("a", "d")])


def test_a_difference_of_nothing_has_no_sign() -> None:
    found = paired_difference(scored({"a": [0.1 - 1e-14], "b": [0.1]}), "a", "b")
    assert (str(found.mean), found.reason) == ("0.0", "equal in the only pair")
    assert paired_difference(scored({"a": [0.1, 0.2], "b": [0.1, 0.2]}), "a", "b").reason.startswith("equal in all 2")
    assert "1 pair: with" in paired_difference(scored({"a": [0.1], "b": [0.2]}), "a", "b").reason
    assert smallest_p(0) == 1.0
    assert paired_difference({}, "a", "b").reason == "no pair: the two share no data with a common seed"


def test_only_common_pairs_count() -> None:
    scores = {"a": {("x", 0): 0.5, ("x", 1): 0.6, ("y", 0): 0.1}, "b": {("x", 1): 0.5, ("y", 0): 0.3, ("z", 0): 0.9}}
    found = paired_difference(scores, "a", "b")
    assert (found.pairs, found.mean) == (2, pytest.approx(-0.05))


@pytest.mark.parametrize(("pairs", "decimals"), [(6, 6), (9, 6), (10, 2), (12, 2), (20, 6), (50, 6), (60, 6), (80, 2)])
def test_wilcoxon_and_holm_are_those_of_scikit_posthocs(pairs: int, decimals: int) -> None:
    """With ties and without, exact and approximate."""
    values = drawn(5, pairs, seed=pairs, decimals=decimals)
    names = list(values)
    whole = {name: [round(x * 10**decimals) for x in own] for name, own in values.items()}  # ties without rounding
    frame = pd.DataFrame(whole).melt(var_name="method", value_name="score")
    comparisons = list(itertools.combinations(names, 2))
    found = paired_differences(scored(values), comparisons)
    if all(one.differing == pairs for one in found):  # scipy's choice of exact or not also depends on zeros
        theirs = scikit_posthocs.posthoc_wilcoxon(frame, val_col="score", group_col="method")
        theirs_holm = scikit_posthocs.posthoc_wilcoxon(frame, val_col="score", group_col="method", p_adjust="holm")
        for one in found:
            assert one.p == pytest.approx(theirs.loc[one.method, one.reference], rel=1e-9)
            assert one.holm == pytest.approx(theirs_holm.loc[one.method, one.reference], rel=1e-9)
    for one in found:
        differences = np.subtract(whole[one.method], whole[one.reference])
        expected = stats.wilcoxon(differences[differences != 0])
        assert one.p == pytest.approx(expected.pvalue, rel=1e-9)
        assert one.exact == (one.differing <= 50)


@settings(deadline=None)
@given(st.lists(st.integers(-4, 4).filter(bool), min_size=6, max_size=9))
def test_p_counts_all_signs(differences: list[int]) -> None:
    """p is the share of the 2^n signs that are at least as far from even as what was seen; ties have mid-ranks."""
    ranks = stats.rankdata(np.abs(differences))
    signs = np.array(list(itertools.product([0, 1], repeat=len(ranks))))
    off = np.abs(signs @ ranks - ranks.sum() / 2)
    seen = abs(ranks[np.array(differences) > 0].sum() - ranks.sum() / 2)
    scores = scored({"a": [0.5 + one / 100 for one in differences], "b": [0.5] * len(differences)})
    found = paired_difference(scores, "a", "b")
    assert found.exact
    assert found.p == pytest.approx(np.mean(off >= seen - 1e-9))


@pytest.mark.parametrize(("pairs", "decimals"), [(16, 2), (40, 2), (50, 2)])
def test_p_is_exact_with_ties_too(pairs: int, decimals: int) -> None:
    values = drawn(2, pairs, seed=pairs, decimals=decimals)
    differences = np.rint(100 * np.subtract(values["m0"], values["m1"]))
    differences = differences[differences != 0]
    assert len(set(np.abs(differences))) < len(differences)
    found = paired_difference(scored(values), "m0", "m1")
    drawing = stats.PermutationMethod(n_resamples=20_000, rng=np.random.default_rng(1))
    assert found.exact
    assert found.p == pytest.approx(stats.wilcoxon(differences, method=drawing).pvalue, abs=0.015)
    assert found.p == pytest.approx(stats.wilcoxon(differences, method="asymptotic").pvalue, abs=0.03)


def test_sums_in_another_order_break_no_tie() -> None:
    """0.3 - 0.2 is not 0.2 - 0.1 in floats; both are a difference of ten points."""
    assert 0.3 - 0.2 != 0.2 - 0.1
    a, b = [0.3, 0.2, 0.7, 0.4, 0.9, 0.8, 0.1 + 0.2], [0.2, 0.1, 0.6, 0.3, 0.8, 0.9, 0.3]
    found = paired_difference(scored({"a": a, "b": b}), "a", "b")
    assert (found.pairs, found.differing) == (7, 6)
    assert found.p == pytest.approx(stats.wilcoxon([1, 1, 1, 1, 1, -1]).pvalue)


def test_fewer_than_six_pairs_say_why_there_is_no_p() -> None:
    five = {"a": [0.6, 0.7, 0.8, 0.9, 0.95], "b": [0.5, 0.5, 0.5, 0.5, 0.5]}
    found = paired_difference(scored(five), "a", "b")
    assert found.p is None
    assert found.reason == (
        "5 pairs: with fewer than 6 the two-sided exact Wilcoxon test cannot reach p < .05 "
        "(its smallest p here is 0.0625)"
    )
    assert found.low is not None
    six = {name: [*own, own[-1]] for name, own in five.items()}
    assert paired_difference(scored(six), "a", "b").p == pytest.approx(smallest_p(6)) == pytest.approx(2 / 64)
    zeros = {"a": [*five["a"], 0.5, 0.5], "b": [*five["b"], 0.5, 0.5]}
    assert paired_difference(scored(zeros), "a", "b").reason.startswith(
        "7 pairs, 5 of them different: with fewer than 6"
    )


def test_other_reasons() -> None:
    same = scored({"a": [0.5] * 8, "b": [0.5] * 8})
    found = paired_difference(same, "a", "b")
    assert (found.mean, found.low, found.high) == (0.0, 0.0, 0.0)
    assert found.reason == "equal in all 8 pairs: no difference to test"
    assert paired_difference(scored({"a": [0.5], "b": [0.5]}), "a", "b").reason == "equal in the only pair"
    none = paired_difference({"a": {("x", 0): 0.5}, "b": {("x", 1): 0.5}}, "a", "b")
    assert none == Difference("a", "b", 0, 0, reason="no pair: the two share no data with a common seed")


def test_two_pairs_have_no_interval() -> None:
    found = paired_difference(scored({"a": [0.5, 0.6], "b": [0.4, 0.4]}), "a", "b")
    assert (found.mean, found.low, found.high) == (pytest.approx(0.15), None, None)
    assert found.reason.startswith("2 pairs: ")


@pytest.mark.parametrize("pairs", [3, 6, 15, 40])
def test_the_interval_is_scipys(pairs: int) -> None:
    values = drawn(2, pairs, seed=pairs)
    found = paired_difference(scored(values), "m0", "m1")
    theirs = stats.bootstrap(
        (np.subtract(values["m0"], values["m1"]),), np.mean, n_resamples=20_000, method="percentile", rng=7
    )
    expected = (theirs.confidence_interval.low, theirs.confidence_interval.high)
    assert (found.low, found.high) == pytest.approx(expected, abs=0.1 * theirs.standard_error)


def test_a_gap_is_compared_by_its_distance_from_zero() -> None:
    scores = scored({"a": [-0.3, 0.1, 0.2], "b": [0.1, 0.1, 0.1]})
    assert paired_difference(scores, "a", "b", "gap").mean == pytest.approx(0.1)
    assert paired_difference(scores, "a", "b", "unbiased").mean == pytest.approx(-0.1)


@settings(max_examples=10, deadline=None)  # statsmodels takes its time
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_statsmodels(p: list[float]) -> None:
    expected = multipletests(p, method="holm")[1] if p else []
    assert holm(p) == pytest.approx(list(expected), abs=1e-12)


def test_holm_counts_the_tests_that_were_made() -> None:
    values = drawn(3, 8)
    scores = scored(values) | {"short": {("data0", 0): 0.5}}
    found = paired_differences(scores, [("m1", "m0"), ("short", "m0"), ("m2", "m0")])
    assert [one.holm is None for one in found] == [False, True, False]
    p = [one.p for one in found if one.p is not None]
    assert min(one.holm for one in found if one.holm is not None) == pytest.approx(min(1, 2 * min(p)))


def test_order_of_pairs_and_global_randomness_do_not_matter() -> None:
    scores = scored(drawn(2, 9))
    turned = {method: dict(reversed(own.items())) for method, own in scores.items()}
    first = paired_difference(scores, "m0", "m1")
    np.random.seed(5)
    assert paired_difference(turned, "m0", "m1") == first
    assert paired_difference(scores, "m0", "m1", seed=1).low != first.low


def test_what_is_refused() -> None:
    scores = scored({"erm": [0.5], "lnl": [0.6]})
    with pytest.raises(ZooError, match="unknown method 'lnn'; did you mean 'lnl'"):
        paired_differences(scores, [("lnn", "erm")])
    with pytest.raises(ZooError, match="'erm' on 'data0', seed 0: given nan; allowed are finite numbers"):
        paired_differences(scored({"erm": [float("nan")], "lnl": [0.6]}), [("lnl", "erm")])
