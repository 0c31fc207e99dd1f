"""The sheet of paired differences: every method beside a reference, on each data and over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from debias_zoo.errors import ZooError, unknown
from debias_zoo.metrics import ERRORS

from .bootstrap import CONFIDENCE, Interval
from .cells import NOTHING, TITLES
from .sheets import Cell, Column, Section, Sheet
from .statistics import MOST_EXACT, Difference, Scores, check_scores, corrected, paired_difference, smallest_p

REFERENCE = "erm"
"""What methods are compared with unless the caller says otherwise."""

COLUMNS = (
    Column("method", "Method", text=True),
    Column("pairs", "Pairs"),
    Column("difference", "Difference"),
    Column("interval", "95% interval"),
    Column("p", "p (Wilcoxon)"),
    Column("p_holm", "p (Holm)"),
    Column("reason", "Why no p", text=True, below=True),
)

ALL = "all data"
"""Heading of the section over all data."""


def significance_sheet(
    scores: Scores,
    reference: str | None = None,
    metric: str = "accuracy",
    *,
    intervals: Mapping[tuple[str, str], Interval] | None = None,
    separate: str = "",
    conditions: tuple[str, ...] = (),
    seed: int = 0,
) -> Sheet:
    """Every method minus the reference, by ``paired_difference``: a section for each data, and one over all data.

    Wilcoxon's signed-rank test (Wilcoxon 1945), corrected over every p of the sheet (Holm 1979), as Demsar (JMLR 2006)
    has it; what they assume, ``paired_difference`` and ``holm`` say.

    Args:
        scores: of one metric. Methods and data stand in the order of their first appearance.
        reference: a method; None: ``erm``, or the first where there is no ``erm``.
        metric: what the scores are; of those in ``ERRORS`` absolute values are compared.
        intervals: over seeds and test images, by data and method, in the place of those over the pairs.
        separate: why the data cannot be taken together; "" where they can.
        conditions: sentences on how the scores were made.
        seed: of the bootstrap.

    Raises:
        ZooError: for fewer than two methods, an unknown reference, a score that is no finite number.
    """
    check_scores(scores)
    if reference is None:
        reference = usual_reference(scores)
    elif reference not in scores:
        raise unknown("reference method", reference, scores, "these have scores")
    if len(scores) < 2:
        raise ZooError(
            f"statistics: given results of {', '.join(scores) or 'no method'}; a comparison needs two methods"
        )
    parts = _parts(scores, separate)
    made: list[tuple[str, Difference]] = []
    problems = []
    for heading, part in parts.items():
        if heading and not part.get(reference):
            problems.append(f"left out: {heading}: no result of {reference!r}, with which methods are compared")
            continue
        others = (method for method in scores if method != reference and part.get(method))
        found = (paired_difference(part, one, reference, metric, seed=seed) for one in others)
        made += [(heading, _over_images(one, (intervals or {}).get((heading, one.method)))) for one in found]
    differences = corrected([difference for _, difference in made])
    headings = [heading for heading, _ in made]
    sections = [
        Section(heading, tuple(_row(one) for own, one in zip(headings, differences, strict=True) if own == heading))
        for heading in dict.fromkeys(headings)
    ]
    what = TITLES.get(metric, metric).lower()
    return Sheet(
        name="significance",
        title=f"Differences from {reference} in {what}, in percentage points",
        columns=COLUMNS,
        sections=tuple(sections),
        notes=(
            *conditions,
            *_notes(reference, metric, differences, ALL in parts, bool(intervals)),
            *[separate] * bool(separate),
        ),
        problems=tuple(problems),
    )


def usual_reference(scores: Scores) -> str:
    """What methods are compared with unless it is said: ``erm``, or the first where there is no ``erm``."""
    return REFERENCE if REFERENCE in scores else next(iter(scores), REFERENCE)


def _over_images(one: Difference, interval: Interval | None) -> Difference:
    """With the interval over seeds and test images, where it is known."""
    return one if interval is None else replace(one, low=interval.low, high=interval.high)


def _parts(scores: Scores, separate: str) -> dict[str, Scores]:
    """Heading -> the scores that belong under it; over all data where there are several that can be taken together."""
    names = dict.fromkeys(data for own in scores.values() for data, _ in own)
    parts: dict[str, Scores] = {
        name: {
            method: {pair: score for pair, score in own.items() if pair[0] == name} for method, own in scores.items()
        }
        for name in names
    }
    return {**parts, ALL: scores} if len(names) > 1 and not separate else parts


def _row(one: Difference) -> tuple[Cell, ...]:
    interval = None if one.low is None or one.high is None else [one.low, one.high]
    return (
        Cell(one.method, one.method),
        Cell(str(one.pairs), one.pairs),
        Cell(points(one.mean), one.mean),
        Cell(f"[{points(one.low)}, {points(one.high)}]" if interval else NOTHING, interval),
        Cell(p_text(one.p), one.p),
        Cell(p_text(one.holm), one.holm),
        Cell(one.reason, one.reason),
    )


def points(fraction: float | None) -> str:
    """``+1.25`` for 0.0125: percentage points with their sign; never ``-0.00``."""
    if fraction is None:
        return NOTHING
    text = f"{100.0 * fraction:+.2f}"
    return "+0.00" if text == "-0.00" else text


def p_text(p: float | None) -> str:
    """``0.0312``, or ``<0.0001``."""
    if p is None:
        return NOTHING
    return f"{p:.4f}" if p >= 0.0001 else "<0.0001"


def _notes(
    reference: str, metric: str, differences: tuple[Difference, ...], pooled: bool, over_images: bool
) -> list[str]:
    tests = [one for one in differences if one.p is not None]
    better = "; below zero is better: absolute values are compared" if metric in ERRORS else ""
    notes = [f"Method minus {reference}, over the pairs of equal data and seed that both have{better}."]
    if over_images:
        notes.append(
            f"Interval: {100 * CONFIDENCE:g} % percentile bootstrap of the mean difference over seeds and test images, "
            "the same ones for both; with one pair over images alone. Few seeds make it too narrow."
        )
    if pooled or not over_images:
        notes.append(
            f"{f'Interval under {ALL!r}' if over_images else 'Interval'}: {100 * CONFIDENCE:g} % percentile bootstrap "
            "of the mean difference over the pairs. It is too narrow for few pairs: it holds the true mean in about "
            "75 % of cases for 3 pairs, 84 % for 5, 89 % for 10."
        )
    if tests:
        notes.append(
            "p: two-sided Wilcoxon signed-rank test (Wilcoxon 1945); Holm: corrected for "
            f"{'all ' * (len(tests) > 1)}{len(tests)} test{'s' * (len(tests) > 1)} on this sheet (Holm 1979)."
        )
    if any(not one.exact for one in tests):
        notes.append(f"p is the normal approximation's where more than {MOST_EXACT} pairs differ.")
    most = max((one.differing for one in tests), default=0)
    if tests and len(tests) * smallest_p(most) >= 0.05:
        notes.append(
            f"No method could reach p < .05 after Holm here: the smallest p of {most} pairs is {smallest_p(most):g}, "
            f"and it is one of {len(tests)}. More seeds or fewer comparisons would let it."
        )
    if pooled:
        notes.append(
            f"Under {ALL!r} a pair is a data set and seed. Seeds of one data set share its images, so it tells about "
            "these data sets, not about others. A method is pooled as its protocol has it on each data set; what was "
            "set by hand stands by itself."
        )
    return notes
