"""The first stage that trials have in common: trained once, with the bits that each would have had alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from debias_zoo import common_stage
from debias_zoo.common_stage import FOLDER, NOTE
from debias_zoo.course import alone
from debias_zoo.grid import Request, build_grid
from debias_zoo.registry import load_method
from debias_zoo.runner import How, Told, run_trial, trial_course
from debias_zoo.trial import Result, Trial

UNLEARNING = ("lnl", "lnl_adaptive", "blindeye")
ALIKE: dict[str, Any] = {"pretrain_share": 0.5, "train.lr": 0.01, "unlearn.lr": 0.001}


def trial(method: str, seed: int = 0, **other: Any) -> Trial:
    """Two epochs of 128 images, or what ``other`` says, as fields of a trial or settings with ``__`` for a dot."""
    fields = {key: other.pop(key) for key in list(other) if key in Trial.model_fields}
    settings = {**(ALIKE if method in UNLEARNING else {}), "train.epochs": 2, "train.batch_size": 64}
    settings |= {key.replace("__", "."): value for key, value in other.items()}
    sets = [(method, key, value) for key, value in settings.items()]
    (found,) = build_grid(Request([method], ["cmnist"], [seed], protocol="quick", sets=sets)).trials.values()
    return found.model_copy(update={"train_limit": 128, "eval_limit": 40, **fields})


def left(out: Path, of: Trial) -> dict[str, Any]:
    """What a finished trial left behind, but for what is time."""
    folder = out / of.folder
    with np.load(folder / "predictions.npz", allow_pickle=False) as arrays:
        predictions = {name: arrays[name].tobytes() for name in arrays.files}
    weights, curves = (folder / "model.safetensors").read_bytes(), (folder / "curves.jsonl").read_text()
    metrics = json.loads((folder / "result.json").read_text())["metrics"]
    return {"predictions": predictions, "weights": weights, "curves": curves, "metrics": metrics}


def giver(result: Result) -> str:
    """The trial that trained its first stage, or "" if it did itself."""
    (*found,) = [note.removeprefix(NOTE) for note in result.notes if note.startswith(NOTE)]
    return found[0] if found else ""


@pytest.fixture(scope="module")
def first() -> Trial:
    return trial("lnl")


@pytest.fixture(scope="module")
def store(first: Trial, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One trial of LNL, with its first stage; not to be written to."""
    out = tmp_path_factory.mktemp("store")
    assert giver(run_trial(first, out)) == ""
    return out


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("lnl", {"scale": 0.7, "unlearn__lr": 0.01, "unlearn__epochs": 2}),
        ("lnl_adaptive", {}),
        ("blindeye", {"alpha": 0.5, "warmup_epochs": 0}),
    ],
)
def test_another_goes_on_from_it_and_ends_with_the_bits_that_it_has_alone(
    method: str, settings: dict[str, Any], first: Trial, store: Path, tmp_path: Path
) -> None:
    other = trial(method, **settings)
    shutil.copytree(store, tmp_path / "shared")
    shared, alone = (run_trial(other, tmp_path / out) for out in ("shared", "alone"))
    assert (giver(shared), giver(alone)) == (f"lnl/{first.identity}", "")
    assert left(tmp_path / "shared", other) == left(tmp_path / "alone", other)
    assert shared.cost["steps"] == alone.cost["steps"]


@pytest.mark.parametrize(
    ("method", "other"),
    [
        ("lnl", {"seed": 1}),
        ("lnl", {"pretrain__lr": 0.02}),
        ("lnl", {"pretrain__epochs": 2}),
        ("lnl", {"precision": "bf16"}),
        ("lnl", {"train_limit": 192}),
        ("lnl", {"pretrain_share": 0.0}),
        ("erm", {}),
    ],
    ids=["seed", "lr", "epochs", "precision", "images", "one stage", "not shared"],
)
def test_one_that_begins_otherwise_trains_its_own(
    method: str, other: dict[str, Any], store: Path, tmp_path: Path
) -> None:
    shutil.copytree(store, tmp_path / "store")
    assert giver(run_trial(trial(method, **other), tmp_path / "store")) == ""


def test_jtt_looks_for_errors_once_whatever_weighs_them_up(tmp_path: Path) -> None:
    few, many = (trial("jtt", lambda_up=times) for times in (2, 5))
    run_trial(few, tmp_path / "shared")
    assert giver(run_trial(many, tmp_path / "shared")) == f"jtt/{few.identity}"
    run_trial(many, tmp_path / "alone")
    assert left(tmp_path / "shared", many) == left(tmp_path / "alone", many)


@pytest.mark.parametrize("content", [b"", b"no archive"], ids=["empty", "damaged"])
def test_a_damaged_one_is_put_aside_and_the_stage_trained(
    content: bytes, first: Trial, store: Path, tmp_path: Path
) -> None:
    out, told = tmp_path / "store", list[str]()
    shutil.copytree(store, out)
    (kept,) = (out / FOLDER).glob("*/checkpoint.pt")
    kept.write_bytes(content)
    other = trial("blindeye")
    assert giver(run_trial(other, out, warn=told.append)) == ""
    (said,) = told
    assert "put aside as checkpoint.pt.damaged" in said
    again = trial("blindeye", alpha=0.7)
    assert giver(run_trial(again, out)) == f"blindeye/{other.identity}"


def test_one_that_does_not_fit_is_put_aside_and_replaced(first: Trial, store: Path, tmp_path: Path) -> None:
    out, told = tmp_path / "store", list[str]()
    shutil.copytree(store, out)
    (kept,) = (out / FOLDER).glob("*/checkpoint.pt")
    state = torch.load(kept, weights_only=True)
    state["engine"]["method"].popitem()
    torch.save(state, kept)
    other = trial("blindeye")
    assert giver(run_trial(other, out, warn=told.append)) == ""
    (said,) = told
    assert "does not fit" in said
    assert giver(run_trial(trial("lnl_adaptive"), out)) == f"blindeye/{other.identity}"


def test_a_place_that_cannot_be_written_is_told_and_stops_nothing(tmp_path: Path) -> None:
    told = list[str]()
    (tmp_path / FOLDER).write_text("no folder")
    run_trial(trial("lnl"), tmp_path, warn=told.append)
    (said,) = told
    assert "its first stage is not kept for others" in said


def test_a_mended_method_trains_its_own(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(store, tmp_path / "store")
    mended = load_method("blindeye")
    monkeypatch.setattr(mended, "version", mended.version + 1)
    assert giver(run_trial(trial("blindeye"), tmp_path / "store")) == ""
    for code in ("_zoo_code", "_own_code"):
        with monkeypatch.context() as patch:
            patch.setattr(common_stage, code, lambda *given: "other")
            other = trial("lnl", scale=0.2 if code == "_zoo_code" else 0.3)
            assert giver(run_trial(other, tmp_path / "store")) == ""


def test_other_threads_and_stacked_seeds_share_nothing(store: Path, tmp_path: Path) -> None:
    """They add up in another order, so that last digits may differ."""
    shutil.copytree(store, tmp_path / "store")
    stacked = alone(trial_course(trial("blindeye"), How(tmp_path / "store", stacked=True), Told()))
    assert giver(stacked) == ""
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert giver(run_trial(trial("lnl_adaptive"), tmp_path / "store")) == ""
    finally:
        torch.set_num_threads(threads)


def test_without_the_folder_nothing_is_lost(first: Trial, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    shutil.copytree(store, out)
    shutil.rmtree(out / FOLDER)
    assert giver(run_trial(first, out)) == ""
    assert not (out / FOLDER).exists()
    assert giver(run_trial(trial("blindeye"), out)) == ""
