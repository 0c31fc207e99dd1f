"""Which of several methods differ over all data: Friedman's test on ranks and Nemenyi's critical difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from debias_zoo.errors import ZooError
from debias_zoo.metrics import ERRORS

from .bootstrap import CONFIDENCE
from .statistics import DECIMALS, Scores, check_scores

FEWEST_METHODS, FEWEST_BLOCKS = 3, 5

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AverageRanks:
    """Methods, best first, and what tells them apart.

    Attributes:
        metric: by which they were ranked.
        methods: equally good ones by name. ranks: mean over the blocks; 1 is best, equal scores share a rank.
        blocks: (data, seed) pairs that all methods have. left_out: pairs that some method lacks.
        statistic, p: Friedman's, corrected for ties.
        critical: Nemenyi's difference: methods whose ranks are at least this far apart differ. confidence: of both.
        cliques: the largest sets of neighbours that are not told apart, best first; all of them unless ``differ``.
    """

    metric: str
    methods: tuple[str, ...]
    ranks: tuple[float, ...]
    blocks: int
    left_out: int
    statistic: float
    p: float
    critical: float
    confidence: float
    cliques: tuple[tuple[str, ...], ...]

    @property
    def differ(self) -> bool:
        """Whether Friedman's test finds any difference."""
        return self.p < 1 - self.confidence


def why_no_ranks(scores: Scores) -> str:
    """Why ``average_ranks`` has too little to go on; "" where it has enough."""
    if len(scores) < FEWEST_METHODS:
        return (
            f"no critical difference: {len(scores)} method{'s' * (len(scores) != 1)} with results; the Friedman test "
            f"compares {FEWEST_METHODS} or more: compare two by their paired differences"
        )
    blocks = len(_blocks(scores))
    if blocks < FEWEST_BLOCKS:
        return (
            f"no critical difference: {blocks} block{'s' * (blocks != 1)} (data set and seed) that all {len(scores)} "
            f"methods share; the Friedman test is given {FEWEST_BLOCKS} or more: run more seeds or data sets, or leave "
            "out the methods that lack them"
        )
    return ""


def average_ranks(scores: Scores, metric: str = "accuracy", *, confidence: float = CONFIDENCE) -> AverageRanks:
    """Friedman's test and, if it finds a difference, Nemenyi's test of all pairs (Demsar, JMLR 7, 2006, section 3.2).

    In each block, a (data, seed) pair that all methods have, methods are ranked: the largest score is best; of metrics
    in ``ERRORS`` the nearest to zero. Friedman (1937) tests that all average ranks are equal, by the chi-squared
    distribution, which is good for more than about 10 blocks and 5 methods and conservative for fewer. Nemenyi (1963):
    with k methods and N blocks two differ if their average ranks are q sqrt(k (k + 1) / (6 N)) or more apart, where q
    is a quantile of the studentized range over sqrt(2); this holds for all pairs at once.

    Assumes that blocks are independent. Seeds of one data set share its images: the finding is about these data sets.
    For one about others, give one score a data set, the mean over its seeds.

    Raises:
        ZooError: with the words of ``why_no_ranks``; for a score that is no finite number.
    """
    from scipy.stats import rankdata

    check_scores(scores)
    if why := why_no_ranks(scores):
        raise ZooError(why)
    names, blocks = sorted(scores), _blocks(scores)
    values = np.round([[scores[name][block] for name in names] for block in blocks], DECIMALS)  # (N, k)
    worse = np.abs(values) if metric in ERRORS else -values
    means = rankdata(worse, axis=1).mean(axis=0)
    statistic, p = _friedman(worse)
    critical = critical_difference_of(len(names), len(blocks), confidence)
    order = np.argsort(np.round(means, DECIMALS), kind="stable")
    methods, ranks = [names[place] for place in order], [float(means[place]) for place in order]
    return AverageRanks(
        metric=metric,
        methods=tuple(methods),
        ranks=tuple(ranks),
        blocks=len(blocks),
        left_out=len({block for own in scores.values() for block in own}) - len(blocks),
        statistic=statistic,
        p=p,
        critical=critical,
        confidence=confidence,
        cliques=_cliques(methods, ranks, critical) if p < 1 - confidence else (tuple(methods),),
    )


def critical_difference_of(methods: int, blocks: int, confidence: float = CONFIDENCE) -> float:
    """Nemenyi's critical difference of average ranks (Demsar, JMLR 2006, section 3.2.2 and table 5a)."""
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(confidence, methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * blocks))


def _blocks(scores: Scores) -> list[tuple[str, int]]:
    """The (data, seed) pairs that all methods have, in a fixed order."""
    return sorted(set.intersection(*(set(own) for own in scores.values())))


def _friedman(values: Floats) -> tuple[float, float]:
    """Statistic and p. values: (N, k)."""
    from scipy.stats import friedmanchisquare

    if (values == values[:, :1]).all():
        return 0.0, 1.0
    found = friedmanchisquare(*values.T)
    return float(found.statistic), float(found.pvalue)


def _cliques(methods: Sequence[str], ranks: Sequence[float], critical: float) -> tuple[tuple[str, ...], ...]:
    """The largest runs of two or more methods, best first, whose ends are less than the critical difference apart."""
    found: list[tuple[str, ...]] = []
    reached = 0
    for first, rank in enumerate(ranks):
        end = sum(other - rank < critical for other in ranks)  # ranks ascend: all from first to end are near enough
        if end > reached and end - first > 1:
            found.append(tuple(methods[first:end]))
        reached = max(reached, end)
    return tuple(found)
