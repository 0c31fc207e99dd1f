"""Local worker processes, one a slot."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .executors import Event, Executor, Setup
from .threads import thread_variables
from .trial import Trial


@dataclass
class _Worker:
    process: subprocess.Popen[str]
    log: IO[str]
    slot: int
    trials: dict[str, Trial] = field(default_factory=dict)

    def close(self) -> None:
        """Close what connects to it, once it has ended."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.log.close()


class LocalExecutor(Executor):
    """Runs trials in ``slots`` long-lived worker processes of ``threads`` threads each.

    A slot is a share of a GPU where there are some: slot k sees GPU k modulo their number, and no other.
    """

    name = "local"
    takes = ("per-gpu", "stack-seeds")

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._events: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]] = queue.SimpleQueue()
        self._workers: list[_Worker] = []

    def free(self) -> bool:
        return sum(bool(worker.trials) for worker in self._workers) < self.setup.slots

    def begin(self, trial: Trial) -> None:
        self.begin_stack([trial])

    def begin_stack(self, trials: Sequence[Trial]) -> None:
        idle = [worker for worker in self._workers if not worker.trials]
        worker = idle[0] if idle else self._start()
        worker.trials = {trial.identity: trial for trial in trials}
        for identity in worker.trials:
            self._events.put((worker, {"event": "started", "trial": identity}))
        assert worker.process.stdin is not None
        with suppress(BrokenPipeError):  # it has died; its reader tells
            worker.process.stdin.write(json.dumps(self.setup.job(*trials)) + "\n")
            worker.process.stdin.flush()

    def wait(self) -> Event:
        while True:
            worker, message = self._events.get()
            if message is None:
                died = {"event": "died", "error": self._bury(worker)}
                for identity in worker.trials:  # none, if it died while it had nothing to do
                    self._events.put((worker, {**died, "trial": identity}))
                continue
            kind, identity = message.pop("event"), message.pop("trial", None) or next(iter(worker.trials), "")
            if (trial := worker.trials.get(identity)) is None:
                continue  # it has ended before
            if kind in {"done", "failed", "died"}:
                del worker.trials[identity]
            return Event(trial, kind, message)

    def close(self) -> None:
        for worker in self._workers:
            worker.process.kill()
            worker.process.wait()
            worker.close()
        self._workers.clear()

    def _start(self) -> _Worker:
        slot = min(set(range(self.setup.slots)) - {worker.slot for worker in self._workers})
        log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  (open as long as the worker)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "debias_zoo.worker"],  # -P: nothing is imported from where the user stands
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=self._environment(slot),
            start_new_session=True,  # Ctrl-C is the driver's; it ends the workers
        )
        worker = _Worker(process, log, slot)
        self._workers.append(worker)
        threading.Thread(target=self._read, args=(worker,), daemon=True).start()
        return worker

    def _environment(self, slot: int) -> dict[str, str]:
        package = str(Path(__file__).resolve().parent.parent)
        paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **thread_variables(self.setup.threads)}
        if gpus := self.setup.gpus:
            env["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
        return env

    def _read(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        with worker.process.stdout as lines:
            for line in lines:
                with suppress(json.JSONDecodeError):  # half a line: it died while it wrote
                    self._events.put((worker, json.loads(line)))
        self._events.put((worker, None))

    def _bury(self, worker: _Worker) -> str:
        """Forget a dead worker; what it died of."""
        code = worker.process.wait()
        worker.log.seek(0)
        last = worker.log.read().strip().splitlines()[-1:]
        worker.close()
        if worker in self._workers:
            self._workers.remove(worker)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"its worker died ({how}){': ' + last[0] if last else ''}"
