from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

from debias_zoo import tracking
from debias_zoo.cli import cli
from debias_zoo.errors import ZooError
from debias_zoo.grid import Request, build_grid
from debias_zoo.registry import load_tracker
from debias_zoo.runner import run_trial
from debias_zoo.store import Folder
from debias_zoo.tracking import Tracked, Tracker, Tracking, tag_of
from debias_zoo.trainer import Trainer
from debias_zoo.trial import Trial

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def trial() -> Trial:
    """A trial of two stages and some seconds."""
    sets = [("jtt", "train.batch_size", 256), ("jtt", "train.epochs", 4), ("jtt", "lambda_up", 2)]
    (found,) = build_grid(Request(["jtt"], ["cmnist"], protocol="quick", sets=sets)).trials.values()
    return found.model_copy(update={"train_limit": 512, "eval_limit": 100})


def curves(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The scalars as TensorBoard's own reader finds them."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(found.step, found.value) for found in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def written(folder: Path) -> list[tuple[int, str]]:
    """(step, tag) of all scalars in all event files, as they lie there."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for raw in RawEventFileLoader(str(path)).Load():
            event = Event.FromString(raw)
            found += [(event.step, value.tag) for value in event.summary.value if value.HasField("simple_value")]
    return found


def expected(rows: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for number, row in enumerate(rows):
        for name, value in row.items():
            if name not in ("stage", "epoch"):
                found.setdefault(tag_of(name), []).append((number, float(np.float32(value))))
    return found


def assert_all_there_once(folder: Path) -> None:
    rows = curves(folder)
    assert shown(folder) == expected(rows)
    assert len(written(folder)) == len(set(written(folder))) == sum(len(row) - 2 for row in rows)


def test_tensorboard_holds_the_curves(trial: Trial, tmp_path: Path) -> None:
    run_trial(trial, tmp_path, track=["tensorboard"])
    folder = tmp_path / trial.folder
    rows = curves(folder)
    assert [(row["stage"], row["epoch"]) for row in rows][-1][1] < len(rows) - 1, "the trial must have two stages"
    assert_all_there_once(folder)
    assert {"accuracy/val", "accuracy/val_unbiased", "accuracy/test"} < set(shown(folder))
    assert any(tag.startswith("loss/") for tag in shown(folder))
    events = EventAccumulator(str(folder))
    events.Reload()
    (text,) = events.Tensors("config/text_summary")
    assert b"| method | jtt |" in text.tensor_proto.string_val[0]
    assert b"| params.variance | 0.02 |" in text.tensor_proto.string_val[0]


def test_without_trackers_nothing_is_written(trial: Trial, tmp_path: Path) -> None:
    run_trial(trial, tmp_path)
    assert not list((tmp_path / trial.folder).glob("events*"))


class Stopped(Exception):
    """Raised in the middle of training, in place of a power cut."""


@pytest.mark.parametrize(
    ("cls", "method", "stop_at"), [(Folder, "save_checkpoint", 4), (Folder, "save_curves", 9), (Tracking, "feed", 6)]
)
def test_stopped_and_resumed_it_ends_with_the_same_scalars(
    cls: Any, method: str, stop_at: int, trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between any two of: the checkpoint, the curves, the trackers."""
    monkeypatch.setattr(Trainer, "checkpoint_seconds", 0.0)
    whole = getattr(cls, method)
    count = 0

    def stopping(self: Any, *given: Any) -> None:
        nonlocal count
        whole(self, *given)
        count += 1
        if count in (stop_at, stop_at + 2):
            raise Stopped

    monkeypatch.setattr(cls, method, stopping)
    for _ in range(2):
        with pytest.raises(ZooError, match="Stopped"):
            run_trial(trial, tmp_path, track=["tensorboard"])
    run_trial(trial, tmp_path, track=["tensorboard"])
    assert_all_there_once(tmp_path / trial.folder)


# --- other trackers


class Planted(Tracker):
    """Remembers what it is told, and raises where it is asked to."""

    name = "planted"
    told: list[Any] = []
    raises_at = ""

    def __init__(self, tracked: Tracked) -> None:
        super().__init__(tracked)
        self._note("init")

    def epoch(self, number: int, row: Mapping[str, Any]) -> None:
        self._note((number, dict(row)))
        self._note("epoch")

    def close(self) -> None:
        self._note("close")

    def _note(self, what: Any) -> None:
        self.told.append(what)
        if what == self.raises_at:
            raise RuntimeError("no connection")


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> type[Planted]:
    monkeypatch.setattr(tracking, "load_tracker", lambda name: Planted if name == "planted" else load_tracker(name))
    monkeypatch.setattr(Planted, "told", [])
    return Planted


def test_a_tracker_is_told_the_trial_and_every_row(trial: Trial, tmp_path: Path, planted: type[Planted]) -> None:
    seen: list[Tracked] = []
    begin = planted.__init__

    def watched(self: Planted, tracked: Tracked) -> None:
        seen.append(tracked)
        begin(self, tracked)

    planted.__init__ = watched  # type: ignore[method-assign]
    try:
        run_trial(trial, tmp_path, track=["planted"])
    finally:
        planted.__init__ = begin  # type: ignore[method-assign]
    rows = list(enumerate(curves(tmp_path / trial.folder)))
    assert planted.told == ["init", *[told for row in rows for told in (row, "epoch")], "close"]
    (tracked,) = seen
    assert (tracked.label, tracked.folder) == (trial.label, tmp_path / trial.folder)
    assert tracked.config["params.variance"] == 0.02
    assert tracked.config["seed"] == 0
    assert not any(isinstance(value, dict) for value in tracked.config.values())


@pytest.mark.parametrize("moment", ["init", "epoch", "close"])
def test_a_tracker_that_raises_stops_nothing(
    moment: str, trial: Trial, tmp_path: Path, planted: type[Planted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planted, "raises_at", moment)
    said: list[str] = []
    run_trial(trial, tmp_path / "raising", warn=said.append, track=["planted", "tensorboard"])
    (warning,) = said
    assert warning.startswith(
        f"{trial.label}: tracker 'planted' raised RuntimeError: no connection; it is told no more"
    )
    assert planted.told.count(moment) == 1, "it was told again"
    assert_all_there_once(tmp_path / "raising" / trial.folder)
    if moment != "epoch":
        return
    run_trial(trial, tmp_path / "plain")
    one, other = (tmp_path / name / trial.folder / "model.safetensors" for name in ("raising", "plain"))
    assert one.read_bytes() == other.read_bytes(), "tracking changed a number"


# --- the command


def test_unknown_and_missing_trackers_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["run", "--methods", "erm", "--dataset", "cmnist", "--protocol", "quick", "--out", str(tmp_path / "runs")]
    ended = CliRunner().invoke(cli, [*command, "--track", "tensorbord"])
    assert ended.exit_code == 2
    assert "unknown tracker 'tensorbord'; did you mean 'tensorboard'? Known: tensorboard" in ended.output
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    ended = CliRunner().invoke(cli, [*command, "--track", "tensorboard"])
    assert ended.exit_code == 2
    assert "pip install 'debias-zoo[track]'" in ended.output
    assert not (tmp_path / "runs").exists()


PLUGIN = """
from debias_zoo.tracking import Tracker

class Broken(Tracker):
    name = 'broken'

    def epoch(self, number, row):
        raise OSError('the server is gone')
"""


@pytest.mark.slow
def test_a_killed_worker_shows_every_epoch_once_and_a_broken_plugin_is_a_warning(tmp_path: Path) -> None:
    info = tmp_path / "site" / "broken_tracker-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-tracker\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[debias_zoo.trackers]\nbroken = broken_tracker:Broken\n")
    (tmp_path / "site" / "broken_tracker.py").write_text(PLUGIN)
    command = [
        "run",
        "--methods",
        "erm",
        "--dataset",
        "cmnist",
        "--protocol",
        "quick",
        "--device",
        "cpu",
        "--seed",
        "0",
    ]
    paths = os.pathsep.join([str(ROOT), str(tmp_path / "site")])
    env = {**os.environ, "PYTHONPATH": paths}
    run = subprocess.Popen(
        [sys.executable, "-m", "debias_zoo", *command, "--track", "tensorboard", "--track", "broken"],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    tick = threading.Event()
    while not any(path.read_text() for path in (tmp_path / "runs").rglob("curves.jsonl")):
        assert run.poll() is None, "it ended before it could be killed"
        tick.wait(0.02)
    (worker,) = [int(pid) for pid in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()]
    os.kill(worker, signal.SIGKILL)
    said, _ = run.communicate(timeout=120)
    assert run.returncode == 0, said
    assert "resuming it" in said
    assert "warning: erm on cmnist, seed 0: tracker 'broken' raised OSError: the server is gone" in said
    (result,) = (tmp_path / "runs").rglob("result.json")
    assert_all_there_once(result.parent)
