"""SIGTERM as an interrupt like Ctrl-C: what a batch system or ``kill`` sends is no reason to lose work."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes: 128 and the number of the signal."""


class TerminatedInterrupt(KeyboardInterrupt):
    """SIGTERM came."""


@contextmanager
def terminable() -> Iterator[None]:
    """Raise TerminatedInterrupt in here when SIGTERM comes; outside the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def until_stopped(work: Callable[[], int], say: Callable[[str], None]) -> int:
    """What ``work`` returns or, after Ctrl-C or SIGTERM, the exit code of that; it is said how to go on."""
    try:
        with terminable():
            return work()
    except KeyboardInterrupt as stopped:
        terminated = isinstance(stopped, TerminatedInterrupt)
        how = "terminated" if terminated else "interrupted"
        say(f"{how}; what is finished is kept: the same command goes on from there")
        return TERMINATED if terminated else INTERRUPTED


def _stop(number: int, frame: FrameType | None) -> None:
    raise TerminatedInterrupt
