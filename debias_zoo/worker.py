"""A worker process: takes trials as JSON lines on its standard input, answers with events as JSON lines.

It ends the moment its driver is gone: the driver holds the other end of its standard input, and the kernel closes that
whatever the driver died of.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TextIO

DRIVER_GONE = 3


def main() -> None:
    """Serve one driver until it closes the line."""
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not be taken for an event
    jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    import torch

    from .devices import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    while True:
        _serve(jobs.get(), events)


def _listen(jobs: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line))
    os._exit(DRIVER_GONE)


def _serve(job: dict[str, Any], events: TextIO) -> None:
    def send(event: str, **content: Any) -> None:
        try:
            print(json.dumps({"event": event, **content}), file=events, flush=True)
        except BrokenPipeError:  # noticed here before the listener noticed it
            os._exit(DRIVER_GONE)

    perform(job, send)


def perform(job: dict[str, Any], send: Callable[..., None]) -> None:
    """Run the trials of a job, as in ``Setup.job``; ``send(event, **content)`` is told all, at last done or failed.

    Where there are several, they are trained as one program, and each event says ``trial``, the identity of its own.
    """
    from .registry import name_files
    from .runner import How, Told, trial_course
    from .stacking import together
    from .trial import Trial

    # each holds the lock of its folder: taken in one order by all, no two programs wait for each other
    trials = sorted((Trial.model_validate(told) for told in job["trials"]), key=lambda trial: trial.identity)
    root = Path(job["root"]) if job["root"] is not None else None
    name_files([Path(file) for file in job["plugins"]])  # the driver's user named them
    how = How(Path(job["out"]), job["device"], root, job["track"], job["compiling"], stacked=len(trials) > 1)
    tell = [partial(send, trial=trial.identity) if len(trials) > 1 else send for trial in trials]

    def told(k: int) -> Told:
        return Told(lambda state: tell[k]("progress", **state), lambda text: tell[k]("warning", text=text))

    def ended(k: int, failed: str) -> None:
        if failed:
            _free_memory()
            tell[k]("failed", error=failed)
        else:
            tell[k]("done")

    courses = [trial_course(trial, how, told(k)) for k, trial in enumerate(trials)]
    together(courses, ended, lambda text: tell[0]("warning", text=text))


def _free_memory() -> None:
    """Give back what a failed trial held: it may have failed for lack of memory, and others share the machine."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()  # nothing where there is no GPU


if __name__ == "__main__":
    main()
