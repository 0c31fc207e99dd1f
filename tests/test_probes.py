from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from debias_zoo import probes
from debias_zoo.assembly import dataset_of
from debias_zoo.backbones import Backbone
from debias_zoo.cli import cli
from debias_zoo.dataset import BiasDataset, Split
from debias_zoo.engine import quiet
from debias_zoo.errors import ZooError
from debias_zoo.grid import Request, build_grid
from debias_zoo.probes import dependence_of, layers_of, pooled, probe_runs, probed_images, read_out, spread
from debias_zoo.registry import entries, load_method
from debias_zoo.runner import run_trial
from debias_zoo.store import Run, read_runs
from debias_zoo.testing.bench import Bench
from debias_zoo.trial import Readout, Trial

SMALL = {"train_limit": 512, "eval_limit": 100}
LIMIT = 400


def invoke(*command: str) -> Result:
    return CliRunner().invoke(cli, list(command))


def trials(*methods: str) -> list[Trial]:
    found = build_grid(Request(list(methods), ["cmnist"], protocol="quick", precision="fp32")).trials.values()
    return [small(trial) for trial in found]


def small(trial: Trial) -> Trial:
    needs = {role: small(needed) for role, needed in trial.needs.items()}
    return trial.model_copy(update={**SMALL, "needs": needs})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    for trial in trials("erm", "gray"):
        run_trial(trial, out)
    return out


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "runs")
    return tmp_path / "runs"


# --- probes on features whose answer is known


def planted(n: int = 600, classes: int = 4, seed: int = 0) -> tuple[Any, Any]:
    """A target, and features that are nothing but noise."""
    draw = np.random.default_rng(seed)
    return draw.integers(0, classes, n), draw.normal(size=(n, 12))


def read(features: Any, target: Any) -> Readout:
    found, said = read_out(features, target)
    assert found is not None
    assert not said
    return found


def test_features_that_hold_the_bias_are_read_without_error() -> None:
    bias, noise = planted()
    found = read(np.concatenate([np.eye(4)[bias], noise], 1), bias)
    assert found.over_chance == 0.75
    assert (found.accuracy, found.std, found.chance) == (1.0, 0.0, 0.25)


def test_features_of_noise_tell_nothing() -> None:
    bias, noise = planted(2000)
    found = read(noise, bias)
    assert abs(found.over_chance) < 4 * (0.25 * 0.75 / 2000) ** 0.5
    assert found.std > 0


def test_a_rare_value_is_no_help_to_noise() -> None:
    """Plain accuracy would be 0.9 here, 0.4 over 1/K."""
    _, noise = planted(2000)
    bias = (np.arange(2000) % 10 == 0).astype(np.int64)
    assert abs(read(noise, bias).over_chance) < 0.06


def test_scale_and_constant_columns_do_not_matter() -> None:
    bias, noise = planted()
    noise[:, 0] += bias
    scaled = np.concatenate([noise * np.geomspace(1e-3, 1e3, 12) + 50.0, np.full((600, 1), 7.0)], 1)
    assert read(scaled, bias).accuracy == pytest.approx(read(noise, bias).accuracy, abs=0.005)


def test_values_with_too_few_images_are_left_out() -> None:
    bias, noise = planted(100, 2)
    bias[:3] = 2
    found, said = read_out(noise, bias)
    assert found is not None
    assert found.chance == 0.5
    assert said == [": 1 of 3 values have too few images and are left out"]
    assert read_out(noise, np.zeros(100, np.int64)) == (None, [": nothing to tell apart"])


def test_maps_are_averaged_over_a_grid() -> None:
    map_ = torch.arange(16.0).view(1, 1, 4, 4)
    assert pooled(map_).tolist() == [[2.5, 4.5, 10.5, 12.5]]
    assert pooled(map_[..., :1, :1]).tolist() == [[0.0]]
    assert pooled(map_.view(1, 16)).shape == (1, 16)


# --- which images


def test_images_are_spread_over_the_groups() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 3000)
    biases = np.where(draw.random(3000) < 0.95, labels, 1 - labels)
    rows = spread(labels, biases, 200, seed=1)
    assert np.bincount(labels[rows] * 2 + biases[rows]).tolist() == [50, 50, 50, 50]
    assert dependence_of(Split(np.zeros((200, 1, 1, 3), np.uint8), labels[rows], biases[rows])) == pytest.approx(0)
    assert np.array_equal(rows, spread(labels, biases, 200, seed=1))
    assert not np.array_equal(rows, spread(labels, biases, 200, seed=2))
    few = spread(labels, biases, 1000, seed=1)
    assert len(set(few.tolist())) == len(few) == 1000
    rare = labels != biases
    assert rare[few].sum() == rare.sum(), "a small group is taken whole"
    assert len(spread(labels, biases, 9999, seed=1)) == 3000


def arrays(bias_of: Any, biases: bool = True) -> BiasDataset:
    labels = np.arange(400) % 2
    images = np.zeros((400, 4, 4, 3), np.uint8)
    splits = np.where(np.arange(400) < 200, "train", "test")
    return BiasDataset.from_arrays(images, labels, bias_of(labels) if biases else None, splits=splits)


def test_without_an_unbiased_validation_split_it_is_the_test_split() -> None:
    name, split = probed_images(arrays(lambda labels: (np.arange(400) // 2) % 2), None, 100)
    assert (name, len(split)) == ("test", 100)
    assert dependence_of(split) == pytest.approx(0)
    assert dependence_of(probed_images(arrays(lambda labels: 1 - labels), None, 100)[1]) == pytest.approx(1)
    assert "the label determines the bias in test" in probes._dependence_note(1.0, "test")
    assert "the label tells 30 %" in probes._dependence_note(0.3, "test")
    with pytest.raises(ZooError, match="has no bias labels to probe for in test"):
        probed_images(arrays(lambda labels: labels, biases=False), None, 100)


# --- which network


@pytest.mark.parametrize("name", list(entries("method")))
def test_every_method_names_the_backbone_that_predicts(name: str) -> None:
    bench = Bench(load_method(name), None)
    method = bench.build().eval()
    backbone = method.deployed()
    assert isinstance(backbone, Backbone)
    image = bench.view(bench.val).image(slice(0, 6))
    with quiet(method):
        before = method.predict(image)
        found = layers_of(method, image)
        assert list(found) == ["tap0", "tap1", "tap2", "tap3", "embedding"]
        assert all(values.shape[0] == 6 and bool(torch.isfinite(values).all()) for values in found.values())
        assert found["tap1"].shape == (6, 32 * 4)
        assert torch.equal(found["embedding"], method.features(image))
        for parameter in backbone.parameters():
            parameter.add_(0.5)
        assert not torch.allclose(method.predict(image), before), "it does not predict"
        assert not torch.equal(layers_of(method, image)["tap0"], found["tap0"])


@pytest.mark.parametrize(("backbone", "taps"), [("mlp", 3), ("resnet18", 5), ("vit_tiny_patch16_224", 12)])
def test_other_families_are_read_at_their_taps(backbone: str, taps: int) -> None:
    bench = Bench(load_method("erm"), None, backbone, 32)
    method, image = bench.build().eval(), bench.view(bench.val).image(slice(0, 3))
    with quiet(method):
        found = layers_of(method, image)
    net = method.deployed()
    assert net is not None
    assert list(found) == [*(f"tap{k}" for k in range(taps)), "embedding"]
    for k in range(taps):
        assert torch.allclose(found[f"tap{k}"], pooled(net.tap(image, k)), atol=1e-5)


def test_a_method_without_a_backbone_is_read_at_its_embedding() -> None:
    method: Any = Bench(load_method("erm"), None).build().eval()
    method.net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    method.features = method.net.forward
    assert method.deployed() is None
    assert {name: tuple(x.shape) for name, x in layers_of(method, torch.rand(2, 3, 8, 8)).items()} == {
        "embedding": (2, 12)
    }


def test_taps_are_read_on_what_the_backbone_sees() -> None:
    """Gray's backbone never sees a colour: an image and its grey twin are the same to all layers."""
    method = Bench(load_method("gray"), None).build().eval()
    image = torch.rand(4, 3, 12, 12)
    grey = (image * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True).expand(-1, 3, -1, -1)
    with quiet(method):
        found, twin = layers_of(method, image), layers_of(method, grey)
    assert all(torch.allclose(found[name], twin[name], atol=1e-4) for name in found)
    method = Bench(load_method("erm"), None).build().eval()
    with quiet(method):
        assert not torch.allclose(layers_of(method, image)["tap0"], layers_of(method, grey)["tap0"], atol=1e-2)


# --- whole runs


def global_state() -> list[Any]:
    name, keys, *rest = np.random.get_state()
    return [random.getstate(), (name, keys.tobytes(), *rest), torch.get_rng_state().tolist()]  # type: ignore[union-attr]


@pytest.mark.slow
def test_runs_are_probed_once_and_nothing_else_is_touched(runs: Path) -> None:
    found, _ = read_runs(runs)
    split = dataset_of(found[0].result.trial).load(None, "val_unbiased")
    pixels, before = split.images.tobytes(), global_state()  # type: ignore[union-attr]
    files = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    said: list[str] = []
    assert not probe_runs(found, limit=LIMIT, say=said.append)
    assert global_state() == before
    again = dataset_of(found[0].result.trial).load(None, "val_unbiased")
    assert again.images.tobytes() == split.images.tobytes() == pixels  # type: ignore[union-attr]
    assert {path: path.read_bytes() for path in files} == files
    heads = ["[1/2] erm on cmnist, seed 0", "[2/2] gray on cmnist, seed 0"]
    assert [line.split(":")[0] for line in said] == [head for head in heads for _ in ("begun", "done")]
    assert "400 images of val_unbiased" in said[1]
    erm, gray = (run.probe() for run in found)
    assert erm is not None
    assert gray is not None
    assert (erm.split, erm.images, erm.folds, erm.notes) == ("val_unbiased", LIMIT, 5, ())
    assert [layer.name for layer in erm.layers] == ["tap0", "tap1", "tap2", "tap3", "embedding"]
    for colour, grey in zip(erm.layers, gray.layers, strict=True):
        assert colour.bias is not None
        assert grey.bias is not None
        assert colour.bias.over_chance > grey.bias.over_chance + 0.2, "colour is read best where it is seen"
    written = {run.path: (run.path / "probe.json").read_bytes() for run in found}
    said.clear()
    probe_runs(found, limit=LIMIT, say=said.append)
    assert all(line.endswith("probed before") for line in said)
    probe_runs(found, limit=LIMIT, again=True)
    assert {run.path: (run.path / "probe.json").read_bytes() for run in found} == written, "not the same bytes"
    probe_runs(found[:1], limit=LIMIT // 2)
    assert json.loads((found[0].path / "probe.json").read_text())["images"] == LIMIT // 2


def test_a_student_is_probed_with_its_teacher(tmp_path: Path) -> None:
    for trial in sorted(trials("dedier"), key=lambda trial: len(trial.needs)):
        run_trial(trial, tmp_path)
    found = [run for run in read_runs(tmp_path)[0] if run.result.trial.method == "dedier"]
    assert not probe_runs(found, limit=100)
    for needed in found[0].result.trial.needs.values():
        shutil.rmtree(tmp_path / needed.folder)
    (error,) = probe_runs(found, limit=100, again=True).values()
    assert "has no trained network" in error


def test_other_versions_and_other_data_are_refused(runs: Path) -> None:
    found, _ = read_runs(runs)

    def changed(**update: Any) -> Run:
        result = found[0].result
        return replace(found[0], result=result.model_copy(update={"trial": result.trial.model_copy(update=update)}))

    for update, message in (
        ({"method_version": 99}, "trained with version 99 of method 'erm'"),
        ({"dataset_version": 99}, "trained with version 99 of data set 'cmnist'"),
        ({"fingerprint": "other"}, "the files of data set 'cmnist' are not those it was trained on"),
    ):
        (error,) = probe_runs([changed(**update)], limit=LIMIT).values()
        assert message in error


def test_initial_weights_need_not_be_here(runs: Path) -> None:
    found, _ = read_runs(runs)
    result = found[0].result
    gone = result.model_copy(update={"trial": result.trial.model_copy(update={"weights": "/nowhere/resnet.pt"})})
    assert not probe_runs([replace(found[0], result=gone)], limit=100)


# --- the command


def test_the_command_goes_on_after_a_failure(runs: Path, tmp_path: Path) -> None:
    broken = next(runs.glob("cmnist/erm/*/model.safetensors"))
    broken.write_bytes(b"no tensors")
    figure = tmp_path / "leakage.svg"
    ended = CliRunner().invoke(
        cli, ["probe", str(runs), "--limit", "100", "--format", "json", "--device", "cpu", "--figure", str(figure)]
    )
    assert ended.exit_code == 1, ended.output
    assert "[1/2] erm on cmnist, seed 0: failed: " in ended.stderr
    (row,) = json.loads(ended.stdout)
    assert row["method"] == "gray"
    assert row["label_embedding"] > 0
    assert "gray" in figure.read_text()
    broken.unlink()
    ended = invoke("probe", str(runs), "--limit", "100", "--device", "cpu")
    assert ended.exit_code == 0, ended.output
    assert "not probed, no model.safetensors" in " ".join(ended.output.split())
    for path in runs.rglob("model.safetensors"):
        path.unlink()
    ended = invoke("probe", str(runs))
    assert ended.exit_code == 2
    assert "no finished trial with its network" in ended.output


def test_a_figure_of_an_unknown_kind_is_refused_before_any_work(runs: Path) -> None:
    ended = invoke("probe", str(runs), "--figure", "leakage.gif")
    assert ended.exit_code == 2
    assert "cannot draw leakage.gif: the name must end in .svg, .pdf, .png" in ended.output
    assert not list(runs.rglob("probe.json"))


def test_a_damaged_probe_is_made_again(runs: Path) -> None:
    found, _ = read_runs(runs)
    probe_runs(found[:1], limit=100)
    path = found[0].path / "probe.json"
    whole = path.read_text()
    for text in ("{", whole.replace(found[0].result.identity, "0" * 12), whole.replace('n": 1,', 'n": 2,', 1)):
        assert text != whole
        path.write_text(text)
        with pytest.raises(ZooError, match="probe again"):
            found[0].probe()
        probe_runs(found[:1], limit=100)
        assert path.read_text() == whole
