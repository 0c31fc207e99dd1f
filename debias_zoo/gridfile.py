"""A grid in a YAML file: what ``debias-zoo run`` is told by options, and what a command line has no room for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import ZooError, unknown


class GridFile(BaseModel):
    """What a file may say; anything it leaves out is the option's default, and an option given beside it wins.

    Attributes:
        methods: names. datasets: each ``name:key=value`` as on the command line, or ``{name: ..., key: value}``, where
            a list of values is a sweep and a text may hold commas.
        seeds: how many, or a list of which. backbones: timm models. set: ``method.key`` -> value.
        data_root, weights, out: relative to where the command is given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    methods: str | list[str]
    datasets: str | list[str | dict[str, Any]]
    seeds: int | list[int] = 1
    protocol: Literal["quick", "standard", "paper"] = "standard"
    backbones: list[str] = []
    set: dict[str, Any] = {}
    device: str = "auto"
    jobs: int | Literal["auto"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    out: str = "runs"
    data_root: str | None = None
    weights: str | None = None
    pretrained: bool = False
    skip_corrupt: bool = False


def read_grid(path: Path) -> dict[str, Any]:
    """The options of ``debias-zoo run`` that a file gives, by the names of their parameters.

    Raises:
        ZooError: it cannot be read, is no YAML, or says something that is not known.
    """
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ZooError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise ZooError(f"{path} must hold a mapping with at least methods and datasets; it holds {type(data).__name__}")
    for key in data:
        if key not in GridFile.model_fields:
            raise unknown(f"key of {path}:", str(key), GridFile.model_fields)
    try:
        file = GridFile.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ZooError(f"{path}: {where}: {first['msg']}") from error
    return _options(file)


def _options(file: GridFile) -> dict[str, Any]:
    seeds = file.seeds
    return {
        "methods": file.methods if isinstance(file.methods, str) else ",".join(file.methods),
        "datasets": [file.datasets] if isinstance(file.datasets, str) else list(file.datasets),
        "seeds": seeds if isinstance(seeds, int) else None,
        "seed_list": None if isinstance(seeds, int) else ",".join(str(seed) for seed in seeds),
        "protocol": file.protocol,
        "backbones": tuple(file.backbones),
        "sets": [f"{key}={json.dumps(value)}" for key, value in file.set.items()],
        "device": file.device,
        "jobs": str(file.jobs),
        "precision": file.precision,
        "out": Path(file.out),
        "root": None if file.data_root is None else Path(file.data_root),
        "weights": None if file.weights is None else Path(file.weights),
        "pretrained": file.pretrained,
        "skip_corrupt": file.skip_corrupt,
    }


def as_values(dataset: Mapping[str, Any]) -> tuple[str, dict[str, Sequence[Any]]]:
    """Name and values by key of a data set in a file's long form; a list of values is a sweep."""
    if not isinstance(dataset.get("name"), str):
        raise ZooError(f"a data set of the grid must have a name; it has: {', '.join(map(str, dataset)) or 'nothing'}")
    values = {str(key): value for key, value in dataset.items() if key != "name"}
    return dataset["name"], {key: value if isinstance(value, list) else [value] for key, value in values.items()}
