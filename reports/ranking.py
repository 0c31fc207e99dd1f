"""Which of several numbers is best, and which second best."""

from __future__ import annotations

from collections.abc import Sequence

from debias_zoo.metrics import goodness

TIE = 1e-12
"""Numbers closer than this are equal: what summing in another order can change."""


def ranks(metric: str, means: Sequence[float | None], seeds: Sequence[int]) -> list[int | None]:
    """1 for the best, 2 for the second best, None for the others and where there is no number.

    Larger is better; of gap and calibration errors, nearer to zero. Equal numbers share a rank, and the second best is
    the next different number. Nothing is ranked where there is only one number.

    Args:
        metric: what they are of.
        means: fractions, not rounded.
        seeds: of how many seeds each is the mean; those of fewer than the most are not ranked.
    """
    most = max((count for mean, count in zip(means, seeds, strict=True) if mean is not None), default=0)
    scores = [
        None if mean is None or count < most else goodness(metric, mean)
        for mean, count in zip(means, seeds, strict=True)
    ]
    known = sorted((score for score in scores if score is not None), reverse=True)
    if len(known) < 2:
        return [None] * len(scores)
    best = known[0]
    second = next((score for score in known if best - score > TIE), None)
    return [_rank(score, best, second) for score in scores]


def _rank(score: float | None, best: float, second: float | None) -> int | None:
    if score is None:
        return None
    if best - score <= TIE:
        return 1
    return 2 if second is not None and second - score <= TIE else None
