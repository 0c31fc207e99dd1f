from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from debias_zoo import writing
from debias_zoo.errors import DivergedError, ZooError
from debias_zoo.grid import Request, build_grid
from debias_zoo.registry import load_method
from debias_zoo.runner import run_trial
from debias_zoo.store import Folder, read_results
from debias_zoo.trainer import Trainer
from debias_zoo.trial import Result, Trial
from debias_zoo.writing import check_writable


@pytest.fixture(scope="module")
def trial() -> Trial:
    """A trial of about a second."""
    sets = [("lnl", "train.batch_size", 64)]
    (found,) = build_grid(Request(["lnl"], ["cmnist"], protocol="quick", sets=sets)).trials.values()
    return found.model_copy(update={"train_limit": 256, "eval_limit": 100})


@pytest.fixture(scope="module")
def whole(trial: Trial, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the trial leaves behind when nothing stops it."""
    out = tmp_path_factory.mktemp("whole")
    run_trial(trial, out)
    return files(out, trial)


def files(out: Path, trial: Trial) -> dict[str, Any]:
    """Everything a finished trial left behind, but for what is time."""
    folder = out / trial.folder
    result = json.loads((folder / "result.json").read_text())
    with np.load(folder / "predictions.npz", allow_pickle=False) as arrays:
        predictions = {name: arrays[name].tobytes() for name in arrays.files}
    return {
        "metrics": result["metrics"],
        "curves": (folder / "curves.jsonl").read_text(),
        "weights": (folder / "model.safetensors").read_bytes(),
        "predictions": predictions,
    }


class Stopped(Exception):
    """Raised in the middle of training, in place of a power cut."""


def test_a_finished_trial_is_not_run_again(trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_trial(trial, tmp_path)
    names = sorted(path.name for path in (tmp_path / trial.folder).iterdir() if path.name != ".lock")
    assert names == ["config.json", "curves.jsonl", "model.safetensors", "predictions.npz", "result.json"]
    monkeypatch.setattr(Trainer, "fit", None)
    assert run_trial(trial, tmp_path) == first


@pytest.mark.parametrize("stop_at", [2, 5, 9])
def test_stopped_anywhere_it_ends_with_the_same_bits(
    stop_at: int, trial: Trial, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "checkpoint_seconds", 0.0)
    saved = Folder.save_checkpoint
    count = 0

    def save_then_stop(self: Folder, state: Any) -> None:
        nonlocal count
        saved(self, state)
        count += 1
        if count == stop_at:
            raise Stopped

    monkeypatch.setattr(Folder, "save_checkpoint", save_then_stop)
    with pytest.raises(ZooError, match="Stopped"):
        run_trial(trial, tmp_path / "cut")
    assert (tmp_path / "cut" / trial.folder / "error.txt").exists()
    run_trial(trial, tmp_path / "cut")
    assert files(tmp_path / "cut", trial) == whole
    assert not (tmp_path / "cut" / trial.folder / "error.txt").exists()


def test_a_full_disk_loses_nothing(
    trial: Trial, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = writing._write_all
    count = 0

    def fill_up(file: Any, content: Any) -> None:
        nonlocal count
        count += 1
        if count > 6:
            file.write(bytes(content)[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(file, content)

    monkeypatch.setattr(Trainer, "checkpoint_seconds", 0.0)
    monkeypatch.setattr(writing, "_write_all", fill_up)
    with pytest.raises(ZooError, match=r"no space left to write .*; what is finished is kept: free some space"):
        run_trial(trial, tmp_path / "full")
    assert not list((tmp_path / "full").rglob("*.part"))
    monkeypatch.undo()
    run_trial(trial, tmp_path / "full")
    assert files(tmp_path / "full", trial) == whole


def test_damaged_files_are_put_aside(trial: Trial, whole: dict[str, Any], tmp_path: Path) -> None:
    run_trial(trial, tmp_path)
    folder = tmp_path / trial.folder
    said: list[str] = []
    path = folder / "result.json"
    path.write_bytes(path.read_bytes()[:200])
    (folder / "checkpoint.pt").write_bytes(b"PK\x03\x04 half a checkpoint")
    run_trial(trial, tmp_path, warn=said.append)
    assert files(tmp_path, trial) == whole
    assert (folder / "result.json.damaged").exists()
    assert (folder / "checkpoint.pt.damaged").exists()
    assert len(said) == 2
    assert "cannot be read" in said[0]
    assert "the trial starts again" in said[1]


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_a_checkpoint_in_which_a_bit_has_changed_is_put_aside(place: float, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.save_checkpoint({"weights": torch.ones(1000)})
    found = folder.checkpoint()
    assert found is not None
    assert found["weights"].sum() == 1000
    content = bytearray((tmp_path / "checkpoint.pt").read_bytes())
    start = content.index(torch.ones(1000).numpy().tobytes())
    content[start + int(place * 4000)] ^= 1
    (tmp_path / "checkpoint.pt").write_bytes(content)
    assert folder.checkpoint() is None
    assert (tmp_path / "checkpoint.pt.damaged").exists()


def test_a_checkpoint_is_no_pickle(trial: Trial, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "t")
    folder.path.mkdir()
    for content in ({"x": Path("code")}, [3]):
        torch.save(content, folder.path / "checkpoint.pt")
        assert folder.checkpoint() is None
        assert (folder.path / "checkpoint.pt.damaged").exists()


def test_a_diverging_trial_fails_with_its_step(tmp_path: Path) -> None:
    sets = [("erm", "train.lr", 1e20)]
    (found,) = build_grid(Request(["erm"], ["cmnist"], protocol="quick", sets=sets)).trials.values()
    with pytest.raises(DivergedError, match=r"erm: a loss became NaN or infinite in stage 'main', epoch 0, step \d+"):
        run_trial(found, tmp_path)
    assert "step" in (tmp_path / found.folder / "error.txt").read_text()
    results, problems = read_results(tmp_path)
    assert not results
    assert problems[0].startswith("failed:")


def test_results_of_other_configurations_and_later_schemas_are_not_read(trial: Trial, tmp_path: Path) -> None:
    run_trial(trial, tmp_path)
    path = tmp_path / trial.folder / "result.json"
    good = json.loads(path.read_text())
    (tmp_path / trial.folder / "config.json").unlink()
    assert len(read_results(tmp_path)[0]) == 1, "a result does not need its config.json"
    for change, message in (
        ({"trial": {**good["trial"], "seed": 5}}, "does not belong to its configuration"),
        ({"schema_version": 99}, "has schema 99, this version reads up to 2: upgrade"),
    ):
        path.write_text(json.dumps({**good, **change}))
        results, problems = read_results(tmp_path)
        assert not results
        assert message in problems[0]
    with pytest.raises(ZooError, match="upgrade debias-zoo"):
        run_trial(trial, tmp_path)
    assert path.exists(), "the result of a later version was put aside"


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another device": lambda state: state | {"device": "cuda"},
    "another version": lambda state: {key: value for key, value in state.items() if key != "notes"},
    "another method": lambda state: state | {"engine": {**state["engine"], "method": {}}},
    "another stage": lambda state: state | {"progress": {**state["progress"], "stage": 7}},
    "no progress": lambda state: state | {"progress": 3},
}


@pytest.fixture(scope="module")
def cut(trial: Trial, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a trial that died after its last checkpoint."""
    out = tmp_path_factory.mktemp("cut")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "checkpoint_seconds", 0.0)
        patch.setattr(Folder, "finish", None)
        with pytest.raises(ZooError, match="not callable"):
            run_trial(trial, out)
    return out


@pytest.mark.parametrize("change", CHANGES)
def test_a_checkpoint_that_does_not_fit_is_put_aside(
    change: str, trial: Trial, whole: dict[str, Any], cut: Path, tmp_path: Path
) -> None:
    shutil.copytree(cut, tmp_path / "cut")
    path = tmp_path / "cut" / trial.folder / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    torch.save(CHANGES[change](state), path)
    said: list[str] = []
    run_trial(trial, tmp_path / "cut", warn=said.append)
    assert "the checkpoint does not fit" in said[0]
    assert files(tmp_path / "cut", trial) == whole


def test_odd_paths_are_said(trial: Trial, tmp_path: Path) -> None:
    path = tmp_path / trial.folder / "result.json"
    path.mkdir(parents=True)
    assert "cannot read" in read_results(tmp_path)[1][0]
    with pytest.raises(ZooError, match=r"cannot read .*Is a directory"):
        Folder(tmp_path / trial.folder).result()


def test_names_of_one_tensor_can_be_stored(trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from debias_zoo.methods.lnl import LNL

    class Aliased(LNL):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.encoder = self.net.model

    for module in ("grid", "runner"):
        monkeypatch.setattr(f"debias_zoo.{module}.load_method", lambda name: Aliased)
    run_trial(trial, tmp_path)
    assert (tmp_path / trial.folder / "model.safetensors").exists()


def test_unfinished_trials_are_told(trial: Trial, tmp_path: Path) -> None:
    Folder(tmp_path / trial.folder).path.mkdir(parents=True)
    Folder(tmp_path / trial.folder).start(trial)
    assert read_results(tmp_path)[1] == [f"unfinished: {tmp_path / trial.folder}"]
    with pytest.raises(ZooError, match="there is no folder"):
        read_results(tmp_path / "nowhere")


def test_no_permission_is_said_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ZooError, match=r"cannot write .*choose another place with --out"):
        check_writable(tmp_path / "file" / "runs")


def test_two_processes_do_not_collide(trial: Trial, tmp_path: Path) -> None:
    import threading

    said: list[str] = []
    results: list[Result] = []
    folder = Folder(tmp_path / trial.folder)
    waiting = threading.Event()

    def second() -> None:
        results.append(run_trial(trial, tmp_path, warn=lambda text: (said.append(text), waiting.set())[0]))

    with folder.locked():
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(30)
        assert not (tmp_path / trial.folder / "config.json").exists()
    thread.join(60)
    assert "another process works on it; waiting" in said[0]
    assert results[0].identity == trial.identity


def test_predictions_hold_every_epoch_of_every_split(trial: Trial, tmp_path: Path) -> None:
    result = run_trial(trial, tmp_path)
    with np.load(tmp_path / trial.folder / "predictions.npz", allow_pickle=False) as arrays:
        for split in ("val", "val_unbiased", "test"):
            assert arrays[f"{split}.class"].shape == (2, 100)
            assert arrays[f"{split}.class"].dtype == np.uint8
            assert arrays[f"{split}.log_odds"].dtype == np.float16
            right = arrays[f"{split}.class"][-1] == arrays[f"{split}.label"]
            assert result.metrics[split]["accuracy"] == pytest.approx(right.mean())
    assert load_method("lnl").sees_bias
    assert result.trial.supervision.level == "bias labels to train"
