"""Splits that a data set makes in memory are made once, and processes share them instead of each holding its own."""

from __future__ import annotations

import hashlib
import inspect
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from . import __version__
from .cache import kept, made_once
from .dataset import BiasDataset, Split
from .errors import ZooError
from .files import FileDataset

LEAST_BYTES = 4 * 2**20
"""Smaller splits are made anew by each process."""


def shared_split(data: BiasDataset, root: Path | None, name: str, fingerprint: str) -> Split:
    """The split as ``data.load`` gives it; a large one that lies in memory is mapped from the cache.

    Its place there covers the fingerprint, the parameters, the code of the data sets and the version of what draws
    their random numbers. Where the cache cannot be written the split stays in memory.
    """
    if isinstance(data, FileDataset):  # its images lie in the cache already
        return data.load(root, name)
    key = _key(data, root, name, fingerprint)
    if (found := _of_cache(key)) is not None:
        return found
    made = data.load(root, name)
    if not _in_memory(made):
        return made
    arrays = {part: array for part in _PARTS if (array := getattr(made, part)) is not None}
    with suppress(ZooError):
        return Split(**made_once(key, lambda: arrays))
    return made


_PARTS = ("images", "labels", "biases", "bias_map")


def _of_cache(key: str) -> Split | None:
    found = kept(key)
    return None if found is None else Split(**found)


def _in_memory(split: Split) -> bool:
    """Whether a split has so many images in memory of this process alone."""
    images = split.images
    return isinstance(images, np.ndarray) and not isinstance(images, np.memmap) and images.nbytes >= LEAST_BYTES


def _key(data: BiasDataset, root: Path | None, name: str, fingerprint: str) -> str:
    told = [data.name, data.version, data.params.model_dump_json(), fingerprint, str(root), name, __version__]
    told += [np.__version__, scipy.__version__, _code(type(data))]
    return f"{data.name}-{hashlib.blake2b(json.dumps(told).encode(), digest_size=8).hexdigest()}"


def _code(cls: Any) -> str:
    """A digest of the file of a data set and, in a package, of those beside it, which it may share code with."""
    own = Path(inspect.getfile(cls))
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(own.parent.glob("*.py")) if "." in cls.__module__ else [own]:
        digest.update(file.read_bytes())
    return digest.hexdigest()
