"""How many trials run at a time, with which threads and on which GPU."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from short_trials import trials

from debias_zoo import devices, shared, slots
from debias_zoo.errors import ZooError
from debias_zoo.executor_local import LocalExecutor
from debias_zoo.executors import Setup
from debias_zoo.slots import fit_memory, share_out


def test_slots_of_gpus_and_of_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "cores", lambda: 16)
    monkeypatch.setattr(slots, "total_memory", lambda: 64 * 2**30)
    assert share_out("auto", 100, "cpu") == (16, 1)
    assert share_out("auto", 3, "cpu") == (3, 5)
    assert share_out("2", 100, "cpu", threads="4") == (2, 4)
    assert share_out("auto", 100, "cuda", gpus=("0", "1", "2")) == (3, 5)
    assert share_out("auto", 100, "cuda", gpus=("0", "1"), per_gpu=4) == (8, 2)
    assert share_out("3", 100, "cuda", gpus=("0", "1"), per_gpu=4) == (3, 5)
    assert share_out("20", 100, "cuda", gpus=("0",), per_gpu=4) == (4, 4)
    assert share_out("auto", 100, "cpu", remote=True) == (100, 1)
    assert share_out("8", 100, "cuda", threads="6", remote=True) == (8, 6)
    monkeypatch.setattr(slots, "total_memory", lambda: 4 * slots.WORKER_BYTES)
    assert share_out("auto", 100, "cpu") == (4, 4), "more workers than memory holds"
    with pytest.raises(ZooError, match="--per-gpu 2 shares a GPU, the device is cpu"):
        share_out("auto", 1, "cpu", per_gpu=2)
    for threads in ("0", "x", "-1"):
        with pytest.raises(ZooError, match="--threads"):
            share_out("auto", 1, "cpu", threads=threads)


def test_little_free_memory_makes_fewer_slots_and_leaves_the_threads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DEBIAS_ZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(shared, "LEAST_BYTES", 2**40)  # each worker holds its own images
    (trial,) = trials("erm")
    images = (256 + 50 + 50 + 50) * 28 * 28 * 3
    a_worker = slots.WORKER_BYTES + 2 * images
    for free, expected in ((None, 8), (100 * a_worker, 8), (3 * a_worker, 3), (3 * a_worker - 1, 2), (0, 1)):
        monkeypatch.setattr(slots, "free_memory", lambda free=free: free)
        assert fit_memory(8, [trial], None) == expected
    broken = trial.model_copy(update={"params": {"no": "such"}})
    monkeypatch.setattr(slots, "free_memory", lambda: 4 * slots.WORKER_BYTES)
    assert fit_memory(8, [broken], None) == 4


def test_free_memory_is_read_where_the_system_says_it(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 99999 kB\nMemAvailable:    2048 kB\n")
    assert slots.free_memory(tmp_path / "meminfo") == 2 * 2**20
    (tmp_path / "meminfo").write_text("MemTotal: 99999 kB\n")
    assert slots.free_memory(tmp_path / "meminfo") is None
    assert slots.free_memory(tmp_path / "nothing") is None
    assert 0 < (slots.free_memory() or 1) <= slots.total_memory()


def test_gpus_are_named_as_the_system_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices.visible_gpus() == ("0", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-8a, 7")
    assert devices.visible_gpus() == ("5", "GPU-8a")
    monkeypatch.setattr(devices.torch.cuda, "device_count", lambda: 0)
    assert devices.visible_gpus() == ()


class Fake(subprocess.Popen[str]):
    """A worker process that does not run."""

    started: list[dict[str, str]] = []

    def __init__(self, command: Any, **options: Any) -> None:
        self.started.append(options["env"])
        read, write = os.pipe()
        self.stdin = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
        self.stdout = os.fdopen(read)
        self.write = write

    def kill(self) -> None:
        os.close(self.write)

    def wait(self) -> int:
        return 0


def test_each_slot_sees_its_own_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Fake, "started", [])
    monkeypatch.setattr(subprocess, "Popen", Fake)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    setup = Setup(tmp_path, 4, 2, "cuda", gpus=("3", "5"), per_gpu=2)
    executor = LocalExecutor(setup)
    for trial in trials("erm", 4):
        assert executor.free()
        executor.begin(trial)
    assert not executor.free()
    executor.close()
    assert [env["CUDA_VISIBLE_DEVICES"] for env in Fake.started] == ["3", "5", "3", "5"]
    assert {env["OMP_NUM_THREADS"] for env in Fake.started} == {"2"}
    assert {env["OMP_WAIT_POLICY"] for env in Fake.started} == {"passive"}
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "as it was")
    executor = LocalExecutor(replace(setup, gpus=()))
    executor.begin(trials("erm")[0])
    executor.close()
    assert Fake.started[-1]["CUDA_VISIBLE_DEVICES"] == "as it was"
    assert Fake.started[-1]["OMP_WAIT_POLICY"] == "active", "the user's own choice"
