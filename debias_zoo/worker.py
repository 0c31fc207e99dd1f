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
    """Run the trial of a job, as in ``Setup.job``; ``send(event, **content)`` is told all, at last done or failed."""
    from .errors import ZooError
    from .registry import name_files
    from .runner import run_trial
    from .trial import Trial

    root = Path(job["root"]) if job["root"] is not None else None
    name_files([Path(file) for file in job["plugins"]])  # the driver's user named them
    try:
        run_trial(
            Trial.model_validate(job["trial"]),
            Path(job["out"]),
            device=job["device"],
            root=root,
            report=lambda state: send("progress", **state),
            warn=lambda text: send("warning", text=text),
            track=job["track"],
        )
    except ZooError as error:
        said = str(error)
    except Exception as error:  # such as a lock that cannot be taken; the driver must hear of it
        said = f"{type(error).__name__}: {error}"
    else:
        send("done")
        return
    _free_memory()  # the error is forgotten here, and with it what it held
    send("failed", error=said)


def _free_memory() -> None:
    """Give back what a failed trial held: it may have failed for lack of memory, and others share the machine."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()  # nothing where there is no GPU


if __name__ == "__main__":
    main()
