"""LNL's extreme bias on faces with age and sex (Kim et al., CVPR 2019), for any collection of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from debias_zoo.files import Listing

from .photographs import Row, held_out

FEMALE, MALE = 0, 1
SEXES = ("female", "male")
PERIODS = ("0-29", "30-39", "40+")
YOUNG, MIDDLE, OLD = range(3)
EDGES = (0, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70)
"""Ages at which LNL's twelve classes begin; the last ends at 120."""

AGES = tuple(f"{low}-{high - 1}" for low, high in zip(EDGES, (*EDGES[1:], 121), strict=True))

EXTREMES: Mapping[str, dict[int, int]] = {"eb1": {FEMALE: YOUNG, MALE: OLD}, "eb2": {FEMALE: OLD, MALE: YOUNG}}
"""The period of each sex in the training set EB1, EB2; the other set is the test."""

Label = Literal["gender", "age"]


@dataclass(frozen=True)
class Face:
    """An image file with age in years and sex."""

    file: Path
    age: int
    sex: int


def period(age: int) -> int:
    """Which of ``PERIODS`` an age is in."""
    return YOUNG if age < 30 else MIDDLE if age < 40 else OLD


def age_class(age: int) -> int:
    """Which of ``AGES`` an age is in."""
    return max(k for k, low in enumerate(EDGES) if age >= low)


def names(label: Label) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of the classes, and of the biases."""
    return (SEXES, PERIODS) if label == "gender" else (AGES, SEXES)


def aligned(label: Label, train: str) -> tuple[tuple[int, ...], ...]:
    """For each class, the biases that it has in the training set."""
    own = EXTREMES[train]
    if label == "gender":
        return tuple((own[sex],) for sex in (FEMALE, MALE))
    return tuple(tuple(sex for sex in (FEMALE, MALE) if own[sex] == period(low)) for low in EDGES)


def extreme_bias(pool: Sequence[Face], unbiased: Sequence[Face], label: Label, train: str) -> dict[str, Listing]:
    """Splits: ``train`` and ``val`` of one extreme set, ``test`` the other, ``unbiased`` faces of all kinds.

    Args:
        pool: faces that the two extreme sets are taken from.
        unbiased: other faces.
        label: what is learnt; the bias is the other.
        train: ``"eb1"`` or ``"eb2"``.
    """

    def row(face: Face) -> Row:
        if label == "gender":
            return face.file, face.sex, period(face.age)
        return face.file, age_class(face.age), face.sex

    def extreme(name: str) -> list[Row]:
        return [row(face) for face in pool if EXTREMES[name][face.sex] == period(face.age)]

    kept, val = held_out(extreme(train))
    others = extreme("eb2" if train == "eb1" else "eb1")
    rows = {"train": kept, "val": val, "test": others, "unbiased": [row(face) for face in unbiased]}
    return {split: Listing.of(found) for split, found in rows.items()}
