"""The environment variables that say how many threads a process computes with, and how they wait."""

from __future__ import annotations

import os


def thread_variables(threads: int) -> dict[str, str]:
    """To be set before torch is imported.

    Threads that wait for each other sleep, unless ``OMP_WAIT_POLICY`` says otherwise: where other work takes a core,
    one that spins keeps the other from it for a whole slice of the scheduler, at every operation.
    """
    number = str(threads)
    return {
        "OMP_NUM_THREADS": number,
        "MKL_NUM_THREADS": number,
        "OPENBLAS_NUM_THREADS": number,
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"),
    }
