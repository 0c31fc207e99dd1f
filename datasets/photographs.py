"""What data sets of photographs share: a schedule for networks from scratch, and images held out for validation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from debias_zoo.errors import ZooError
from debias_zoo.protocol import Augment, Settings

HELD_OUT = 10
"""Every tenth image of a class, or of a group where there are groups, is for validation where no split is official."""

Row = tuple[Path, int, int]
"""File, label, bias."""


def training(
    epochs: int, *, batch_size: int = 64, weight_decay: float = 5e-4, crop: bool = True
) -> dict[str, Settings]:
    """``quick`` and ``standard`` settings, ours: SGD at .01 with a cosine, mirrored and, with ``crop``, cut images."""
    standard = Settings(
        epochs=epochs,
        batch_size=batch_size,
        optimizer="sgd",
        lr=0.01,
        momentum=0.9,
        weight_decay=weight_decay,
        schedule="cosine",
        augment=Augment(resized_crop=(0.7, 1.0) if crop else None, flip=True),
    )
    return {"quick": Settings(epochs=min(2, epochs)).over(standard), "standard": standard}


def held_out(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """The rows without every tenth of each (label, bias), and those."""
    seen: dict[tuple[int, int], int] = {}
    kept: list[Row] = []
    val: list[Row] = []
    for row in rows:
        k = seen.get(row[1:], 0)
        seen[row[1:]] = k + 1
        (kept if k % HELD_OUT else val).append(row)
    return kept, val


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder, by name; a ZooError where it is not there."""
    if not folder.is_dir():
        raise ZooError(f"there is no folder {folder}")
    kinds = {".jpg", ".jpeg", ".png"}
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in kinds)
