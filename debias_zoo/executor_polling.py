"""What executors on a cluster share: trials run elsewhere on a shared folder, and are heard of through files there."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from .errors import ZooError
from .executors import Event, Executor, Setup
from .trial import Trial
from .writing import cannot_write


@dataclass
class _Running:
    trial: Trial
    handle: Any
    events: Path
    read: int = 0
    last: dict[str, Any] = field(default_factory=dict)


class PollingExecutor(Executor):
    """Looks every ``seconds`` at what the trials wrote and whether they have ended.

    Subclasses define ``submit``, ``ended`` and ``cancel``, and call ``close`` at the end of their own.
    """

    remote = True
    seconds: ClassVar[float] = 0.5

    def __init__(self, setup: Setup) -> None:
        root = setup.root.resolve() if setup.root is not None else None
        super().__init__(replace(setup, out=setup.out.resolve(), root=root))
        self._running: dict[str, _Running] = {}
        self._told: deque[Event] = deque()
        try:
            self._mail = Path(tempfile.mkdtemp(prefix=".events-", dir=self.setup.out))
        except OSError as error:
            raise cannot_write(self.setup.out, error, "; choose another place with --out") from error

    def submit(self, trial: Trial, text: str) -> Any:
        """Have ``remote.run_job(text)`` called in a process somewhere; returns a handle."""
        raise TypeError(f"{type(self).__name__} must define submit(trial, text)")

    def ended(self, handle: Any) -> dict[str, Any] | None:
        """None while it runs or waits; then its last event, or ``{"event": "died", "error": why}``."""
        raise TypeError(f"{type(self).__name__} must define ended(handle)")

    def cancel(self, handle: Any) -> None:
        """End what was submitted, now."""
        raise TypeError(f"{type(self).__name__} must define cancel(handle)")

    def free(self) -> bool:
        return len(self._running) < self.setup.slots

    def begin(self, trial: Trial) -> None:
        file, events = tempfile.mkstemp(prefix=f"{trial.identity}-", suffix=".jsonl", dir=self._mail)
        os.close(file)  # written there, read here by its name
        more = {"threads": self.setup.threads, "cwd": os.getcwd(), "events": events}
        handle = self.submit(trial, json.dumps({**self.setup.job(trial), **more}))
        self._running[trial.identity] = _Running(trial, handle, Path(events))

    def wait(self) -> Event:
        while not self._told:
            for running in list(self._running.values()):
                self._told.extend(self._news(running))
            if not self._told:
                time.sleep(self.seconds)
        return self._told.popleft()

    def close(self) -> None:
        for running in self._running.values():
            with suppress(Exception):  # whatever it was, the others are to be cancelled too
                self.cancel(running.handle)
        self._running.clear()
        shutil.rmtree(self._mail, ignore_errors=True)

    def _news(self, running: _Running) -> Iterator[Event]:
        final = self.ended(running.handle)  # asked first: what it wrote before is read below
        for message in _new_lines(running):
            kind = message.pop("event")
            if kind in {"done", "failed"}:
                running.last = {"event": kind, **message}
            else:
                yield Event(running.trial, kind, message)
        if final is None:
            return
        if final["event"] == "died" and running.last:
            final = running.last  # it had ended before its machine went
        del self._running[running.trial.identity]
        yield Event(running.trial, final.pop("event"), final)


def _new_lines(running: _Running) -> list[dict[str, Any]]:
    """The whole lines that were appended since the last look; a folder that cannot be read now can be later."""
    try:
        with running.events.open("rb") as file:
            file.seek(running.read)
            text = file.read()
    except OSError:
        return []
    whole = text[: text.rfind(b"\n") + 1]
    running.read += len(whole)
    return [json.loads(line) for line in whole.splitlines()]


def missing(option: str, package: str, extra: str) -> ZooError:
    """The error for an extra that is not installed."""
    return ZooError(f"--executor {option} needs the package {package}: pip install 'debias-zoo[{extra}]'")
