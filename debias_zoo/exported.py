"""What an exported model's ``config.json`` holds: all that rebuilds the network, and nothing that runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .errors import ZooError
from .method import Task
from .trial import Supervision, Trial
from .validated import reason

FORMAT: Literal["debias-zoo model"] = "debias-zoo model"
EXPORT_SCHEMA: Literal[1] = 1
"""Raised when a field changes its meaning."""

CONFIG, WEIGHTS, CARD, ONNX = "config.json", "model.safetensors", "README.md", "model.onnx"

_LARGEST = 2**20
"""Bytes of a config.json; ours have a few thousand."""

Side = Annotated[int, Field(ge=1, le=4096)]
"""Channels or pixels each way; far beyond what is exported, far below what fills a machine."""


class Network(BaseModel):
    """What of a trial its method is built from; fields as in ``Trial``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    method_version: int
    config: dict[str, Any]
    backbone: str
    backbone_options: dict[str, Any] = {}
    normalize: str
    seed: int
    weights: Literal[""] = ""
    needs: dict[str, Network] = {}

    @classmethod
    def of(cls, trial: Trial) -> Network:
        """Without the initial weights, of which nothing is left after training."""
        kept = {name: getattr(trial, name) for name in cls.model_fields if name not in ("weights", "needs")}
        return cls(**kept, needs={role: cls.of(needed) for role, needed in trial.needs.items()})


class Shapes(BaseModel):
    """The task that the method was built for; fields as in ``Task``, with all that bias labels tell."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: int = Field(ge=1)
    biases: int = Field(ge=0)
    train_size: int = Field(ge=0)
    image_shape: tuple[Side, Side, Side]
    bias_parts: tuple[int, ...] = ()
    bias_map: tuple[int, int, int, int] | None = None
    group_counts: tuple[tuple[int, ...], ...] | None = None

    @classmethod
    def of(cls, task: Task) -> Shapes:
        """Of a task that hides nothing."""
        return cls(**asdict(task))

    def task(self) -> Task:
        """As methods are handed it."""
        return Task(**{name: getattr(self, name) for name in type(self).model_fields})


class Exported(BaseModel):
    """What ``config.json`` holds.

    Attributes:
        format, schema_version: what the file is. made_by: name and version of the program.
        network, task: from which the method is built. classes, biases: names.
        steps: how image files are scaled, as in ``decode.py``; empty: to the size of the images.
        digests: sha256 of the other files that predict, by name.
        identity, dataset, params, protocol, precision, supervision: of the trial. metrics: of its last epoch, by split.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["debias-zoo model"] = FORMAT
    schema_version: Literal[1] = EXPORT_SCHEMA
    made_by: str
    network: Network
    task: Shapes
    classes: tuple[str, ...]
    biases: tuple[str, ...]
    steps: tuple[tuple[Literal["squash", "short", "centre"], int], ...] = ()
    digests: dict[str, str] = {}
    identity: str
    dataset: str
    params: dict[str, Any]
    protocol: str
    precision: str
    supervision: Supervision
    metrics: dict[str, dict[str, float | None]]


def read_exported(folder: Path) -> Exported:
    """What a folder's ``config.json`` says. Raises a ZooError where it is missing, damaged or of a later version."""
    data = raw_config(folder)
    schema = data.get("schema_version")
    if isinstance(schema, int) and schema > EXPORT_SCHEMA:
        raise ZooError(f"{folder} has schema {schema}, this version reads up to {EXPORT_SCHEMA}: upgrade debias-zoo")
    try:
        return Exported.model_validate(data)
    except Exception as error:  # other fields, or nested too deeply
        raise ZooError(f"{folder / CONFIG} cannot be used ({reason(error)}): export the trial again") from error


def raw_config(folder: Path) -> Mapping[str, Any]:
    """The JSON object in a folder's ``config.json``; a ZooError where that is not an export's."""
    path = folder / CONFIG
    if path.exists() and not path.is_file():
        raise ZooError(f"{path} is no file")
    try:
        with path.open("rb") as file:
            data: Any = json.loads(file.read(_LARGEST))
    except FileNotFoundError as error:
        what = "it has no config.json" if folder.is_dir() else "there is no such folder"
        raise ZooError(f"{folder} is no exported model: {what}; `debias-zoo export RUN FOLDER` makes one") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ZooError(f"{path} cannot be read ({type(error).__name__}): export the trial again") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ZooError(f"{folder} is no exported model: its config.json is of something else")
    return data
