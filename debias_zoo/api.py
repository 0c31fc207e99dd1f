"""``debias_zoo.run``: a comparison from Python, by the driver of the command line, whose options it has."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from .arrays import Arrays
from .dataset import BiasDataset
from .driver import compare
from .errors import ZooError, unknown
from .protocol import PROTOCOLS
from .registry import name_files
from .runs import Names, Runs, listed

Dataset = str | Mapping[str, Any] | BiasDataset
"""``"name:key=value"``, ``{"name": ..., key: value}``, where a list of values is a sweep, or a data set object."""


def run(
    methods: Names,
    dataset: Dataset | Sequence[Dataset],
    *,
    seeds: int | None = None,
    seed: int | Sequence[int] | None = None,
    protocol: str = "standard",
    backbone: Names = (),
    set: Mapping[str, Any] | None = None,  # noqa: A002  (--set)
    recipe: str | Path | Sequence[str | Path] = (),
    device: str = "auto",
    jobs: int | str = "auto",
    threads: int | str = "auto",
    per_gpu: int | None = None,
    precision: str = "auto",
    out: str | Path = "runs",
    data_root: str | Path | None = None,
    weights: str | Path | None = None,
    pretrained: bool = False,
    normalize: str = "",
    skip_corrupt: bool = False,
    track: Names = (),
    executor: str = "local",
    address: str = "",
    slurm: Mapping[str, str] | None = None,
    plugin: str | Path | Sequence[str | Path] = (),
    compile: str = "off",  # noqa: A002  (--compile)
    stack_seeds: int = 1,
    progress: bool = True,
) -> Runs:
    """Train and compare methods, as ``debias-zoo run`` does: what is finished in ``out`` is not done again.

    Trials run in processes of their own, which import nothing of the program that calls this: it may be called from a
    script without ``if __name__ == "__main__"``, a notebook or standard input. An interrupt loses nothing: the same
    call goes on.

    Args:
        methods: names of registered methods.
        dataset: one data set or several; of arrays in memory what ``from_arrays(...).save(FILE)`` gives.
        seeds: how many: 0 ... N-1; neither this nor ``seed``: seed 0 alone.
        seed: which.
        protocol: ``quick``, ``standard`` or ``paper``.
        backbone: timm models in the place of the recipe's.
        set: settings: ``{"method.key": value}``, ``method.train.key`` or ``method.STAGE.key``.
        recipe: files that ``debias-zoo tune`` wrote.
        device: ``auto``, ``cpu``, ``cuda[:i]`` or ``mps``.
        jobs: trials side by side, or ``auto``.
        threads: of each trial, or ``auto``.
        per_gpu: trials that share a GPU; None: one.
        precision: ``auto``, ``fp32`` or ``bf16``.
        out: the store, a folder.
        data_root: where downloaded data lie; None: ``$DEBIAS_ZOO_DATA``.
        weights: a state dict that the backbone starts from.
        pretrained: whether it starts from timm's pretrained weights.
        normalize: of pixels, in the place of the recipe's: ``none``, ``half``, ``bytes``, ``cifar`` or ``imagenet``.
        skip_corrupt: leave out images that cannot be decoded.
        track: names of trackers.
        executor: ``local``, ``ray``, ``slurm`` or a plugin's.
        address: of a Ray cluster.
        slurm: parameters for Slurm.
        plugin: files that define methods, data sets and the like; they are known from then on.
        compile: ``off``, ``on`` or ``auto``, as in docs/speed.md.
        stack_seeds: how many seeds are trained as one program where the method allows it.
        progress: whether to show how it goes; False: nothing is printed.

    Returns:
        The finished trials of what was asked for. Those that failed are told in its ``problems``.

    Raises:
        ZooError: something was asked for that cannot be done, before any training; or no trial finished.
    """
    name_files(_paths(plugin))
    if protocol not in PROTOCOLS:
        raise unknown("protocol", str(protocol), PROTOCOLS)
    several = [dataset] if isinstance(dataset, str | Mapping | BiasDataset) else dataset
    root = data_root if data_root is not None else os.environ.get("DEBIAS_ZOO_DATA")
    found = compare(
        Console(quiet=not progress),
        methods=",".join(listed(methods)),
        datasets=[_dataset(one) for one in several],
        seeds=_count(seeds),
        seed_list=None if seed is None else ",".join(map(str, [seed] if isinstance(seed, int) else seed)),
        backbones=listed(backbone),
        protocol=protocol,
        sets=[f"{key}={_json(key, value)}" for key, value in (set or {}).items()],
        device=device,
        jobs=str(jobs),
        precision=precision,
        out=Path(out),
        root=None if not root else Path(root),
        weights=None if weights is None else Path(weights),
        pretrained=pretrained,
        normalize=normalize,
        skip_corrupt=skip_corrupt,
        track=listed(track),
        recipes=_paths(recipe),
        threads=str(threads),
        per_gpu=per_gpu,
        executor=executor,
        address=address,
        slurm=[f"{key}={value}" for key, value in (slurm or {}).items()],
        compiling=compile,
        stack=stack_seeds,
    )
    if not found.runs:
        raise ZooError("no trial finished: " + "; ".join(found.problems))
    return Runs(found.runs, found.problems, found.methods)


def _paths(given: str | Path | Sequence[str | Path]) -> list[Path]:
    return [Path(path) for path in ([given] if isinstance(given, str | Path) else given)]


def _dataset(given: Dataset) -> str | Mapping[str, Any]:
    """As the command line or a grid file has it."""
    if not isinstance(given, BiasDataset):
        return given
    if isinstance(given, Arrays) and not given.params.file:
        raise ZooError("arrays in memory do not reach the processes of trials: dataset=arrays.save('mine.npz')")
    return {"name": given.name, **{key: [value] for key, value in given.params.model_dump(mode="json").items()}}


def _count(seeds: int | None) -> int | None:
    if seeds is not None and (not isinstance(seeds, int) or seeds < 1):
        raise ZooError(f"seeds={seeds!r}: how many, from 1; which ones is said by seed=[...]")
    return seeds


def _json(key: str, value: Any) -> str:
    try:
        return json.dumps(value)
    except TypeError as error:
        raise ZooError(f"set={{{key!r}: {value!r}}}: must be a number, a text, a truth value or a list") from error
