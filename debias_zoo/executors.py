"""Local worker processes, one a slot; a failing or dying trial costs no other one anything."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .trial import Trial

ATTEMPTS = 2
"""How often a trial is begun whose worker dies: once, and once resumed."""


@dataclass(frozen=True)
class Event:
    """What happened to a trial: "started", "progress", "warning", "done" or "failed", with its details."""

    trial: Trial
    kind: str
    content: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Worker:
    process: subprocess.Popen[str]
    log: IO[str]
    trial: Trial | None = None

    def close(self) -> None:
        """Close what connects to it, once it has ended."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.log.close()


class LocalExecutor:
    """Runs trials in ``slots`` long-lived worker processes of ``threads`` threads each.

    Args:
        out: the store. device: as for torch. root: where downloaded data lie. track: names of trackers.
    """

    def __init__(
        self,
        slots: int,
        threads: int,
        out: Path,
        device: str = "cpu",
        root: Path | None = None,
        track: Sequence[str] = (),
    ) -> None:
        self.slots, self.threads, self.out, self.device, self.root = slots, threads, out, device, root
        self.track = list(track)
        self._events: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]] = queue.SimpleQueue()
        self._workers: list[_Worker] = []

    def run(self, trials: Sequence[Trial], keep: bool = False) -> Iterator[Event]:
        """Run ``trials`` in order, each after those it needs; yields events until all are done or failed.

        ``keep``: the workers wait for a next call, and ``close`` ends them.
        """
        waiting = list(trials)
        ended: dict[str, bool] = {}
        attempts: dict[str, int] = {}
        inside = {trial.identity for trial in trials}
        try:
            while waiting or any(worker.trial for worker in self._workers):
                yield from self._give_up_orphans(waiting, ended)
                yield from self._hand_out(waiting, ended, inside, attempts)
                if not any(worker.trial for worker in self._workers):
                    continue
                worker, message = self._events.get()
                yield from self._take(worker, message, waiting, ended, attempts)
        except BaseException:  # Ctrl-C, or whoever reads the events stops: what runs is not waited for
            keep = False
            raise
        finally:
            if not keep:
                self.close()

    def close(self) -> None:
        """End all workers; what they held can be resumed."""
        for worker in self._workers:
            worker.process.kill()
            worker.process.wait()
            worker.close()
        self._workers.clear()

    def _give_up_orphans(self, waiting: list[Trial], ended: dict[str, bool]) -> Iterator[Event]:
        for trial in list(waiting):
            lost = [needed.label for needed in trial.needs.values() if ended.get(needed.identity) is False]
            if lost:
                waiting.remove(trial)
                ended[trial.identity] = False
                yield Event(trial, "failed", {"error": f"{trial.label}: what it needs failed: {', '.join(lost)}"})

    def _hand_out(
        self, waiting: list[Trial], ended: dict[str, bool], inside: set[str], attempts: dict[str, int]
    ) -> Iterator[Event]:
        for trial in list(waiting):
            ready = all(ended.get(t.identity, t.identity not in inside) for t in trial.needs.values())
            worker = self._idle() if ready else None
            if worker is None:
                continue
            waiting.remove(trial)
            worker.trial = trial
            attempts[trial.identity] = attempts.get(trial.identity, 0) + 1
            self._send(worker, trial)
            yield Event(trial, "started")

    def _take(
        self,
        worker: _Worker,
        message: dict[str, Any] | None,
        waiting: list[Trial],
        ended: dict[str, bool],
        attempts: dict[str, int],
    ) -> Iterator[Event]:
        trial = worker.trial
        if message is None:
            error = self._bury(worker)
            if trial is None:
                return
            if attempts[trial.identity] < ATTEMPTS:
                waiting.insert(0, trial)
                yield Event(trial, "warning", {"text": f"{trial.label}: {error}; resuming it"})
                return
            message = {"event": "failed", "error": f"{trial.label}: {error}, twice"}
        if trial is None:
            return
        kind = message.pop("event")
        if kind in {"done", "failed"}:
            ended[trial.identity] = kind == "done"
            worker.trial = None
        yield Event(trial, kind, message)

    def _idle(self) -> _Worker | None:
        for worker in self._workers:
            if worker.trial is None:
                return worker
        return self._start() if len(self._workers) < self.slots else None

    def _start(self) -> _Worker:
        package = str(Path(__file__).resolve().parent.parent)
        paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        threads = str(self.threads)
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        env.update(OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads, OPENBLAS_NUM_THREADS=threads)
        log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  (open as long as the worker)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "debias_zoo.worker"],  # -P: nothing is imported from where the user stands
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=env,
            start_new_session=True,  # Ctrl-C is the driver's; it ends the workers
        )
        worker = _Worker(process, log)
        self._workers.append(worker)
        threading.Thread(target=self._read, args=(worker,), daemon=True).start()
        return worker

    def _send(self, worker: _Worker, trial: Trial) -> None:
        job = {
            "trial": trial.model_dump(mode="json"),
            "out": str(self.out),
            "device": self.device,
            "root": str(self.root) if self.root is not None else None,
            "track": self.track,
        }
        assert worker.process.stdin is not None
        try:
            worker.process.stdin.write(json.dumps(job) + "\n")
            worker.process.stdin.flush()
        except BrokenPipeError:
            return  # it has died; its reader tells

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
