"""What is in a store: every trial, finished or not, and how it stands; and taking trials out of it."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import ZooError
from .store import DamagedError, NewerError, read_result, trial_folders, why_failed
from .trial import Result, Trial

State = Literal["finished", "running", "stopped", "failed", "damaged", "newer", "unreadable"]
"""A stopped trial has a checkpoint or nothing yet, and its command goes on with it; no process holds it.

A newer one was written by a later version of debias-zoo; an unreadable one cannot be opened here.
"""


@dataclass(frozen=True)
class Stored:
    """A trial's folder.

    Attributes:
        path: of the folder. state: how it stands. trial: None where neither file tells what it was.
        result: where it is finished. reason: why it failed or is damaged; "".
        size: of its files, in bytes. changed: when a file of it was written last, as an ISO date and time.
    """

    path: Path
    state: State
    trial: Trial | None
    result: Result | None
    reason: str
    size: int
    changed: str

    @property
    def identity(self) -> str:
        """Twelve hex digits, as in the folder's name."""
        return self.path.name.rpartition("-")[2]


def stored(out: Path) -> list[Stored]:
    """Every trial below ``out``, in the order of the paths. Raises a ZooError where there is no such folder."""
    if not out.is_dir():
        raise ZooError(f"there is no folder {out}: run something first, or name another folder")
    return [_stored(folder) for folder in trial_folders(out)]


def find(out: Path, names: Iterable[str]) -> list[Stored]:
    """The trials that are named: by identity (its first digits suffice), path, or ``method``, ``dataset/method``.

    Raises:
        ZooError: a name that fits none.
    """
    every = stored(out)
    found: dict[Path, Stored] = {}
    for name in names:
        fitting = [one for one in every if _fits(one, out, name)]
        if not fitting:
            raise ZooError(
                f"no trial under {out} is called {name!r}: give an identity or its first digits, a folder, METHOD or "
                "DATASET/METHOD; `debias-zoo runs list` shows them"
            )
        found |= {one.path: one for one in fitting}
    return [found[path] for path in sorted(found)]


def remove(one: Stored) -> None:
    """Delete a trial's folder. Raises a ZooError where a process works in it, or it cannot be deleted."""
    with (one.path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ZooError(f"{one.path}: a process works on it; stop that first") from error
        try:
            shutil.rmtree(one.path)
        except OSError as error:
            raise ZooError(f"cannot delete {one.path}: {error.strerror or error}") from error
    for parent in list(one.path.parents)[:2]:  # the method's and the data set's folder, when they are empty now
        with suppress(OSError):
            parent.rmdir()


def _fits(one: Stored, out: Path, name: str) -> bool:
    trial = one.trial
    known = {trial.method, f"{trial.dataset}/{trial.method}"} if trial is not None else set()
    inside = name.rstrip("/") == str(one.path.relative_to(out))
    prefix = len(name) >= 4 and one.identity.startswith(name)
    return name in known or inside or prefix or Path(name).resolve() == one.path.resolve()


def _stored(folder: Path) -> Stored:
    files = list(_regular(folder))
    size = sum(found.st_size for found in files)
    last = max((found.st_mtime for found in files), default=0.0)
    changed = datetime.datetime.fromtimestamp(last, datetime.UTC).strftime("%Y-%m-%d %H:%M")
    state, result, reason = _state(folder)
    trial = result.trial if result is not None else _trial(folder)
    return Stored(folder, state, trial, result, reason, size, changed)


def _regular(folder: Path) -> Iterator[os.stat_result]:
    """What is known of its files; one that a process moves to its place meanwhile is not there."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            found = path.stat()
            if stat.S_ISREG(found.st_mode):
                yield found


def _state(folder: Path) -> tuple[State, Result | None, str]:
    try:
        return "finished", read_result(folder / "result.json"), ""
    except FileNotFoundError:
        pass
    except ZooError as error:
        kinds: dict[type[ZooError], State] = {DamagedError: "damaged", NewerError: "newer"}
        return kinds.get(type(error), "unreadable"), None, str(error)
    if _held(folder):
        return "running", None, ""
    said = why_failed(folder)
    return "failed" if said else "stopped", None, said


def _held(folder: Path) -> bool:
    """Whether a process works in it: it holds the lock as long as it lives."""
    try:
        with (folder / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _trial(folder: Path) -> Trial | None:
    try:
        return Trial.model_validate(json.loads((folder / "config.json").read_text()))
    except (OSError, ValueError):
        return None
