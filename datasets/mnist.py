"""The bundled MNIST digits by split, with validation digits held out of the training ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from debias_zoo.dataset import Images, Ints
from debias_zoo.errors import ZooError, unknown
from debias_zoo.seeds import seed_for

MNIST = Path(__file__).parent / "data" / "mnist.npz"
MNIST_SHA256 = "39b9b1ffaa0ba4d8995a616551f0966941fe02a3fe79ba4a9db7373db16d53ad"
MNIST_LICENCE = "CC BY-SA 3.0 (MNIST, Y. LeCun and C. Cortes)"
MNIST_ORIGIN = "bundled: all 70,000 images of MNIST; the colours are generated"

Arrays = Mapping[str, npt.NDArray[Any]]


def eval_splits(val: int) -> tuple[str, ...]:
    """The splits that are evaluated; the validation splits are there unless ``val`` is 0."""
    return ("val", "val_unbiased", "test") if val else ("test",)


def digits_of(
    dataset: str, split: str, val: int, data_seed: int, arrays: Callable[[], Arrays] | None = None
) -> tuple[Images, Ints]:
    """Grey digits uint8 (N, 28, 28) of a split, with labels int64 (N,), in MNIST's order.

    ``val`` training digits, drawn by ``dataset`` and ``data_seed``, are ``val`` and ``val_unbiased`` alike. ``arrays``
    gives ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``, of MNIST if it is None; they may have
    any shape, such as that of CIFAR-10.
    """
    known = ("train", *eval_splits(val))
    if split not in known:
        raise unknown(f"split of {dataset}", split, known)
    part = "test" if split == "test" else "train"
    found = (arrays or _arrays)()
    digits, labels = found[f"{part}_images"], found[f"{part}_labels"].astype(np.int64)
    if split == "test":
        return digits, labels
    if val >= len(labels):
        raise ZooError(f"data set {dataset!r}: val={val} of {len(labels)} training images leaves none to train on")
    order = np.random.default_rng(seed_for(dataset, "split", data_seed)).permutation(len(labels))
    rows = np.sort(order[val:] if split == "train" else order[:val])
    return digits[rows], labels[rows]


@lru_cache(maxsize=1)
def _arrays() -> Arrays:
    found = hashlib.sha256(MNIST.read_bytes()).hexdigest() if MNIST.exists() else "no file"
    if found != MNIST_SHA256:
        raise ZooError(f"the bundled {MNIST.name} is damaged (sha256 {found}): install debias-zoo again")
    with np.load(MNIST, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
