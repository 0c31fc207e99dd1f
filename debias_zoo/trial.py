"""What a trial is: its whole configuration, from which its identity and its numbers follow, and its result."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from .protocol import ProtocolName, Settings

SCHEMA = 2
"""Version of ``result.json``; raised when a field changes its meaning."""


class Supervision(BaseModel):
    """Which bias labels were read, and for what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: bool = False
    val: bool = False
    tuned_on: Literal["val", "val_unbiased"] | None = None
    knows_bias_kind: bool = False

    @property
    def level(self) -> str:
        """The group a table puts the method in."""
        if self.train:
            return "bias labels to train"
        if self.val or self.tuned_on == "val_unbiased":
            return "bias labels to select"
        return "no bias labels"


class Trial(BaseModel):
    """One method on one data set with one seed. Same configuration, same numbers.

    Attributes:
        params: of the data set, complete. config: of the method, complete.
        weights: of the backbone at the start, as in ``weights.py``, and their digest; empty: random.
        fingerprint: of the data. settings, stages: training settings, as in ``protocol.py``.
        train_limit, eval_limit: images used of each split, or None for all.
        needs: trials whose networks this one is handed, by role; they are part of its identity.
        source, deviations: where the settings come from, and in what they differ from there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    method_version: int
    dataset: str
    dataset_version: int
    params: dict[str, Any]
    fingerprint: str
    seed: int
    protocol: ProtocolName
    backbone: str
    backbone_options: dict[str, Any] = {}
    weights: str = ""
    weights_digest: str = ""
    normalize: str
    precision: Literal["fp32", "bf16"]
    config: dict[str, Any]
    settings: Settings
    stages: dict[str, Settings] = {}
    train_limit: int | None = None
    eval_limit: int | None = None
    needs: dict[str, Trial] = {}
    supervision: Supervision
    source: str = ""
    deviations: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """Twelve hex digits that change with anything that could change a number.

        Fields at their defaults do not count: a field that a later version adds leaves old results what they were.
        """
        untold = {"source", "deviations", "supervision", "needs", "weights"}  # weights: their digest counts
        known = self.model_dump(mode="json", exclude=untold, exclude_defaults=True)
        known["needs"] = {role: trial.identity for role, trial in sorted(self.needs.items())}
        return hashlib.blake2b(json.dumps(known, sort_keys=True).encode(), digest_size=6).hexdigest()

    @property
    def folder(self) -> str:
        """Where it lies under ``--out``."""
        return f"{self.dataset}/{self.method}/{self.seed}-{self.identity}"

    @property
    def label(self) -> str:
        """A short name for progress bars and messages."""
        return f"{self.method} on {self.dataset}, seed {self.seed}"


class Groups(BaseModel):
    """What group metrics must know of the data, so that they can be computed again from stored predictions.

    Attributes:
        classes, biases: names of the labels and of the bias attribute's values.
        aligned: for each class, the biases that are bias-aligned with it.
        train: training images by (label, bias); None where they have no bias labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[str, ...]
    biases: tuple[str, ...]
    aligned: tuple[tuple[int, ...], ...]
    train: tuple[tuple[int, ...], ...] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(classes, biases)."""
        return len(self.classes), len(self.biases)


class Explained(BaseModel):
    """What ``explain.json`` holds: where a trial's network looks, on bias-conflicting images of a split.

    Attributes:
        schema_version: 1. identity: of the trial.
        split: whose images. count: how many. without_heat: on how many of them there is no heat, so no share.
        explained: whether the heat is for the predicted class or for the label.
        layer: the module whose map was looked at. map_size: (height, width) of that map.
        inside: share of the heat inside the object, the mean over the images with heat; None where none has any.
        area: share of the image that the object takes, the mean over all images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    identity: str
    split: str
    count: int
    without_heat: int
    explained: Literal["predicted", "label"]
    layer: str
    map_size: tuple[int, int]
    inside: float | None
    area: float


class Result(BaseModel):
    """What ``result.json`` holds.

    Attributes:
        schema_version: 2; results of schema 1 had neither ``groups`` nor ``selectable`` and are read without them.
        groups: of the data. selectable: how many of the last epochs a selection rule may choose from: those of the
            last stage, or the last one alone where ``finish`` changes what is predicted. Both None in old results.
        metrics: split -> metric -> value, of the last epoch; fractions, not per cent.
        seconds: train, evaluate, total.
        cost: parameters, extra_parameters (besides the main network), steps, peak_bytes of memory, and
            forward_passes and backward_passes, each of a whole backbone, per step.
        environment: versions, device, threads, machine, date, commit. notes: what a reader should know.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA
    identity: str
    trial: Trial
    groups: Groups | None = None
    selectable: int | None = None
    metrics: dict[str, dict[str, float | None]]
    seconds: dict[str, float]
    cost: dict[str, float]
    environment: dict[str, Any]
    notes: list[str] = []
