"""``make bench``: what a grid costs beyond its trials, with a method that only waits and with one that works.

    python tests/benchmarks/grid.py [throughput|waiting] [--trials N]

throughput: trials an hour with two jobs against one, of ERM on Colored MNIST.
waiting: seconds beyond the work divided by the slots for trials that wait for a second, and what each trial adds.

Both say how long it took until the first trial began, most of which is importing torch and timm, and which share of the
processor the driver took from then on.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent

WAITING = '''
import time

from debias_zoo.methods.erm import ERM


class Waiting(ERM):
    """ERM that waits for a second."""

    name = "waiting"

    def finish(self, train, val):
        time.sleep(1.0)
'''
"""A plugin; what it trains is next to nothing."""


def plugin(folder: Path) -> None:
    """An installed package with the method above."""
    info = folder / "waiting_zoo-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: waiting-zoo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[debias_zoo.methods]\nwaiting = waiting_zoo:Waiting\n")
    (folder / "waiting_zoo.py").write_text(WAITING)


def data(folder: Path) -> Path:
    """Sixty images in an .npz."""
    import numpy as np

    from debias_zoo.dataset import BiasDataset

    random = np.random.default_rng(0)
    rows = np.arange(60)
    images = random.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    splits = np.array(["train", "val", "test"])[rows % 3]
    BiasDataset.from_arrays(images, rows // 3 % 2, rows // 6 % 2, splits=splits).save(folder / "tiny.npz")
    return folder / "tiny.npz"


@dataclass(frozen=True)
class Timed:
    """Seconds of a run: of all of it, until the first trial began, and of processor that its driver took since."""

    wall: float
    start: float
    driver: float

    def __str__(self) -> str:
        share = self.driver / (self.wall - self.start)
        return f"{self.wall:.1f} s, {self.start:.1f} s of them to start; then the driver took {share:.2%} (goal 1 %)"


def run(folder: Path, *options: str) -> Timed:
    """Time a run."""
    paths = os.pathsep.join([str(ROOT), str(folder)])
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(Path(__file__)), "driver", *options],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=folder,
    )
    wall = time.perf_counter() - started
    found = re.search(r"driver began after ([\d.]+), then took ([\d.]+)", done.stdout)
    assert found is not None, done.stdout
    return Timed(wall, float(found[1]), float(found[2]))


def driver(options: list[str]) -> None:
    """The command line, which then tells after how long it began trials, and how long its own process worked since."""
    started = time.perf_counter()
    from debias_zoo import driver as module
    from debias_zoo.cli import cli

    began: list[float] = []
    execute = module.execute

    def timed(*given: Any, **named: Any) -> dict[str, str]:
        began.extend([time.perf_counter() - started, processor_seconds()])
        return execute(*given, **named)

    module.execute = timed
    code = 0
    try:
        cli.main(["run", *options], prog_name="debias-zoo", standalone_mode=False)
    except SystemExit as ended:
        code = int(ended.code or 0)
    if code:
        raise SystemExit(code)
    print(f"driver began after {began[0]:.3f}, then took {processor_seconds() - began[1]:.3f}")


def processor_seconds() -> float:
    """Of this process so far."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_utime + own.ru_stime


def throughput(trials: int) -> bool:
    """Two jobs against one; each trial has one thread in both."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        common = ["--methods", "erm", "--dataset", "cmnist", "--protocol", "quick", "--device", "cpu"]
        common += ["--set", "erm.train.epochs=20", "--seeds", str(trials)]
        seconds = {}
        every = os.sched_getaffinity(0)
        for jobs in (1, 2):
            os.sched_setaffinity(0, sorted(every)[:jobs])  # one core a job, so one thread in both
            timed = run(folder, *common, "--jobs", str(jobs), "--out", f"runs{jobs}")
            seconds[jobs] = timed.wall
            print(f"{jobs} jobs: {trials} trials in {timed}")
    ratio = seconds[1] / seconds[2]
    print(f"two jobs finish {ratio:.2f} times the trials of one (goal 1.8)")
    return ratio >= 1.8


def waiting(trials: int) -> bool:
    """Trials that wait for a second in two slots."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plugin(folder)
        path = data(folder)
        options = ["--methods", "waiting", "--dataset", f"arrays:file={path.name}", "--protocol", "quick"]
        options += ["--backbone", "mlp", "--device", "cpu", "--jobs", "2", "--seeds", str(trials), "--out", "runs"]
        timed = run(folder, *options)
        results = [json.loads(path.read_text()) for path in (folder / "runs").rglob("result.json")]
    assert len(results) == trials, len(results)
    work = trials * 1.0 / 2
    inside = sum(result["seconds"]["total"] for result in results) / trials
    beyond, each = timed.wall / work - 1, 2 * (timed.wall - timed.start) / trials - inside
    print(f"{trials} trials of a second in 2 slots: {timed}")
    print(f"{beyond:.1%} beyond the work (goal 10 %)")
    print(f"a trial itself: {inside:.3f} s; beyond it {each:.3f} s, the start of the workers included (goal 0.3)")
    return beyond <= 0.1


def main() -> None:
    """Run what is asked for; exit 1 where a goal is missed."""
    if sys.argv[1:2] == ["driver"]:
        driver(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["throughput", "waiting"])
    parser.add_argument("--trials", type=int)
    asked = parser.parse_args()
    goals = []
    if asked.what in {None, "waiting"}:
        goals.append(waiting(asked.trials or 1000))
    if asked.what in {None, "throughput"}:
        goals.append(throughput(asked.trials or 12))
    raise SystemExit(0 if all(goals) else 1)


if __name__ == "__main__":
    main()
