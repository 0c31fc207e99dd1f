"""Exported models: the weights that predict and no others, checked, with a card that says what they are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from commands import ROOT, invoke
from exported_models import TASK, as_float, blueprint, config_of, the, train
from PIL import Image
from torch import Tensor

from debias_zoo import Predictor, ZooError, export, load
from debias_zoo.assembly import untrained
from debias_zoo.dataset import BiasDataset
from debias_zoo.exported import Exported
from debias_zoo.exporting import read_by_predictions
from debias_zoo.loading import predictor_of
from debias_zoo.method import Method
from debias_zoo.registry import entries

# --- what is exported predicts as what was trained


@pytest.mark.parametrize("method", ["lnl", "gray", "dedier"])
def test_the_command_writes_what_predicts_as_the_trained_network(method: str, store: Path, tmp_path: Path) -> None:
    ended = invoke("export", method, str(tmp_path / "model"), "--out", str(store))
    assert ended.exit_code == 0, ended.output
    assert f"{method} on cmnist, seed 0: model.safetensors, README.md, config.json in" in ended.output
    run, trained, images = the(store, method)
    found = load(tmp_path / "model")
    assert isinstance(found, Predictor)
    assert found.classes == tuple("0123456789")
    assert not found.model.training
    logits = trained.predict(as_float(images)).numpy()
    np.testing.assert_allclose(found.logits(images), logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.predict(images).sum(1), 1.0, rtol=1e-5)
    assert found.predict(images).argmax(1).tolist() == logits.argmax(1).tolist()
    np.testing.assert_allclose(found.features(images), trained.features(as_float(images)).numpy(), rtol=1e-4, atol=1e-5)
    stored = run.predictions()["test"].classes[-1]
    assert [found.classes[k] for k in found.logits(images).argmax(1)] == found.classify(images)
    assert (found.logits(images).argmax(1) == stored).mean() >= 0.97, "trained in the machine's precision"


def test_only_what_predicts_is_exported(store: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    for method, without in (("lnl", "bias"), ("dedier", "teacher")):
        place = export(method, tmp_path / method, out=store)
        run, _, _ = the(store, method)
        whole = load_file(run.path / "model.safetensors")
        assert any(name.startswith(without) for name in whole)
        kept = load_file(place / "model.safetensors")
        assert kept
        assert all(name.startswith("net.") for name in kept)
        assert all(np.array_equal(kept[name], whole[name]) for name in kept)


def test_a_loaded_model_needs_neither_data_nor_store(model: Path, store: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(model, tmp_path / "elsewhere")
    _, trained, images = the(store, "lnl")
    np.save(tmp_path / "images.npy", images[:5])
    code = (
        "import numpy as np, debias_zoo, sys\n"
        "print(debias_zoo.load('elsewhere').logits(np.load('images.npy')).tolist())\n"
        "assert not any(name.startswith('debias_zoo.datasets') for name in sys.modules)\n"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    env = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""}
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    expected = trained.predict(as_float(images[:5])).numpy()
    np.testing.assert_allclose(json.loads(ended.stdout), expected, rtol=1e-4, atol=1e-5)
    assert moved.is_dir()


@pytest.mark.parametrize("name", sorted(entry.name for entry in entries("method").values()))
def test_every_method_predicts_from_what_its_predictions_read(name: str) -> None:
    config = Exported.model_validate_json(config_of(blueprint(name)).model_dump_json())
    method = untrained(config.network, TASK).eval()
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in method.state_dict().values():  # no longer what the seed gives
            if value.is_floating_point():
                value.add_(0.05 * torch.rand(value.shape, generator=random).to(value.dtype))
    image = torch.rand(4, 3, 28, 28, generator=random)
    read = read_by_predictions(method, image)
    assert set(read) <= set(method.state_dict())
    found = predictor_of(config, read, Path("somewhere"))
    assert not any(value.isnan().any() for name, value in found.model.state_dict().items() if name in read)
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found.logits(image)), method.predict(image).float())
        torch.testing.assert_close(torch.from_numpy(found.features(image)), method.features(image).float())


# --- the card


def front(place: Path) -> tuple[dict[str, Any], str]:
    _, matter, body = (place / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(matter), body


def test_the_card_says_what_a_stranger_must_know(model: Path, store: Path) -> None:
    matter, body = front(model)
    run, _, _ = the(store, "lnl")
    numbers = run.result.metrics["test"]
    assert matter["pipeline_tag"] == "image-classification"
    assert {"debias-zoo", "lnl", "cmnist"} <= set(matter["tags"])
    assert matter["license"] == "other"
    (entry,) = matter["model-index"]
    (result,) = entry["results"]
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values["accuracy"] == pytest.approx(numbers["accuracy"], abs=1e-6)
    assert values["worst_group"] == pytest.approx(numbers["worst_group"], abs=1e-6)
    for words in ("Bias labels to train.", "CC BY-SA 3.0", "- 1: teal", "No licence was chosen", "arXiv:1812.10352"):
        assert words in body
    found = run.predictions()["test"]
    assert found.biases is not None
    rows = {line.split(" | ")[0].strip("| "): line for line in body.splitlines() if line.startswith("| ")}
    cells = rows["3"].strip("| ").split(" | ")[1:]
    for bias, cell in enumerate(cells):
        members = (found.labels == 3) & (found.biases == bias)
        if members.any():
            share = 100 * float((found.classes[-1][members] == 3).mean())
            assert cell.strip() == f"{share:.2f} ({members.sum()})"
        else:
            assert cell.strip() == ""


def test_odd_names_neither_break_the_card_nor_run(tmp_path: Path) -> None:
    labels = np.arange(120) % 2
    biases = (np.arange(120) // 2) % 2
    images = np.random.default_rng(0).integers(0, 256, (120, 28, 28, 3), dtype=np.uint8)
    splits = np.where(np.arange(120) % 4 == 3, "test", "train")
    odd = ["<script>alert(1)</script>", "a | b\n---\nlicense: mit"]
    made = BiasDataset.from_arrays(images, labels, biases, splits=splits, classes=odd, bias_names=["{{x}}", "`y`"])
    file = tmp_path / "private place" / "mine.npz"
    file.parent.mkdir()
    made.save(file)
    train(tmp_path / "runs", ["erm"], f"arrays:file={file}", backbone="lnl_convnet")
    place = export("erm", tmp_path / "model", out=tmp_path / "runs", license="cc-by-4.0")
    matter, body = front(place)
    assert matter["license"] == "cc-by-4.0"
    assert "<script>" not in body
    assert "\n---\n" not in body
    assert load(place).classes == tuple(odd)
    everything = "".join((place / name).read_text() for name in ("README.md", "config.json"))
    assert "private place" not in everything
    assert str(tmp_path) not in everything


# --- refusals


def test_nothing_else_is_written_over(store: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"architectures": ["Bert"]}')
    (tmp_path / "file").write_text("x")
    for name, words in (
        ("mine", "mine is not empty and holds no exported model: name a new folder"),
        ("other", "other is not empty and holds no exported model"),
        ("file", "file is a file: name a folder"),
    ):
        ended = invoke("export", "lnl", str(tmp_path / name), "--out", str(store))
        assert ended.exit_code == 2
        assert words in ended.output
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_an_export_is_replaced_and_strangers_in_it_are_kept(copy: Path, store: Path) -> None:
    (copy / ".gitattributes").write_text("kept")
    (copy / "model.onnx").write_text("of the model before")
    export("gray", copy, out=store)
    assert load(copy).model.name == "gray"
    assert sorted(path.name for path in copy.iterdir()) == [
        ".gitattributes",
        "README.md",
        "config.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lnn", "no trial under .* is called 'lnn'"),
        ("rebias", "rebias is not finished .stopped.: run it first"),
        ("cmnist/erm", "cmnist/erm names 2 finished trials of .*: give one of"),
        ("hex", "has no trained network"),
    ],
)
def test_a_trial_must_be_one_finished_trial_with_its_network(
    name: str, words: str, store: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(store, tmp_path / "runs")
    run, _, _ = the(store, "lnl")
    for method, seeds, changes in (("erm", (1,), {}), ("hex", (0,), {"config": {}})):
        for seed in seeds:
            trial = run.result.trial.model_copy(update={"method": method, "seed": seed, **changes})
            result = run.result.model_copy(update={"trial": trial, "identity": trial.identity})
            (out / trial.folder).mkdir(parents=True)
            (out / trial.folder / "result.json").write_text(result.model_dump_json())
    stopped = out / "cmnist" / "rebias" / "0-aaaaaaaaaaaa"
    stopped.mkdir(parents=True)
    (stopped / "config.json").write_text(run.result.trial.model_copy(update={"method": "rebias"}).model_dump_json())
    with pytest.raises(ZooError, match=words):
        export(name, tmp_path / "model", out=out)
    assert not (tmp_path / "model").exists()


def test_a_trial_can_be_named_by_folder_digits_or_object(store: Path, tmp_path: Path) -> None:
    run, _, _ = the(store, "gray")
    for k, name in enumerate((run.path, run.result.identity[:6], run)):
        assert load(export(name, tmp_path / str(k), out=store)).model.name == "gray"


def test_data_and_licences_are_checked(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZooError, match="give an identifier as the Hugging Face hub has it"):
        export("gray", tmp_path / "model", out=store, license="mit\ntags: [x]")
    from debias_zoo.registry import load_dataset

    monkeypatch.setattr(load_dataset("cmnist"), "fingerprint", lambda self, root: "other")
    with pytest.raises(ZooError, match="are not those it was trained on"):
        export("gray", tmp_path / "model", out=store)


def test_an_export_that_predicts_otherwise_is_not_written(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from debias_zoo import exporting

    whole = exporting.read_by_predictions

    def spoilt(method: Method, image: Tensor) -> dict[str, Tensor]:
        return {name: value + 0.1 if "fc" in name else value for name, value in whole(method, image).items()}

    monkeypatch.setattr(exporting, "read_by_predictions", spoilt)
    with pytest.raises(ZooError, match=r"what was exported is off by .* nothing was written"):
        export("gray", tmp_path / "model", out=store)
    assert not (tmp_path / "model").exists()


# --- images of any kind


def test_images_of_every_kind_predict_the_same(model: Path, store: Path, tmp_path: Path) -> None:
    found = load(model)
    _, _, images = the(store, "lnl")
    images = images[:3]
    expected = found.logits(images)
    pictures = [Image.fromarray(image) for image in images]
    files = [tmp_path / f"{k}.png" for k in range(3)]
    for file, picture in zip(files, pictures, strict=True):
        picture.save(file)
    for given in (
        images.transpose(0, 3, 1, 2),
        torch.from_numpy(images),
        as_float(images),
        as_float(images).numpy(),
        as_float(images).double(),
        pictures,
        files,
        [str(file) for file in files],
        list(images),
        [torch.from_numpy(image) for image in images],
    ):
        np.testing.assert_allclose(found.logits(given), expected, rtol=1e-4, atol=1e-5)
    for one in (images[0], images[0].transpose(2, 0, 1), pictures[0], files[0], as_float(images)[0]):
        np.testing.assert_allclose(found.logits(one), expected[:1], rtol=1e-4, atol=1e-5)
    grey = images.mean(3).astype(np.uint8)
    repeated = found.logits(grey[..., None].repeat(3, 3))
    np.testing.assert_allclose(found.logits(grey[..., None]), repeated, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.logits(grey[0]), repeated[:1], rtol=1e-4, atol=1e-5)
    many = np.concatenate([images] * 50)  # more than a batch
    np.testing.assert_allclose(found.logits(many)[:3], expected, rtol=1e-4, atol=1e-5)
    assert found.logits(many).shape == (150, 10)
    large = pictures[0].resize((56, 56), Image.Resampling.NEAREST)
    assert found.predict([large]).shape == (1, 10), "files and pictures are scaled"


def test_images_it_cannot_take_are_told(model: Path, tmp_path: Path) -> None:
    found = load(model)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    given: list[tuple[Any, str]] = [
        (np.zeros((2, 30, 30, 3), np.uint8), r"takes images of 28 x 28 pixels with 3 channels; got uint8 \(2, 30, 30"),
        (np.zeros((2, 28, 28, 3), np.int64), "got int64"),
        (np.zeros((5, 28, 28), np.uint8), r"got uint8 \(5, 28, 28\)"),  # three grey ones would look like one of colour
        (torch.full((1, 3, 28, 28), 255.0), r"must lie in \[0, 1\], not normalised; got 255 ... 255"),
        (torch.full((1, 3, 28, 28), torch.nan), r"must lie in \[0, 1\]"),
        (torch.zeros(1, 28, 28, 3), "got float32"),
        ([], "no images"),
        (7, "cannot predict on int: give uint8 arrays"),
        (tmp_path / "broken.png", "broken.png cannot be read"),
        (tmp_path / "nowhere.png", "nowhere.png cannot be read"),
        ([np.zeros((28, 28, 3), np.uint8), np.zeros((14, 14, 3), np.uint8)], "must have one shape and type"),
    ]
    for images, words in given:
        with pytest.raises(ZooError, match=words):
            found.predict(images)
