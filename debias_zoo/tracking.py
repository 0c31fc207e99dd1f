"""Curves elsewhere while a trial trains: ``--track NAME``, for whatever is registered under ``debias_zoo.trackers``.

A tracker lives in the worker process that trains the trial, and is told a row an epoch, the same as in
``curves.jsonl``. An interrupted trial is told again from its first epoch when it goes on: a tracker begins anew, and
what it wrote before is replaced, so that nothing is there twice. What a tracker raises is a warning; training goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from .errors import ZooError
from .registry import load_tracker
from .trial import Trial


@dataclass(frozen=True)
class Tracked:
    """The trial that a tracker follows.

    Attributes:
        label: a short name. folder: its folder in the store, which exists.
        config: all of its configuration, flat: ``settings.lr`` and the like -> a JSON value that is no object.
    """

    label: str
    folder: Path
    config: Mapping[str, Any]

    @classmethod
    def of(cls, trial: Trial, folder: Path) -> Tracked:
        """What a tracker is told of ``trial``."""
        return cls(trial.label, folder, dict(_flat(trial.model_dump(mode="json"))))


class Tracker:
    """Shows curves somewhere. Subclasses state ``name``, that of their entry point, and define ``epoch``.

    One object follows one trial from its first epoch. It is made a second time for the same trial where that was
    interrupted: then it replaces what the first one wrote.
    """

    name: ClassVar[str]

    def __init__(self, tracked: Tracked) -> None:
        self.tracked = tracked

    @classmethod
    def check(cls) -> None:
        """Raise a ZooError that says what to install, before any training, where something is missing."""

    def epoch(self, number: int, row: Mapping[str, Any]) -> None:
        """Show one epoch.

        number: counted from 0 over all stages. row: as in ``curves.jsonl``: ``stage`` and ``epoch`` within it, the mean
        of each loss and of what it logs, under ``LOSS`` and ``LOSS.NUMBER``, and ``SPLIT.accuracy``.
        """
        raise TypeError(f"{type(self).__name__} must define epoch(number, row)")

    def close(self) -> None:
        """Called once after the last epoch, or when the trial failed."""


class TensorBoard(Tracker):
    """Event files in the trial's own folder: ``tensorboard --logdir runs`` shows one run a trial.

    ``main`` is shown as ``loss/main`` and ``val.accuracy`` as ``accuracy/val``: curves of a kind stand together.
    """

    name = "tensorboard"

    def __init__(self, tracked: Tracked) -> None:
        super().__init__(tracked)
        from torch.utils.tensorboard import SummaryWriter

        for old in tracked.folder.glob("events.out.tfevents.*"):
            old.unlink()
        writer: Any = SummaryWriter
        self.writer = writer(str(tracked.folder))
        lines = [f"| {name} | {value} |" for name, value in tracked.config.items()]
        self.writer.add_text("config", "\n".join(["| setting | value |", "| --- | --- |", *lines]))

    @classmethod
    def check(cls) -> None:
        if find_spec("tensorboard") is None:
            raise ZooError("--track tensorboard needs the package tensorboard: pip install 'debias-zoo[track]'")

    def epoch(self, number: int, row: Mapping[str, Any]) -> None:
        for name, value in row.items():
            if name not in {"stage", "epoch"}:
                self.writer.add_scalar(tag_of(name), value, number)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


def tag_of(name: str) -> str:
    """TensorBoard's name of a curve: ``loss/main`` for ``main``, ``accuracy/val`` for ``val.accuracy``."""
    split, _, what = name.rpartition(".")
    return f"accuracy/{split}" if what == "accuracy" else f"loss/{name}"


class Tracking:
    """The trackers of one trial, fed with its curves whenever these are saved; a context manager that closes them.

    Args:
        names: of registered trackers. tracked: the trial. warn: told of a tracker that raises, which is told no more.
    """

    def __init__(self, names: Sequence[str], tracked: Tracked, warn: Callable[[str], None]) -> None:
        self._names, self._tracked, self._warn = list(names), tracked, warn
        self._open: dict[str, Tracker] = {}
        self._told = 0

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, *error: object) -> None:
        for name in list(self._open):
            with self._guarded(name):
                self._open[name].close()

    def feed(self, curves: Sequence[Mapping[str, Any]]) -> None:
        """Tell what is new in ``curves``, all rows of the trial so far; after a resume those of before as well."""
        for name in list(self._names):
            with self._guarded(name):
                if name not in self._open:
                    self._open[name] = load_tracker(name)(self._tracked)
                for number in range(self._told, len(curves)):
                    self._open[name].epoch(number, curves[number])
        self._told = len(curves)

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        try:
            yield
        except (Exception, SystemExit) as error:  # a plugin may raise anything
            self._names.remove(name)
            self._open.pop(name, None)
            self._warn(
                f"{self._tracked.label}: tracker {name!r} raised {type(error).__name__}: {error}; it is told no "
                "more of this trial, training goes on"
            )


def check_trackers(names: Sequence[str]) -> list[str]:
    """The names, each once; raises a ZooError where one is unknown or lacks what it needs."""
    for name in names:
        load_tracker(name).check()
    return list(dict.fromkeys(names))


def _flat(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, under their path with dots."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, (*path, str(key)))
    else:
        yield ".".join(path), value
