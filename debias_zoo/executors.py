"""What runs trials: the contract of executors, and what all of them share; ``--executor NAME`` names one.

An executor is a class registered under ``debias_zoo.executors``. It says how one trial is begun somewhere and what
became of it. In which order, after which teachers, how often, and what is given up stands here once. A failing or dying
trial costs no other one anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from .errors import ZooError
from .plugin_files import named
from .registry import load_executor
from .store import Folder
from .trial import Trial

ATTEMPTS = 2
"""How often a trial is begun whose process dies: once, and once resumed."""


@dataclass(frozen=True)
class Event:
    """What happened to a trial: "started", "progress", "warning", "done" or "failed", with its details.

    Executors also say "died", with ``error``: the process of the trial is gone, and nothing was said at its end.
    """

    trial: Trial
    kind: str
    content: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Setup:
    """What an executor is told of a run.

    Attributes:
        out: the store. slots: how many trials at a time, at most. threads: of each trial.
        device: as for torch. root: where downloaded data lie. track: names of trackers.
        gpus: those that slots are spread over, as in ``CUDA_VISIBLE_DEVICES``; empty: that is left as it is.
        per_gpu: how many trials share a GPU. address: of a cluster, or empty. slurm: parameters for Slurm.
        compiling: as in ``layouts.py``. stack: how many seeds are trained as one program, at most.
    """

    out: Path
    slots: int
    threads: int
    device: str = "cpu"
    root: Path | None = None
    track: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    per_gpu: int = 1
    address: str = ""
    slurm: Mapping[str, str] = field(default_factory=dict)
    compiling: str = "off"
    stack: int = 1

    def job(self, *trials: Trial) -> dict[str, Any]:
        """All that a process must know to run ``trials``, as plain JSON; several are trained as one program."""
        return {
            "trials": [trial.model_dump(mode="json") for trial in trials],
            "out": str(self.out),
            "device": self.device,
            "root": str(self.root) if self.root is not None else None,
            "track": list(self.track),
            "compiling": self.compiling,
            "plugins": [str(path) for path in named()],
        }


class Executor:
    """Runs trials somewhere. Subclasses state ``name``, that of their entry point, and define the four methods below.

    Attributes:
        remote: whether trials run on other machines: then this one's cores, memory and GPUs say nothing about them.
        takes: which of the options "address", "per-gpu", "slurm" and "stack-seeds" it reads.
    """

    name: ClassVar[str]
    remote: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    @classmethod
    def check(cls) -> None:
        """Raise a ZooError that says what to install, before any work, where something is missing."""

    def free(self) -> bool:
        """Whether another trial can be begun now."""
        raise TypeError(f"{type(self).__name__} must define free()")

    def begin(self, trial: Trial) -> None:
        """Run ``trial`` with ``run_trial`` in a process of its own or of a pool; returns at once."""
        raise TypeError(f"{type(self).__name__} must define begin(trial)")

    def begin_stack(self, trials: Sequence[Trial]) -> None:
        """The same for several that are trained as one program; of executors that take "stack-seeds"."""
        raise TypeError(f"{type(self).__name__} must define begin_stack(trials)")

    def wait(self) -> Event:
        """The next event of a trial that was begun; waits for it. Each trial ends with "done", "failed" or "died"."""
        raise TypeError(f"{type(self).__name__} must define wait()")

    def close(self) -> None:
        """End all that runs; it can be resumed. Called at the end, and after an interrupt."""
        raise TypeError(f"{type(self).__name__} must define close()")

    def run(self, trials: Sequence[Trial], keep: bool = False) -> Iterator[Event]:
        """Run ``trials`` in order, each after those it needs; yields events until all are done or failed.

        ``keep``: what runs them waits for a next call, and ``close`` ends it.
        """
        board = _Board(list(trials))
        try:
            while board.waiting or board.running:
                yield from board.give_up_orphans()
                while self.free() and (stack := board.ready(self.setup.stack)):
                    board.begin(stack)
                    if len(stack) == 1:
                        self.begin(stack[0])
                    else:
                        self.begin_stack(stack)
                if board.running:
                    yield from self._take(self.wait(), board)
        except BaseException:  # Ctrl-C, or whoever reads the events stops: what runs is not waited for
            keep = False
            raise
        finally:
            if not keep:
                self.close()

    def _take(self, event: Event, board: _Board) -> Iterator[Event]:
        if event.kind != "died":
            board.note(event)
            yield event
            return
        trial, error = event.trial, f"{event.trial.label}: {event.content['error']}"
        if board.may_resume(trial):
            yield Event(trial, "warning", {"text": f"{error}; resuming it"})
            return
        failed = Event(trial, "failed", {"error": f"{error}; it was begun twice"})
        with suppress(ZooError):  # the disk may be full: the error itself is reported
            Folder(self.setup.out / trial.folder).fail(failed.content["error"])
        board.note(failed)
        yield failed


class _Board:
    """Which trials wait, run and have ended."""

    def __init__(self, waiting: list[Trial]) -> None:
        self.waiting = waiting
        self.running: set[str] = set()
        self._inside = {trial.identity for trial in waiting}
        self._ended: dict[str, bool] = {}
        self._attempts: dict[str, int] = {}

    def ready(self, most: int = 1) -> list[Trial]:
        """The first whose teachers are done, or were before the run; with it others that differ in the seed alone.

        Who died in a stack is begun again by itself, so that it cannot take the others along twice.
        """
        ready = (trial for trial in self.waiting if self._has_teachers(trial))
        found = list(islice(ready, 1))
        if not found or most == 1 or found[0].identity in self._attempts:
            return found
        alike = found[0].but_seed()
        others = (t for t in ready if t.identity not in self._attempts and t.but_seed() == alike)
        return [*found, *islice(others, most - 1)]

    def _has_teachers(self, trial: Trial) -> bool:
        return all(self._ended.get(t.identity, t.identity not in self._inside) for t in trial.needs.values())

    def begin(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            self.waiting.remove(trial)
            self.running.add(trial.identity)
            self._attempts[trial.identity] = self._attempts.get(trial.identity, 0) + 1

    def note(self, event: Event) -> None:
        """Remember how a trial ended, if this event says so."""
        if event.kind in {"done", "failed"}:
            self._ended[event.trial.identity] = event.kind == "done"
            self.running.discard(event.trial.identity)

    def may_resume(self, trial: Trial) -> bool:
        """Put a trial whose process died first in the queue, if it was not resumed yet."""
        if self._attempts[trial.identity] >= ATTEMPTS:
            return False
        self.running.discard(trial.identity)
        self.waiting.insert(0, trial)
        return True

    def give_up_orphans(self) -> Iterator[Event]:
        """End those whose teacher failed."""
        if all(self._ended.values()):
            return
        for trial in list(self.waiting):
            lost = [needed.label for needed in trial.needs.values() if self._ended.get(needed.identity) is False]
            if lost:
                self.waiting.remove(trial)
                self._ended[trial.identity] = False
                yield Event(trial, "failed", {"error": f"{trial.label}: what it needs failed: {', '.join(lost)}"})


def pick_executor(name: str, given: Mapping[str, Any]) -> type[Executor]:
    """The class of an executor that can run here.

    given: the options of single executors, as in ``takes``; those it does not read must be empty.

    Raises:
        ZooError: it is unknown, lacks what it needs, or does not read an option that was given.
    """
    cls = load_executor(name)
    for option, value in given.items():
        if value and option not in cls.takes:
            raise ZooError(f"--executor {name} does not read --{option}: leave it out, or name another executor")
    cls.check()
    return cls
