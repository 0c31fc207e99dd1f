"""Splits made in memory: made once, mapped by every process, made anew when what they follow from has changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from debias_zoo import shared as module
from debias_zoo.assembly import dataset_of
from debias_zoo.cache import kept, made_once
from debias_zoo.dataset import BiasDataset
from debias_zoo.engine import DeviceSplit
from debias_zoo.grid import Request, build_grid
from debias_zoo.runner import load_splits
from debias_zoo.shared import shared_split
from debias_zoo.slots import _largest
from debias_zoo.trial import Trial


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEBIAS_ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def trial_of(dataset: str = "cmnist") -> Trial:
    (trial,) = build_grid(Request(["erm"], [dataset])).trials.values()
    return trial


def forbid_loading(monkeypatch: pytest.MonkeyPatch, data: BiasDataset) -> None:
    def load(*given: Any) -> Any:
        raise AssertionError("made again")

    monkeypatch.setattr(type(data), "load", load)


def test_a_split_is_made_once_and_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = trial_of()
    data = dataset_of(trial)
    made = {name: data.load(None, name) for name in ("train", *data.card.eval_splits)}
    load_splits(trial, None)
    forbid_loading(monkeypatch, data)
    train, evals = load_splits(trial, None)
    for name, split in {"train": train, **evals}.items():
        for part in ("images", "labels", "biases", "bias_map"):
            array, expected = getattr(split, part), getattr(made[name], part)
            assert (array is None) == (expected is None)
            if array is not None:
                assert isinstance(array, np.memmap)
                assert array.dtype == expected.dtype
                assert np.array_equal(array, expected)
    assert _largest([trial], None) == 0, "what is mapped needs no memory of a worker"


def test_a_worker_reads_the_mapped_pages_themselves() -> None:
    train, _ = load_splits(trial_of(), None)
    train, _ = load_splits(trial_of(), None)
    assert isinstance(train.images, np.memmap)
    import torch

    split = DeviceSplit(train, torch.device("cpu"), True)
    assert split._images is not None
    assert split._images.data_ptr() == train.images.ctypes.data, "it was copied"


def test_what_one_process_writes_no_other_sees() -> None:
    made_once("key", lambda: {"a": np.zeros(3, np.uint8)})["a"][:] = 7
    assert made_once("key", dict)["a"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("damage", ["a.npy", "done.json"])
def test_damaged_files_are_made_again(damage: str, cache: Path) -> None:
    calls = []

    def make() -> dict[str, Any]:
        calls.append(1)
        return {"a": np.arange(12, dtype=np.uint8).reshape(3, 4), "b": np.arange(3)}

    for _ in range(2):
        found = made_once("key", make)
        assert found["a"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert len(calls) == 1
    (cache / "key" / damage).write_bytes(b"short")
    assert kept("key") is None
    assert made_once("key", make)["b"].tolist() == [0, 1, 2]
    assert len(calls) == 2


@pytest.mark.parametrize("change", ["version", "params", "fingerprint", "split", "code", "root"])
def test_what_a_split_follows_from_is_in_its_name(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset_of(trial_of())
    before = module._key(data, None, "test", "f")
    given: list[Any] = [data, None, "test", "f"]
    if change == "version":
        monkeypatch.setattr(type(data), "version", data.version + 1)
    elif change == "params":
        given[0] = dataset_of(trial_of("cmnist:variance=0.03"))
    elif change == "code":
        monkeypatch.setattr(module, "_code", lambda cls: "other")
    else:
        place = {"root": 1, "split": 2, "fingerprint": 3}[change]
        given[place] = Path("elsewhere") if change == "root" else "other"
    assert module._key(*given) != before


def test_without_a_cache_it_stays_in_memory(cache: Path) -> None:
    cache.write_text("a file in its place")
    data = dataset_of(trial_of())
    split = shared_split(data, None, "test", "")
    assert not isinstance(split.images, np.memmap)
    assert np.array_equal(split.images, data.load(None, "test").images)


def test_small_splits_leave_nothing_behind(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_BYTES", 2**40)
    shared_split(dataset_of(trial_of()), None, "test", "")
    assert not cache.exists() or not os.listdir(cache)
