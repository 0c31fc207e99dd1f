"""What a trial is: its whole configuration, from which its identity and its numbers follow, and its result."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, field_validator

from .protocol import ProtocolName, Settings

SCHEMA = 2
"""Version of ``result.json``; raised when a field changes its meaning."""

PROBE_SCHEMA = 1
"""Version of ``probe.json``; raised when a field changes its meaning, or probes are made in another way."""


Metrics = dict[str, dict[str, float | None]]
"""Split -> metric -> value."""

STACKED = "trained in one program with"
"""How the note of a result begins whose seed was trained together with others (``--stack-seeds``)."""

COUNTS = frozenset({"n", "groups", "empty_groups", "worst_n", "worst_label", "worst_bias"})
"""What stands among the metrics and is no fraction."""


class Supervision(BaseModel):
    """Which bias labels were read, and for what; ``test``: whether labels of the test split chose the epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: bool = False
    val: bool = False
    test: bool = False
    tuned_on: Literal["val", "val_unbiased"] | None = None
    knows_bias_kind: bool = False

    @property
    def level(self) -> str:
        """The group a table puts the method in."""
        if self.test:
            return "test labels to select"
        if self.train:
            return "bias labels to train"
        if self.val or self.tuned_on == "val_unbiased":
            return "bias labels to select"
        return "no bias labels"


def _folder_name(name: str) -> str:
    if not name or name.startswith(".") or "/" in name:
        raise ValueError(f"{name!r} can be no folder of a store")
    return name


FolderName = Annotated[str, AfterValidator(_folder_name)]
"""A name that is a folder of a store, and leads nowhere else."""


class Trial(BaseModel):
    """One method on one data set with one seed. Same configuration, same numbers.

    Attributes:
        params: of the data set, complete. config: of the method, complete.
        weights: of the backbone at the start, as in ``weights.py``, and their digest; empty: random.
        fingerprint: of the data. settings, stages: training settings, as in ``protocol.py``.
        method_code, dataset_code, backbone_code: digests of the plugin files that these come from; empty: of a package.
        train_limit, eval_limit: images used of each split, or None for all.
        needs: trials whose networks this one is handed, by role; they are part of its identity.
        source, deviations: where the settings come from, and in what they differ from there.
        options: of the command line that changed it, besides method, data, seed, protocol and precision.
        plugins: names of the plugin files, for the user alone: no file is ever run because it stands here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: FolderName
    method_version: int
    dataset: FolderName
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
    method_code: str = ""
    dataset_code: str = ""
    backbone_code: str = ""
    train_limit: int | None = None
    eval_limit: int | None = None
    needs: dict[str, Trial] = {}
    supervision: Supervision
    source: str = ""
    deviations: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """Twelve hex digits that change with anything that could change a number.

        Fields at their defaults do not count: a field that a later version adds leaves old results what they were.
        """
        untold = {"source", "deviations", "options", "plugins", "supervision", "needs"}
        untold |= {"weights"}  # their digest counts
        known = self.model_dump(mode="json", exclude=untold, exclude_defaults=True)
        known["needs"] = {role: trial.identity for role, trial in sorted(self.needs.items())}
        return hashlib.blake2b(json.dumps(known, sort_keys=True).encode(), digest_size=6).hexdigest()

    def but_seed(self) -> str:
        """As ``identity``, the same for trials that differ in nothing but their seed."""
        alike = {role: trial.model_copy(update={"seed": 0, "needs": {}}) for role, trial in self.needs.items()}
        return self.model_copy(update={"seed": 0, "needs": alike}).identity

    def command(self, seeds: Sequence[int] = ()) -> str:
        """The command line that runs it again, with these seeds; none: with its own."""
        params = ",".join(f"{key}={value}" for key, value in self.params.items() if value not in ("", None))
        options = [*self.options, *[option for trial in self.needs.values() for option in trial.options]]
        files = [file for trial in (self, *self.needs.values()) for file in trial.plugins]
        options += [f"--plugin {file}" for file in files]
        parts = [
            f"debias-zoo run --methods {shlex.quote(self.method)}",
            f"--dataset {shlex.quote(f'{self.dataset}:{params}'.rstrip(':'))}",
            f"--seed {','.join(str(seed) for seed in seeds or (self.seed,))}",
            f"--protocol {self.protocol} --precision {self.precision}",
            *[" ".join(shlex.quote(word) for word in option.split(" ", 1)) for option in dict.fromkeys(options)],
        ]
        return " ".join(parts)

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

    schema_version: int
    identity: str
    trial: Trial
    groups: Groups | None = None
    selectable: int | None = None
    metrics: Metrics
    seconds: dict[str, float]
    cost: dict[str, float]
    environment: dict[str, Any]
    notes: list[str] = []

    @property
    def program(self) -> str:
        """What made the steps, as far as last digits depend on it: the layout, and whether seeds were stacked."""
        stacked = any(note.startswith(STACKED) for note in self.notes)
        return ", ".join(filter(None, [str(self.environment.get("layout", "")), "stacked seeds" * stacked]))

    @field_validator("metrics")
    @classmethod
    def _are_fractions(cls, metrics: Metrics) -> Metrics:
        for split, of_split in metrics.items():
            for name, value in of_split.items():
                if name not in COUNTS and value is not None and not -1.0 <= value <= 1.0:
                    raise ValueError(f"{name} of {split} is {value}, no fraction")
        return metrics


class Readout(BaseModel):
    """How well a fresh linear probe reads one attribute.

    Attributes:
        accuracy: balanced accuracy, the mean of the recalls of the attribute's values: mean over the folds of a
            cross-validation. std: over the folds, ddof 1.
        chance: 1 / K for K values: the balanced accuracy of every constant guess.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    accuracy: float
    std: float
    chance: float

    @property
    def over_chance(self) -> float:
        """Balanced accuracy - 1 / K: 0 for what cannot be read, 1 - 1 / K for what is read without error."""
        return self.accuracy - self.chance


class ProbedLayer(BaseModel):
    """What can be read at one layer: ``tap0``, ``tap1``, ... or ``embedding``.

    Attributes:
        dim: numbers an image. bias, label: None where the images have too few of all values but one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dim: int
    bias: Readout | None
    label: Readout | None


class Probe(BaseModel):
    """What ``probe.json`` holds: what is left of the bias in a finished trial's frozen features.

    Attributes:
        identity: of the trial. split: whose images were probed. limit: how many were asked for. images: how many
            there were. folds: of the cross-validation.
        dependence: share of the bias's entropy that the label tells on these images, from 0 (independent) to 1 (the
            label determines the bias).
        layers: from the first tap to the embedding. notes: what a reader of the numbers should know.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = PROBE_SCHEMA
    identity: str
    split: str
    limit: int
    images: int
    folds: int
    dependence: float
    layers: tuple[ProbedLayer, ...]
    notes: tuple[str, ...] = ()
