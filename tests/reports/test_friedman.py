"""Average ranks beside Demsar's own example, scipy and scikit-posthocs."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import scikit_posthocs
from scipy import stats

from debias_zoo.errors import ZooError
from debias_zoo.reports.friedman import average_ranks, critical_difference_of, why_no_ranks
from debias_zoo.reports.statistics import Scores

DEMSAR = """
.763 .768 .771 .798
.599 .591 .590 .569
.954 .971 .968 .967
.628 .661 .654 .657
.882 .888 .886 .898
.936 .931 .916 .931
.661 .668 .609 .685
.583 .583 .563 .625
.775 .838 .866 .875
1.00 1.00 1.00 1.00
.940 .962 .965 .962
.619 .666 .614 .669
.972 .981 .9751 .9749
.957 .978 .946 .970
"""
"""Table 6 of the paper: AUC of C4.5 on 14 data sets; plain, with m, with cf, with both.

The last but one is printed as .975 and .975, but with ranks 2 and 3: it was rounded after it was ranked.
"""


def scored(values: np.ndarray) -> dict[str, dict[tuple[str, int], float]]:
    """values: (blocks, methods)."""
    return {
        f"m{place:02d}": {(f"data{block // 3}", block % 3): float(value) for block, value in enumerate(column)}
        for place, column in enumerate(values.T)
    }


def drawn(methods: int, blocks: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.round(0.7 + random.normal(0, 0.02, methods) + random.normal(0, 0.02, (blocks, methods)), 3)


def test_demsars_example() -> None:
    values = np.array([line.split() for line in DEMSAR.split("\n") if line], dtype=float)
    found = average_ranks(scored(values))
    assert dict(zip(found.methods, np.round(found.ranks, 3), strict=True)) == {
        "m00": 3.143,
        "m01": 2.000,
        "m02": 2.893,
        "m03": 1.964,
    }
    assert found.methods == ("m03", "m01", "m02", "m00")
    assert found.critical == pytest.approx(1.25, abs=0.005)
    assert found.differ
    assert found.cliques == (("m03", "m01", "m02", "m00"),)  # "not powerful enough to detect any differences"


@pytest.mark.parametrize(
    ("methods", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (8, 3.031), (10, 3.164)]
)
def test_critical_values_are_those_of_demsars_table_5(methods: int, q: float) -> None:
    assert critical_difference_of(methods, 7) == pytest.approx(q * (methods * (methods + 1) / 42) ** 0.5, abs=1e-3)


@pytest.mark.parametrize(("methods", "blocks", "seed"), [(3, 5, 1), (4, 12, 2), (6, 15, 3), (9, 30, 4), (20, 60, 5)])
def test_beside_scipy_and_scikit_posthocs(methods: int, blocks: int, seed: int) -> None:
    values = drawn(methods, blocks, seed)
    scores = scored(values)
    found = average_ranks(scores)
    theirs = stats.friedmanchisquare(*values.T)
    assert (found.statistic, found.p) == pytest.approx((theirs.statistic, theirs.pvalue), rel=1e-9)
    ranks = dict(zip(scores, stats.rankdata(-values, axis=1).mean(axis=0), strict=True))
    assert dict(zip(found.methods, found.ranks, strict=True)) == pytest.approx(ranks)
    assert list(found.ranks) == sorted(found.ranks)
    p = scikit_posthocs.posthoc_nemenyi_friedman(pd.DataFrame(values, columns=list(scores)))
    for one, other in itertools.combinations(scores, 2):
        assert (abs(ranks[one] - ranks[other]) >= found.critical) == (p.loc[one, other] < 0.05)
    if found.differ:
        joined = {
            pair for clique in found.cliques for pair in itertools.combinations(sorted(clique), 2)
        }  # exactly the pairs that Nemenyi's test does not tell apart
        assert joined == {pair for pair in itertools.combinations(scores, 2) if p.loc[pair] >= 0.05}
        assert not any(set(a) <= set(b) for a, b in itertools.permutations(found.cliques, 2))


def test_some_of_those_cases_have_several_cliques() -> None:
    assert len(average_ranks(scored(drawn(9, 30, 4))).cliques) > 1


def test_where_friedman_finds_nothing_all_are_joined() -> None:
    same = average_ranks(scored(np.full((6, 4), 0.5)))
    assert (same.statistic, same.p, same.differ) == (0.0, 1.0, False)
    assert same.cliques == (("m00", "m01", "m02", "m03"),)
    assert same.ranks == (2.5, 2.5, 2.5, 2.5)


def test_a_method_that_differs_from_all_is_in_no_clique() -> None:
    values = drawn(3, 30, 0)
    values[:, 1] += 1.0
    values[:, 2] = values[:, 0] + np.resize([0.001, -0.001], 30)
    found = average_ranks(scored(values))
    assert found.methods[0] == "m01"
    assert found.cliques == (("m00", "m02"),)


def test_of_a_gap_the_nearest_to_zero_is_best() -> None:
    values = np.tile([-0.3, 0.1, -0.05], (6, 1))
    assert average_ranks(scored(values), "gap").methods == ("m02", "m01", "m00")
    assert average_ranks(scored(values), "accuracy").methods == ("m01", "m02", "m00")


def test_only_blocks_that_all_methods_have() -> None:
    scores = scored(drawn(4, 9, 0))
    del scores["m02"]["data1", 2]
    scores["m00"]["other", 5] = 0.1
    found = average_ranks(scores)
    assert (found.blocks, found.left_out) == (8, 2)


def test_too_few_say_why() -> None:
    two: Scores = scored(drawn(2, 9, 0))
    assert why_no_ranks(two).startswith("no critical difference: 2 methods with results; the Friedman test compares 3")
    four: Scores = scored(drawn(3, 4, 0))
    assert why_no_ranks(four).startswith(
        "no critical difference: 4 blocks (data set and seed) that all 3 methods share"
    )
    assert why_no_ranks({}).startswith("no critical difference: 0 methods")
    assert why_no_ranks(scored(drawn(3, 5, 0))) == ""
    for few in (two, four, {}):
        with pytest.raises(ZooError, match="no critical difference"):
            average_ranks(few)
    with pytest.raises(ZooError, match="given nan; allowed are finite numbers"):
        average_ranks(scored(np.full((6, 3), np.nan)))
