"""Where trials run and in which precision: what the machine has."""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import suppress
from pathlib import Path

import torch

from .errors import ZooError, unknown

PRECISIONS = ("auto", "fp32", "bf16")


def default_precision(device: str) -> str:
    """bf16 on a GPU that computes in it and on a processor with a matrix unit (AMX), else fp32.

    With AVX-512's bf16 instructions alone, steps in bf16 were slower than in fp32 on the Xeon that was measured
    (docs/speed.md).
    """
    if device == "cpu":
        return "bf16" if torch.cpu._is_amx_tile_supported() else "fp32"
    if device.startswith("cuda"):
        if not torch.cuda.is_available():  # the trials run on other machines
            raise ZooError("--precision auto asks the GPU, and this machine has none: say --precision bf16 or fp32")
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "fp32"


def pick_precision(device: str, text: str) -> str:
    """``auto`` as what suits the device; anything else checked."""
    if text not in PRECISIONS:
        raise unknown("precision", text, PRECISIONS)
    return default_precision(device) if text == "auto" else text


def pick_device(text: str) -> str:
    """``auto`` as what there is; anything else checked."""
    if text == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = text.partition(":")
    if kind == "cpu" and not index:
        return text
    if kind == "mps" and not index and torch.backends.mps.is_available():
        return text
    if kind == "cuda" and (index or "0").isdecimal() and int(index or 0) < torch.cuda.device_count():
        return text
    there = ["cpu", *(f"cuda:{k}" for k in range(torch.cuda.device_count()))]
    raise ZooError(f"device {text!r} is not here; this machine has: {', '.join(there)}; or say auto")


def visible_gpus() -> tuple[str, ...]:
    """The GPUs this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in named.split(",")] if named else [str(k) for k in range(count)]
    return tuple(names[:count])


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor(device: str) -> str:
    """The name of what computes."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(torch.device(device))
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks instead of returning them to the system; elsewhere nothing happens.

    A batch of images is a few megabytes. Blocks of that size are otherwise mapped anew each time, and the first touch
    of every page costs more than the arithmetic: batches are made twice as fast with this.
    """
    with suppress(OSError, AttributeError, ValueError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(_M_TRIM_THRESHOLD, 2**30)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt (malloc.h)."""
