"""Workers that exit, crash, run out of memory or are terminated cost no more than their own trials."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import RUN, children, gone, outcome, zoo
from short_trials import trials

from debias_zoo import registry
from debias_zoo.executor_local import LocalExecutor
from debias_zoo.executors import Setup

PLUGIN = """
import os, signal
import torch
from debias_zoo.methods.erm import ERM

def raises(error):
    raise error

class Exits(ERM):
    name = 'exits'

    def forward(self, loss, batch, clock):
        os._exit(7)

class Crashes(ERM):
    name = 'crashes'

    def forward(self, loss, batch, clock):
        os.kill(os.getpid(), signal.SIGSEGV)

class NoMemory(ERM):
    name = 'no_memory'

    def forward(self, loss, batch, clock):
        raise MemoryError('no room for a list')

class NoDeviceMemory(ERM):
    name = 'no_device_memory'

    def forward(self, loss, batch, clock):
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB')
"""
FAULTS = {"exits": "Exits", "crashes": "Crashes", "no_memory": "NoMemory", "no_device_memory": "NoDeviceMemory"}


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package of methods that fail, here and in workers."""
    site = tmp_path / "site"
    info = site / "faulty-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    lines = [f"{name} = faulty_methods:{cls}" for name, cls in FAULTS.items()]
    (info / "entry_points.txt").write_text("\n".join(["[debias_zoo.methods]", *lines]) + "\n")
    (site / "faulty_methods.py").write_text(PLUGIN)
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.syspath_prepend(str(site))
    registry.look_again()
    yield
    registry.look_again()


@pytest.mark.slow
def test_faults_cost_only_their_own_trials(faulty: None, tmp_path: Path) -> None:
    todo = trials(",".join([*FAULTS, "erm"]))
    events = list(LocalExecutor(Setup(tmp_path, 1, 1)).run(todo))
    ends = {event.trial.method: event for event in events if event.kind in {"done", "failed"}}
    warned = [(event.trial.method, event.content["text"]) for event in events if event.kind == "warning"]
    assert ends.pop("erm").kind == "done"
    assert {name: event.kind for name, event in ends.items()} == dict.fromkeys(FAULTS, "failed")
    errors = {name: event.content["error"] for name, event in ends.items()}
    assert errors["exits"] == "exits on cmnist, seed 0: its worker died (exit code 7); it was begun twice"
    assert errors["crashes"].startswith("crashes on cmnist, seed 0: its worker died (signal 11)")
    assert "MemoryError: no room for a list" in errors["no_memory"]
    assert "CUDA out of memory. Tried to allocate 20.00 GiB" in errors["no_device_memory"]
    assert [name for name, text in warned if text.endswith("; resuming it")] == ["exits", "crashes"]
    reasons = {path.parent.parent.name: path.read_text() for path in tmp_path.rglob("error.txt")}
    assert set(reasons) == set(FAULTS)
    assert "exit code 7" in reasons["exits"]
    assert "signal 11" in reasons["crashes"]
    assert "MemoryError" in reasons["no_memory"]
    assert "OutOfMemoryError" in reasons["no_device_memory"]


# --- SIGTERM


@pytest.mark.slow
def test_terminated_it_says_how_to_go_on_and_ends_with_the_same_bits(tmp_path: Path) -> None:
    command = [*RUN, "--seeds", "2", "--threads", "1", "--jobs", "1"]
    run = zoo(*command, "--out", "stopped", cwd=tmp_path)
    assert run.stdout is not None
    while not list((tmp_path / "stopped").rglob("checkpoint.pt")):
        assert run.poll() is None
    workers = children(run.pid)
    run.send_signal(signal.SIGTERM)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == 143, said
    assert "terminated; what is finished is kept: the same command goes on from there" in said
    assert workers
    assert all(gone(worker) for worker in workers)
    assert list((tmp_path / "stopped").rglob("checkpoint.pt"))
    for out in ("stopped", "whole"):
        run = zoo(*command, "--out", out, cwd=tmp_path)
        said, _ = run.communicate(timeout=120)
        assert run.returncode == 0, said
    assert len(outcome(tmp_path / "whole")) == 2
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")
