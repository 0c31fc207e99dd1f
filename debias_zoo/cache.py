"""What is worth keeping between runs: files below ``$DEBIAS_ZOO_CACHE``, each made by one process while others wait.

The folder is ``~/.cache/debias-zoo`` where the variable is not set. It can be deleted whenever nothing runs.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ZooError
from .writing import cannot_write, make_folder, write_bytes, write_text

Arrays = Mapping[str, npt.NDArray[Any]]

_DONE = "done.json"
"""Written last: names of the arrays in the folder."""


def cache_folder() -> Path:
    """Where it lies."""
    return Path(os.environ.get("DEBIAS_ZOO_CACHE") or "~/.cache/debias-zoo").expanduser()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Only one process makes what a folder of the cache holds, the others wait; the lock goes with the process."""
    make_folder(folder)
    try:
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise cannot_write(folder, error, "; choose another place with DEBIAS_ZOO_CACHE") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def kept(key: str) -> Arrays | None:
    """The arrays that were stored under ``key``, mapped into memory and shared with other processes; or None.

    They are mapped to be copied on write: what is written to them is seen by nobody else.
    """
    folder = cache_folder() / key
    try:
        names = json.loads((folder / _DONE).read_text())
        return {name: np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False) for name in names}
    except (OSError, ValueError, EOFError, TypeError):  # missing or damaged
        return None


def _keep(key: str, arrays: Arrays) -> Arrays:
    """Store arrays under ``key``; gives them as ``kept`` does."""
    folder = cache_folder() / key
    (folder / _DONE).unlink(missing_ok=True)
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        write_bytes(folder / f"{name}.npy", buffer.getbuffer())
    write_text(folder / _DONE, json.dumps(list(arrays)))
    if (found := kept(key)) is None:
        raise ZooError(f"{folder} cannot be read again after it was written")
    return found


def made_once(key: str, make: Callable[[], Arrays]) -> Arrays:
    """What ``make`` gives, from files that are written once and mapped into memory.

    Args:
        key: what identifies the arrays, as a name of a folder.
        make: gives the same at each call.

    Raises:
        ZooError: the files cannot be written.
    """
    if (found := kept(key)) is not None:
        return found
    with alone(cache_folder() / key):
        found = kept(key)
        return _keep(key, make()) if found is None else found
