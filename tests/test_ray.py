"""Ray: a real cluster of three nodes on this machine, one of which dies."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT, SMALL, outcome, zoo

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray")

GRID = ["run", "--methods", "erm,lnl", *SMALL, "--seeds", "2", "--threads", "1"]
STORE = 100 * 2**20
COUNTING = """
import os
from debias_zoo.tracking import Tracker

class Counting(Tracker):
    name = 'counting'

    def epoch(self, number, row):
        with open(os.environ['COUNTED'], 'a') as file:
            file.write(f'{self.tracked.folder.name} {number}\\n')
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the local executor finds."""
    out = tmp_path_factory.mktemp("local") / "runs"
    run = zoo(*GRID, "--jobs", "2", "--out", str(out), cwd=out.parent)
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 0, said
    return outcome(out)


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tracker in all processes that notes each epoch it is told of; the file that it notes them in."""
    info = tmp_path / "site" / "counting-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[debias_zoo.trackers]\ncounting = counting_tracker:Counting\n")
    (tmp_path / "site" / "counting_tracker.py").write_text(COUNTING)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(tmp_path / "site")]))
    monkeypatch.setenv("COUNTED", str(tmp_path / "counted"))
    monkeypatch.setenv("DEBIAS_ZOO_CHECKPOINT_SECONDS", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # the loopback is this machine's address
    return tmp_path / "counted"


@pytest.fixture
def nodes(counted: Path) -> Iterator[tuple[Any, list[Any]]]:
    """A cluster of three nodes with one CPU each, the first of which is the head."""
    from ray.cluster_utils import Cluster

    alike = {"num_cpus": 1, "object_store_memory": STORE, "node_ip_address": "127.0.0.1", "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=alike)
    found = [cluster.head_node, *(cluster.add_node(**alike) for _ in range(2))]
    yield cluster, found
    cluster.shutdown()


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command line; what still runs at the end of the test is killed."""
    runs: list[subprocess.Popen[str]] = []

    def started(*command: str) -> subprocess.Popen[str]:
        runs.append(zoo(*command, cwd=tmp_path, env={"PYTHONPATH": os.environ["PYTHONPATH"]}))
        return runs[-1]

    yield started
    for run in runs:
        run.kill()
        run.wait()


def follow(run: subprocess.Popen[str]) -> list[str]:
    """The lines that a run prints, as they come."""
    said: list[str] = []

    def read() -> None:
        assert run.stdout is not None
        with run.stdout as lines:
            said.extend(iter(lines.readline, ""))

    threading.Thread(target=read, daemon=True).start()
    return said


def until(run: subprocess.Popen[str], said: list[str], reached: Any) -> None:
    """Wait until a run is so far."""
    tick = threading.Event()
    for _ in range(2400):
        if reached():
            return
        assert run.poll() is None, f"it ended too early: {said}"
        tick.wait(0.05)
    raise AssertionError(f"it never came so far: {said}")


def test_a_node_dies_and_every_trial_is_finished_once_with_the_same_bits(
    nodes: tuple[Any, list[Any]], counted: Path, whole: dict[str, Any], tmp_path: Path, begin: Any
) -> None:
    cluster, (_, _, doomed) = nodes
    out = tmp_path / "runs"
    command = [*GRID, "--executor", "ray", "--address", cluster.address, "--track", "counting", "--out", str(out)]
    run = begin(*command)
    said = follow(run)
    until(run, said, lambda: len(list(out.rglob("checkpoint.pt"))) >= 3)
    cluster.remove_node(doomed, allow_graceful=False)
    assert run.wait(240) == 0, said
    text = "".join(said)
    assert len(re.findall("its Ray worker is gone .*; resuming it", text)) == 1, text
    assert "up to 4 at a time by ray with 1 thread each" in text
    assert not re.findall(r"raylet|\(pid|Traceback|WARNING|dashboard", text), text
    assert text.count(": done") == 4
    ends = [line.split()[0] for line in counted.read_text().splitlines() if line.endswith(" 1")]
    assert sorted(ends) == sorted(whole), "a trial ran twice to its end"
    assert outcome(out) == whole
    assert not list(out.glob(".events*"))


@pytest.mark.skipif(
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN, reason="the tests run in the background, where Ctrl-C is ignored"
)
def test_interrupted_on_one_machine_it_goes_on_with_the_same_bits(
    counted: Path, whole: dict[str, Any], tmp_path: Path, begin: Any
) -> None:
    out = tmp_path / "runs"
    command = [*GRID, "--executor", "ray", "--jobs", "2", "--out", str(out)]
    run = begin(*command)
    said = follow(run)
    until(run, said, lambda: len(list(out.rglob("checkpoint.pt"))) >= 2)
    run.send_signal(signal.SIGINT)
    assert run.wait(60) == 130, said
    assert "interrupted; what is finished is kept" in "".join(said)
    assert list(out.rglob("checkpoint.pt"))
    assert len(list(out.rglob("result.json"))) < 4
    again = begin(*command)
    told, _ = again.communicate(timeout=240)
    assert again.returncode == 0, told
    assert outcome(out) == whole


def test_what_no_machine_of_the_cluster_has_is_refused(counted: Path, tmp_path: Path, begin: Any) -> None:
    command = [*GRID, "--executor", "ray", "--out", str(tmp_path / "runs")]
    run = begin(*command, "--threads", "1000", "--device", "cuda", "--precision", "fp32")
    said, _ = run.communicate(timeout=120)
    assert run.returncode == 2, said
    assert "no machine of the Ray cluster has what a trial takes (1000 CPU, 1 GPU)" in said
    assert "Traceback" not in said
