"""A grid in a YAML file: what ``debias-zoo run`` is told by options, and what a command line has no room for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from .errors import ZooError, unknown
from .validated import first_fault
from .yaml_files import read_mapping


class GridFile(BaseModel):
    """What a file may say; anything it leaves out is the option's default, and an option given beside it wins.

    Attributes:
        methods: names. datasets: each ``name:key=value`` as on the command line, or ``{name: ..., key: value}``, where
            a list of values is a sweep and a text may hold commas.
        seeds: how many, or a list of which. backbones: timm models. set: ``method.key`` -> value.
        data_root, weights, out, recipes: relative to where the command is given.
        slurm: parameter -> value. compile, stack_seeds: as in ``layouts.py`` and ``stacking.py``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    methods: str | list[str]
    datasets: str | list[str | dict[str, Any]]
    seeds: PositiveInt | list[NonNegativeInt] = 1
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
    normalize: str = ""
    skip_corrupt: bool = False
    recipes: list[str] = []
    track: list[str] = []
    threads: int | Literal["auto"] = "auto"
    per_gpu: PositiveInt | None = None
    executor: str = "local"
    address: str = ""
    slurm: dict[str, bool | int | float | str] = {}
    compile: Literal["off", "on", "auto"] = "off"
    stack_seeds: PositiveInt = 1


def read_grid(path: Path) -> dict[str, Any]:
    """The options of ``debias-zoo run`` that a file gives, by the names of their parameters.

    Raises:
        ZooError: it cannot be read, is no YAML, or says something that is not known.
    """
    data = read_mapping(path, "grid")
    for key in data:
        if key not in GridFile.model_fields:
            raise unknown(f"key of {path}:", str(key), GridFile.model_fields)
    try:
        file = GridFile.model_validate(data)
    except ValidationError as error:
        raise ZooError(f"{path}: {first_fault(error)}") from error
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
        "sets": [f"{key}={_json(key, value)}" for key, value in file.set.items()],
        "device": file.device,
        "jobs": str(file.jobs),
        "precision": file.precision,
        "out": Path(file.out),
        "root": None if file.data_root is None else Path(file.data_root),
        "weights": None if file.weights is None else Path(file.weights),
        "pretrained": file.pretrained,
        "normalize": file.normalize,
        "skip_corrupt": file.skip_corrupt,
        "recipes": tuple(Path(recipe) for recipe in file.recipes),
        "track": tuple(file.track),
        "threads": str(file.threads),
        "per_gpu": file.per_gpu,
        "executor": file.executor,
        "address": file.address,
        "slurm": tuple(
            f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in file.slurm.items()
        ),
        "compiling": file.compile,
        "stack": file.stack_seeds,
    }


def _json(key: str, value: Any) -> str:
    try:
        return json.dumps(value)
    except TypeError as error:  # YAML has dates
        raise ZooError(f"set: {key}: {value} is no number, text, truth value or list; write it in quotes") from error


def as_values(dataset: Mapping[str, Any]) -> tuple[str, dict[str, Sequence[Any]]]:
    """Name and values by key of a data set in a file's long form; a list of values is a sweep."""
    if not isinstance(dataset.get("name"), str):
        raise ZooError(f"a data set of the grid must have a name; it has: {', '.join(map(str, dataset)) or 'nothing'}")
    values = {str(key): value for key, value in dataset.items() if key != "name"}
    if empty := [key for key, value in values.items() if value == []]:
        raise ZooError(f"data set {dataset['name']!r} of the grid: {empty[0]} has no value")
    return dataset["name"], {key: value if isinstance(value, list) else [value] for key, value in values.items()}
