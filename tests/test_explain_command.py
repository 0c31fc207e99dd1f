"""``debias-zoo explain``: its sheet, the shares of heat it notes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from debias_zoo.cli import cli
from debias_zoo.dataset import BiasDataset
from debias_zoo.errors import ZooError
from debias_zoo.explain import conflicting, of_one_dataset
from debias_zoo.gradcam import heat_of
from debias_zoo.grid import Request, build_grid, parse_datasets
from debias_zoo.runner import load_splits, make_method, run_trial, trained_method
from debias_zoo.store import read_runs
from debias_zoo.testing.bench import Plain

# --- the command


def train(out: Path, methods: list[str], dataset: str = "cmnist", seeds: tuple[int, ...] = (0,), **how: Any) -> None:
    """Runs of 64 images; the test has 300."""
    for trial in build_grid(Request(methods, [dataset], seeds, "quick", **how)).trials.values():
        run_trial(trial.model_copy(update={"train_limit": 64, "eval_limit": 300}), out)


def explain(*command: str) -> Result:
    return CliRunner().invoke(cli, ["explain", *command, "--device", "cpu"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("explain") / "runs"
    train(out, ["erm", "gray"], seeds=(1, 2))
    train(out, ["hex"], seeds=(2,))
    train(out, ["erm"], "cmnist-lff", seeds=(0,))  # an mlp
    return out


def test_the_sheet_is_the_same_bytes_twice_and_shares_are_noted(runs: Path, tmp_path: Path) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file in files:
        result = explain(str(runs), "--dataset", "cmnist", "-o", str(file), "--images", "3")
        assert result.exit_code == 0, result.output
        assert "seed 2, in" in result.output, "the smallest seed that all three have"
    assert files[0].read_bytes() == files[1].read_bytes()
    with Image.open(files[0]) as sheet:
        assert sheet.width > 4 * 150
    notes = sorted(runs.glob("cmnist/*/*/explain.json"))
    assert len(notes) == 5, "of every seed"
    (note,) = (json.loads(path.read_text()) for path in notes if "/hex/" in str(path))
    assert (note["schema_version"], note["count"], note["split"]) == (1, 200, "test")
    assert note["identity"] == json.loads((notes[-1].parent / "result.json").read_text())["identity"]
    assert (note["layer"], note["map_size"], note["explained"]) == ("stages.3", [7, 7], "predicted")
    assert 0.1 < note["area"] < 0.3
    assert 0.0 < note["inside"] < 1.0
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("erm ")]
    assert " ± " in line
    assert "1, 2" in line


def test_what_is_noted_is_the_mean_over_the_shared_images(runs: Path, tmp_path: Path) -> None:
    assert explain(str(runs / "cmnist" / "gray"), "-o", str(tmp_path / "x.png"), "--class", "label").exit_code == 0
    found, _ = read_runs(runs / "cmnist" / "gray")
    trial = found[0].result.trial
    (dataset,) = parse_datasets("cmnist")
    split = dataset.load(None, "test").head(300)
    rows = conflicting(split, dataset.card, "cmnist test", 200)
    method = trained_method(trial, load_splits(trial, None)[0], found[0].path)
    heat = heat_of(method, np.asarray(split.images[rows]), split.labels[rows], "label")
    mask = dataset.mask(None, "test", rows)
    assert mask is not None
    shares = [float((h * m).sum() / h.sum()) for h, m in zip(heat.maps.astype(float), mask, strict=True) if h.any()]
    note = json.loads((found[0].path / "explain.json").read_text())
    assert note["inside"] == pytest.approx(float(np.mean(shares)), rel=1e-9)
    assert note["without_heat"] == 200 - len(shares)
    assert note["area"] == pytest.approx(mask.mean())


def test_columns_can_be_chosen(runs: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "x.png")
    chosen = explain(str(runs / "cmnist"), "-o", file, "--methods", "gray,erm,hex", "--seed", "1", "--images", "1")
    assert chosen.exit_code == 0, chosen.output
    assert "left out: hex has no seed 1" in chosen.stderr
    for given, words in (
        (["--methods", "erm,grey"], "unknown method 'grey'; did you mean 'gray'?"),
        (["--seed", "7"], "no finished result has seed 7; there are: 1, 2"),
        (["--dataset", "cmnist-lf"], "unknown data set 'cmnist-lf'; did you mean 'cmnist-lff'?"),
        ([], "there are runs of 2 data sets"),
        (["-o", str(tmp_path / "x.pdf")], "the sheet is a PNG"),
        (["--dataset", "cmnist-lff"], "'mlp' has no map larger than 1 x 1"),
    ):
        where = runs if given[:1] in ([], ["--dataset"], ["-o"]) else runs / "cmnist"
        result = explain(str(where), *(given if "-o" in given else ["-o", file, *given]))
        assert result.exit_code == 2, result.output
        assert words in result.stderr


def test_weights_that_cannot_be_used_leave_a_method_out(runs: Path, tmp_path: Path) -> None:
    import shutil

    out = tmp_path / "runs"
    shutil.copytree(runs / "cmnist", out / "cmnist")
    for path in (out / "cmnist" / "gray").glob("*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    for path in (out / "cmnist" / "hex").glob("*/model.safetensors"):
        path.unlink()
    result = explain(str(out), "-o", str(tmp_path / "x.png"), "--images", "1")
    assert result.exit_code == 0, result.output
    said = " ".join(result.stderr.split())
    assert "the weights of gray on cmnist, seed 1 do not fit" in said
    assert "hex on cmnist, seed 2 has no trained network" in said
    assert "\nerm " in result.stdout
    assert "\ngray " not in result.stdout


class Versioned(Plain):
    version = 99


def test_weights_of_another_version_are_refused(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = read_runs(runs / "cmnist" / "erm")[0][0]
    train_split, _ = load_splits(run.result.trial, None)
    monkeypatch.setattr("debias_zoo.runner.load_method", lambda name: Versioned)
    with pytest.raises(ZooError, match=r"trained by version 1 of the method, this is version 99: run it again"):
        trained_method(run.result.trial, train_split, run.path)


def test_a_trained_method_is_the_one_that_was_stored(runs: Path) -> None:
    run = read_runs(runs / "cmnist" / "hex")[0][0]
    trial = run.result.trial
    train_split, evals = load_splits(trial, None)
    method = trained_method(trial, train_split, run.path)
    assert not method.training
    assert not any(p.requires_grad for p in method.parameters())
    image = torch.from_numpy(np.asarray(evals["test"].images)).permute(0, 3, 1, 2) / 255.0
    stored = run.predictions()["test"].classes[-1]
    assert (method.predict(image).argmax(1).numpy() == stored).mean() > 0.99
    fresh = make_method(trial, train_split, runs)
    assert not torch.equal(fresh.state_dict()["last.weight"], method.state_dict()["last.weight"])


def test_data_without_masks_have_a_sheet_and_no_share(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(120) % 3
    biases = np.where(np.arange(120) % 2 == 0, (labels + 1) % 3, labels)
    images = random.integers(0, 256, (120, 12, 12, 3), dtype=np.uint8)
    names = ["$a$", "a class with quite a long name", "c"]
    splits = np.where(np.arange(120) % 4 == 3, "test", "train")
    data = BiasDataset.from_arrays(images, labels, biases, splits=splits, classes=names)
    data.save(tmp_path / "mine.npz")
    train(tmp_path / "runs", ["erm"], f"arrays:file={tmp_path / 'mine.npz'}", backbone="simple_convnet")
    result = explain(str(tmp_path / "runs"), "-o", str(tmp_path / "x.png"))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "x.png").stat().st_size > 10_000
    assert "Heat inside" not in result.output
    assert not list(tmp_path.rglob("explain.json"))


def test_data_that_changed_since_are_refused(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = read_runs(runs / "cmnist")
    assert of_one_dataset(found, None, None) == found
    from debias_zoo.registry import load_dataset

    monkeypatch.setattr(load_dataset("cmnist"), "fingerprint", lambda self, root: "other")
    result = explain(str(runs / "cmnist"), "-o", str(runs / "x.png"))
    assert result.exit_code == 2
    assert "is not what the runs were trained on (now other" in result.stderr
