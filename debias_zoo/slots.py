"""How many trials run side by side, and with how many threads each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from .devices import cores
from .errors import ZooError
from .runner import load_splits
from .trial import Trial

MOST_THREADS = 1024

WORKER_BYTES = 2**30
"""Taken for a worker without its data: the interpreter, torch, a net and what training it holds."""


def share_out(
    jobs: str,
    trials: int,
    device: str,
    threads: str = "auto",
    gpus: Sequence[str] = (),
    per_gpu: int | None = None,
    remote: bool = False,
) -> tuple[int, int]:
    """Slots, and threads of each.

    The threads depend on the whole grid and the machine, and not on what is left of the grid or on the memory that is
    free: sums over threads round differently, and a resumed run must end with the same numbers. Where trials run on
    other machines a slot is a trial in their queue, and each has one thread unless more are asked for.

    gpus: those that slots are spread over. per_gpu: trials that share one of them.
    """
    if not (jobs == "auto" or (jobs.isdecimal() and int(jobs) > 0)):
        raise ZooError(f"--jobs {jobs}: a whole number from 1, or auto")
    if not (threads == "auto" or (threads.isdecimal() and 0 < int(threads) <= MOST_THREADS)):
        raise ZooError(f"--threads {threads}: a whole number from 1 to {MOST_THREADS}, or auto")
    if per_gpu is not None and not device.startswith("cuda"):
        raise ZooError(f"--per-gpu {per_gpu} shares a GPU, the device is {device}: leave it out, or say --device cuda")
    here = cores()
    if remote:
        most = max(trials, 1)
    elif device.startswith("cuda"):
        most = max(len(gpus), 1) * (per_gpu or 1)
    else:
        most = max(1, min(here, trials, total_memory() // WORKER_BYTES)) if device == "cpu" else 1
    slots = most if jobs == "auto" else int(jobs) if per_gpu is None else min(int(jobs), most)
    if threads != "auto":
        return slots, int(threads)
    return slots, 1 if remote else max(1, here // slots)


def fit_memory(slots: int, trials: Iterable[Trial], root: Path | None) -> int:
    """Fewer slots where what is free would not hold as many workers, each with the largest data set twice.

    Twice, since batches, predictions and what a method keeps are of the order of the data. Files that are mapped do not
    count: workers share their pages, and the system can drop them.
    """
    free = free_memory()
    if free is None:
        return slots
    return max(1, min(slots, free // (WORKER_BYTES + 2 * _largest(trials, root))))


def _largest(trials: Iterable[Trial], root: Path | None) -> int:
    """Bytes of the largest data set that lies in memory; one that cannot be loaded counts nothing."""
    found = {str((t.dataset, t.params, t.train_limit, t.eval_limit)): t for t in trials}
    sizes = [0]
    for trial in found.values():
        with suppress(Exception):  # the worker will tell what is wrong, on this trial alone
            train, evals = load_splits(trial, root)
            every = [split.images for split in (train, *evals.values())]
            sizes.append(sum(i.nbytes for i in every if isinstance(i, np.ndarray) and not isinstance(i, np.memmap)))
    return max(sizes)


def total_memory() -> int:
    """Bytes of memory this machine has, or lets this group of processes have."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError, ValueError):  # the limit of a container; "max" where there is none
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(sizes)


def free_memory(path: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that new processes can have without swapping, or None where the system does not say."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return min(int(line.split()[1]) * 1024, total_memory())
    return None
