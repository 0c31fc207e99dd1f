"""``make bench``: images a second of the cached, batched path against the plain way, and memory on a million images.

The plain way is a ``DataLoader`` over torchvision's ``ImageFolder`` with two workers and torchvision's transforms: it
decodes and augments image by image, every epoch. Ours decodes once and then gathers and augments whole batches, with
two threads. Both give float images (64, 3, 64, 64), cut, scaled and mirrored at random, with labels; rates are of an
epoch after the first.

    python tests/benchmarks/data.py throughput --data-root DIR     # DIR holds dogs_cats/
    python tests/benchmarks/data.py memory --images 1000000
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parent.parent.parent)]

from debias_zoo.augment import augmented
from debias_zoo.dataset import Split
from debias_zoo.decode import RowFile
from debias_zoo.devices import keep_freed_memory
from debias_zoo.engine import DeviceSplit
from debias_zoo.grid import parse_datasets
from debias_zoo.protocol import Augment
from debias_zoo.torchvision_guard import import_timm

BATCH, SIDE = 64, 64
HOW = Augment(resized_crop=(0.7, 1.0), flip=True)


def epoch_of(split: Split) -> Callable[[int], float]:
    """Seconds of an epoch of augmented batches, as the trainer takes them."""
    device = DeviceSplit(split, torch.device("cpu"), see_bias=True)

    def run(epoch: int) -> float:
        started = time.perf_counter()
        order = torch.randperm(len(device), generator=torch.Generator().manual_seed(epoch))
        chunks = list(order.split(BATCH))
        generator = torch.Generator()
        for rows, pixels in zip(chunks, device.pixels(chunks), strict=True):
            device.batch(
                rows, generator, pixels, lambda image, bias_map, at: augmented(HOW, image, bias_map, at, epoch)
            )
        return time.perf_counter() - started

    return run


def plain_epoch(root: Path, folder: Path) -> Callable[[int], float]:
    """Seconds of an epoch the plain way, of the same files laid out as ``ImageFolder`` wants them."""
    import_timm()  # makes torchvision importable
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    (dataset,) = parse_datasets(f"dogs-cats:size={SIDE}")
    found = dataset.files(root, "train")  # type: ignore[attr-defined]
    for file, label in zip(found.files, found.labels, strict=True):
        target = folder / dataset.card.classes[label] / file.name
        target.parent.mkdir(exist_ok=True)
        target.symlink_to(file.resolve())
    steps = [
        v2.RandomResizedCrop(SIDE, scale=HOW.resized_crop or (1, 1), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
    ]
    images = ImageFolder(str(folder), v2.Compose(steps))
    loader = torch.utils.data.DataLoader(images, BATCH, shuffle=True, num_workers=2, persistent_workers=True)

    def run(epoch: int) -> float:
        started = time.perf_counter()
        for _ in loader:
            pass
        return time.perf_counter() - started

    return run


def throughput(root: Path, count: int) -> None:
    """Print rates and their ratio, measured in turn."""
    (dataset,) = parse_datasets(f"dogs-cats:size={SIDE}")
    split = dataset.load(root, "train")
    with tempfile.TemporaryDirectory() as folder:
        ours, plain = epoch_of(split), plain_epoch(root, Path(folder))
        ours(0)
        plain(0)
        pairs = [(len(split) / ours(k), len(split) / plain(k)) for k in range(1, count + 1)]
    rates = [statistics.median(column) for column in zip(*pairs, strict=True)]
    ratios = sorted(one / two for one, two in pairs)
    print(f"ours {rates[0]:,.0f} images/s, DataLoader over ImageFolder {rates[1]:,.0f} images/s")
    print(f"ratio {statistics.median(ratios):.1f} ({ratios[0]:.1f} ... {ratios[-1]:.1f}); goal 8")


def memory(images: int) -> None:
    """Print the peak of resident memory of a process that takes an epoch of ``images`` images of 64 px from a file."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DEBIAS_ZOO_CACHE")) as folder:
        path = Path(folder) / "images.u8"
        block = np.random.default_rng(0).integers(0, 256, (1000, SIDE, SIDE, 3), np.uint8).tobytes()
        with path.open("wb") as file:
            for _ in range(0, images, 1000):
                file.write(block)
        command = [sys.executable, __file__, "epoch", "--images", str(images), "--file", str(path)]
        print(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())


def one_epoch(path: Path, images: int) -> None:
    """An epoch over a file of rows, and the peak of resident memory."""
    rows = RowFile(path, (SIDE, SIDE, 3), np.arange(images, dtype=np.int64))
    seconds = epoch_of(Split(rows, np.zeros(images, np.int64)))(0)
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 2**20
    print(f"{images:,} images of {SIDE} px: {images / seconds:,.0f} images/s, at most {peak:.2f} GB resident; goal 1.5")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["throughput", "memory", "epoch"])
    parser.add_argument("--data-root", type=Path, default=os.environ.get("DEBIAS_ZOO_DATA"))
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--file", type=Path)
    asked = parser.parse_args()
    keep_freed_memory()  # as a worker does
    if asked.what == "throughput":
        if asked.data_root is None:
            parser.error("--data-root, or $DEBIAS_ZOO_DATA: the folder that holds dogs_cats/")
        throughput(Path(asked.data_root), asked.count)
    elif asked.what == "memory":
        memory(asked.images)
    else:
        one_epoch(asked.file, asked.images)


if __name__ == "__main__":
    main()
