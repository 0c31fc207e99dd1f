"""One trial in a process that someone else started: a Ray worker or a Slurm job. Text in, text out.

Nothing heavy is imported before the number of threads is fixed.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from .threads import thread_variables


def run_job(text: str) -> str:
    """Run the trial of a job and return its last event as JSON: "done", or "failed" with ``error``.

    text: JSON of ``Setup.job`` with ``threads``, ``cwd``, which relative paths in the data set's parameters start from,
    and ``events``, the file that each event is appended to as a line of JSON.
    """
    job = json.loads(text)
    os.environ.update(thread_variables(job["threads"]))
    here = Path(__file__).resolve().parent  # Ray looks for modules where the driver's script lies: not our inner ones
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != here]
    with suppress(OSError):  # not there on this machine: relative paths will say so
        os.chdir(job["cwd"])
    import torch

    from .devices import keep_freed_memory
    from .worker import perform

    keep_freed_memory()
    torch.set_num_threads(job["threads"])
    last = ""

    def send(event: str, **content: Any) -> None:
        nonlocal last
        last = json.dumps({"event": event, **content})
        # the driver may be gone, and its folder with it, or the disk full: the trial itself counts
        with suppress(OSError), Path(job["events"]).open("a") as file:
            file.write(last + "\n")

    send("started")
    perform(job, send)
    return last
