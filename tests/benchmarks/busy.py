"""How threads wait for each other, alone on the machine and where every core has other work too.

    python tests/benchmarks/busy.py [--seconds S]

Steps a second of ERM (fp32) in processes with one thread and with one a core, which spin or sleep while they wait. The
other work is a process a core that only counts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from debias_zoo.threads import thread_variables  # noqa: E402  (before torch)

BACKBONES = ("lnl_convnet", "mlp")


def train(backbone: str, seconds: float) -> None:
    """In a process of its own: print the steps a second."""
    import torch
    from training import cases, example

    case = cases()[backbone]
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    engine, (batch, clock) = case.engine("fp32"), example(case)
    engine.step(batch, clock)
    started, steps = time.perf_counter(), 0
    while (took := time.perf_counter() - started) < seconds:
        engine.step(batch, clock)
        steps += 1
    print(steps / took)


@contextmanager
def other_work(processes: int) -> Iterator[None]:
    """So many processes that count."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def rate(backbone: str, threads: int, waiting: str, seconds: float) -> float:
    """Steps a second."""
    env = {**os.environ, **thread_variables(threads), "OMP_WAIT_POLICY": waiting}
    if waiting == "spin":
        del env["OMP_WAIT_POLICY"]  # what OpenMP does unless it is told
    command = [sys.executable, __file__, "--train", backbone, "--seconds", str(seconds)]
    return float(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--train", choices=BACKBONES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.train:
        train(asked.train, asked.seconds)
        return
    cores = len(os.sched_getaffinity(0))
    print(f"{'backbone':12} threads waiting  alone  beside other work")
    for backbone in BACKBONES:
        for threads, waiting in ((1, "passive"), (cores, "spin"), (cores, "passive")):
            alone = rate(backbone, threads, waiting, asked.seconds)
            with other_work(cores):
                beside = rate(backbone, threads, waiting, asked.seconds)
            print(f"{backbone:12} {threads:7} {waiting:8} {alone:5.1f} {beside:18.1f}", flush=True)


if __name__ == "__main__":
    main()
