"""Grad-CAM: against known heat and a literal replica, on every backbone and method; the command on trained runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor, nn

from debias_zoo import registry
from debias_zoo.backbones import Backbone, BackboneFactory
from debias_zoo.cli import cli
from debias_zoo.dataset import BiasDataset, Card, Split
from debias_zoo.errors import ZooError
from debias_zoo.explain import conflicting, of_one_dataset
from debias_zoo.gradcam import grad_cam, heat_of, inside
from debias_zoo.grid import Request, build_grid, parse_datasets
from debias_zoo.maps import as_map, from_map, last_map, map_point
from debias_zoo.method import Method, Task
from debias_zoo.nets import StagedNet
from debias_zoo.registry import entries, load_method
from debias_zoo.runner import load_splits, make_method, run_trial, trained_method
from debias_zoo.store import read_runs
from debias_zoo.testing.bench import Bench, Plain


class Given(BackboneFactory):
    """Hands out a network that is there."""

    def __init__(self, net: Backbone) -> None:
        self.net = net

    def __call__(self, *given: Any, **options: Any) -> Backbone:
        return self.net


def plain(net: Backbone) -> Method:
    """A method that predicts with ``net``."""
    return Plain(Given(net), Task(2, 0, 1, net.image_shape), None).eval()


def small(stages: list[nn.Module], channels: list[int], size: int = 4) -> Backbone:
    """A backbone whose network is made by hand; for grey images of 2 classes."""
    net = Backbone("simple_convnet", 2, (1, size, size))
    net.model = StagedNet(stages, channels, 2)
    net.taps = len(stages)
    return net.eval()


def images_of(shape: tuple[int, int, int], count: int = 3) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


# --- the formula


@pytest.mark.parametrize("label", [0, 1])
def test_the_heat_of_a_convolution_and_a_linear_head_is_known(label: int) -> None:
    net = small([nn.Conv2d(1, 2, 1, bias=False)], [2])
    weights = torch.tensor([[1.0, -3.0], [-2.0, 0.5]])
    with torch.no_grad():
        net.model.stages[0].weight.copy_(torch.tensor([1.0, 2.0]).view(2, 1, 1, 1))
        net.model.fc.weight.copy_(weights)
    pixels = np.zeros((1, 4, 4, 1), np.uint8)
    pixels[0, 1, 2], pixels[0, 3, 3] = 255, 51
    heat = heat_of(plain(net), pixels, np.array([label]), "label")
    # A_1 = x, A_2 = 2x; z_c = sum_k w_ck mean(A_k), so alpha_k = w_ck / 16
    alpha = weights[label] / 16
    expected = np.maximum(float(alpha[0] + 2 * alpha[1]) * pixels[..., 0] / 255.0, 0.0)
    np.testing.assert_allclose(heat.maps, expected, atol=1e-7)
    assert (heat.layer, heat.map_size) == ("stages.0", (4, 4))


def test_heat_is_for_the_class_that_is_asked() -> None:
    net = small([nn.Conv2d(1, 1, 1, bias=False)], [1])
    with torch.no_grad():
        net.model.stages[0].weight.fill_(1.0)
        net.model.fc.weight.copy_(torch.tensor([[2.0], [-1.0]]))
        net.model.fc.bias.zero_()
    pixels = np.full((1, 4, 4, 1), 255, np.uint8)
    predicted, label = (heat_of(plain(net), pixels, np.array([1]), of) for of in ("predicted", "label"))
    assert predicted.predicted.tolist() == label.predicted.tolist() == [0]
    np.testing.assert_allclose(predicted.maps, np.full((1, 4, 4), 2.0 / 16), rtol=1e-6)
    assert not label.maps.any(), "every pixel speaks against class 1"


def literal(a: Tensor, logits: Tensor, target: Tensor) -> Tensor:
    """Equations 1 and 2 of the paper, image by image, channel by channel. a: (B, C, h, w)."""
    heat = torch.zeros(len(a), *a.shape[2:], dtype=a.dtype)
    for i in range(len(a)):
        (grad,) = torch.autograd.grad(logits[i, target[i]], a, retain_graph=True)
        for k in range(a.shape[1]):
            alpha = grad[i, k].sum() / (a.shape[2] * a.shape[3])
            heat[i] += alpha * a[i, k].detach()
    return heat.clamp(min=0)


def test_captum_computes_the_papers_equations() -> None:
    torch.manual_seed(0)
    net = Backbone("lnl_convnet", 4, (3, 28, 28)).double().eval()
    image, target = images_of((3, 28, 28)).double(), torch.tensor([3, 0, 2])
    for stage in range(net.taps):
        a = net.tap(image, stage).detach().requires_grad_()
        x: Any = a
        for layer in net.model.stages[stage + 1 :]:
            x = layer(x)
        expected = literal(a, net.model.fc(x.mean((2, 3))), target)
        found = grad_cam(plain(net), net, stage, image, target)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        assert found.any()


def test_tokens_are_a_map_without_the_class_token() -> None:
    torch.manual_seed(0)
    net = Backbone("vit_tiny_patch16_224", 4, (3, 64, 64)).double().eval()
    image, target = images_of((3, 64, 64), 2).double(), torch.tensor([3, 0])
    assert last_map(net) == net.taps - 2, "no logit depends on the patches after the last block"
    model = net.model
    with torch.no_grad():
        tokens = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(net.normalize(image)))))
        for block in model.blocks[:-1]:
            tokens = block(tokens)  # (B, 1 + 16, C)
    a = tokens[:, 1:].transpose(1, 2).reshape(2, 192, 4, 4).requires_grad_()
    x = model.blocks[-1](torch.cat([tokens[:, :1], a.flatten(2).transpose(1, 2)], 1))
    expected = literal(a, model.head(model.norm(x)[:, 0]), target)
    found = grad_cam(plain(net), net, net.taps - 2, image, target)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-15)
    assert found.any()


@pytest.mark.parametrize("form", ["maps", "channels last", "tokens", "tokens behind others"])
def test_a_map_is_found_in_an_output_and_put_back(form: str) -> None:
    z = torch.arange(2.0 * 3 * 4 * 5).view(2, 3, 4, 5)
    tokens = z.flatten(2).transpose(1, 2)
    first = torch.full((2, 2, 3), -1.0)
    output = {
        "maps": z,
        "channels last": z.permute(0, 2, 3, 1),
        "tokens": tokens,
        "tokens behind others": torch.cat([first, tokens], 1),
    }[form]
    found = as_map(output, (3, 4, 5))
    assert found is not None
    assert torch.equal(found, z)
    assert torch.equal(from_map(found, output), output)
    assert as_map(output, (7, 4, 5)) is None


# --- backbones and methods


@pytest.mark.parametrize(
    ("name", "size", "layer", "side"),
    [
        ("lnl_convnet", 28, "stages.3", 7),
        ("simple_convnet", 28, "stages.3", 28),
        ("resnet20", 32, "stages.2", 8),
        ("resnet18", 64, "layer4", 2),
        ("resnet18", 32, "layer3", 2),  # layer4 is 1 x 1
        ("convnext_atto", 64, "stages.3", 2),
        ("vit_tiny_patch16_224", 64, "blocks.10", 4),
        ("efficientnet_lite0", 64, "blocks.6", 2),
        ("swin_tiny_patch4_window7_224", 56, "layers.3", 2),
        ("densenet121", 64, "features.norm5", 2),
        ("vgg11", 64, "features.20", 2),
    ],
)
def test_the_last_map_of_backbones(name: str, size: int, layer: str, side: int) -> None:
    torch.manual_seed(0)
    net = Backbone(name, 3, (3, size, size)).eval()
    before = net(images_of((3, size, size))).detach()
    pixels = (images_of((3, size, size)).permute(0, 2, 3, 1) * 255).byte().numpy()
    found = heat_of(plain(net), pixels, np.array([0, 1, 2]))
    assert (found.layer, found.map_size) == (layer, (side, side))
    assert found.maps.shape == (3, size, size)
    assert np.isfinite(found.maps).all()
    assert found.maps.any()
    assert torch.equal(net(images_of((3, size, size))), before), "the network was left as it was"
    assert not any(module._forward_hooks for module in net.modules())


def test_every_listed_backbone_has_a_map_or_says_why_not() -> None:
    for name in registry.entries("backbone"):
        net = Backbone(name, 3, (3, 28, 28)).eval()
        if name == "mlp":
            with pytest.raises(ZooError, match=r"'mlp' has no map larger than 1 x 1.*--backbone lnl_convnet"):
                last_map(net)
        else:
            assert net.tap_module(last_map(net))[1] in list(net.modules())


def test_a_tap_that_is_no_modules_output_is_said() -> None:
    net = small([nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1)], [2, 2])
    net.model.feature_info[1]["module"] = "stages.0"
    with pytest.raises(ZooError, match=r"its tap 1 is not the output of its module 'stages.0'"):
        last_map(net)
    net.model.feature_info[1]["module"] = "stages.7"
    with pytest.raises(ZooError, match=r"no module 'stages.7', which its tap 1 names"):
        last_map(net)


def test_a_dead_network_has_no_heat_and_raises_nothing() -> None:
    net = small([nn.Conv2d(1, 2, 1), nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU())], [2, 2])
    with torch.no_grad():
        net.model.stages[1][0].bias.fill_(-100.0)
    found = heat_of(plain(net), np.full((1, 4, 4, 1), 9, np.uint8), np.array([0]))
    assert found.layer == "stages.1"
    assert not found.maps.any()


@pytest.mark.parametrize("name", sorted(entries("method")))
def test_every_method_can_be_explained(name: str) -> None:
    bench = Bench(load_method(name))
    method = bench.build().eval().requires_grad_(False)
    pixels = np.asarray(bench.even.images[:4])
    found = heat_of(method, pixels, bench.even.labels[:4])
    assert (found.layer, found.maps.shape) == ("stages.3", (4, 12, 12))
    image = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255.0
    assert found.predicted.tolist() == method.predict(image).argmax(1).tolist()
    assert found.maps.any()


class Aside(Plain):
    name = "aside"

    def predict(self, image: Tensor) -> Tensor:
        return image.mean((1, 2, 3))[:, None].repeat(1, 2)


class Twice(Plain):
    name = "twice"

    def predict(self, image: Tensor) -> Tensor:
        found: Tensor = self.net(image) + self.net(image.flip(3))
        return found


@pytest.mark.parametrize(("cls", "times"), [(Aside, 0), (Twice, 2)])
def test_methods_that_do_not_ask_their_network_once_say_so(cls: type[Method], times: int) -> None:
    net = small([nn.Conv2d(1, 2, 1)], [2])
    method = cls(Given(net), Task(2, 0, 1, (1, 4, 4)), None).eval()
    with pytest.raises(ZooError, match=rf"{cls.name} cannot be explained: a prediction passes .* {times} times"):
        heat_of(method, np.zeros((1, 4, 4, 1), np.uint8), np.array([0]))
    del method.net
    with pytest.raises(ZooError, match="no backbone called `net`"):
        heat_of(method, np.zeros((1, 4, 4, 1), np.uint8), np.array([0]))


def test_without_captum_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    net = small([nn.Conv2d(1, 2, 1)], [2])
    with pytest.raises(ZooError, match=r"pip install 'debias-zoo\[explain\]'"):
        heat_of(plain(net), np.zeros((1, 4, 4, 1), np.uint8), np.array([0]))


def test_gradients_end_at_the_map() -> None:
    net = small([nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1)], [2, 2])
    with map_point(net, 0) as point:
        net(images_of((1, 4, 4))).sum().backward()
    assert point.calls == 1
    assert net.model.stages[0].weight.grad is None
    assert net.model.stages[1].weight.grad is not None


# --- the share inside the object


def test_share_inside_of_planted_heat() -> None:
    heat = np.zeros((3, 2, 2), np.float32)
    heat[0] = [[3, 1], [0, 0]]
    heat[1] = [[1, 1], [1, 1]]
    mask = np.array([[[True, False], [True, False]]] * 3)
    np.testing.assert_array_equal(inside(heat, mask), [0.75, 0.5, np.nan])
    with pytest.raises(ZooError, match="a mask must have the size of its image"):
        inside(heat, mask[:, :1])


@pytest.mark.parametrize("text", ["cmnist", "cmnist-lff", "biased-mnist"])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_mask_of_digits_is_the_digit(text: str, split: str) -> None:
    (dataset,) = parse_datasets(f"{text}:data_seed=3")
    found = dataset.load(None, split)
    rows = np.array([5, 0, 17, 400])
    mask = dataset.mask(None, split, rows)
    assert mask is not None
    assert (mask.dtype, mask.shape) == (np.bool_, (4, 28, 28))
    images = np.asarray(found.images[rows])
    if text == "biased-mnist":
        assert np.array_equal(mask, (images == 255).all(3))  # no background is white
    else:
        assert not images[~mask].any()
        assert images[mask].any(1).mean() > 0.5
        assert mask.mean() < 0.4


def test_the_mask_of_clothes_is_the_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    (dataset,) = parse_datasets("fashion-cmnist")
    clothes = np.array([[[0, 9], [200, 0]], [[1, 1], [0, 0]]], np.uint8)
    monkeypatch.setattr(type(dataset), "digits", lambda self, root, split: (clothes, np.array([0, 1])))
    found = dataset.mask(None, "test", np.array([1, 0]))
    assert found is not None
    assert found.tolist() == [[[True, True], [False, False]], [[False, True], [True, False]]]


def test_other_data_know_no_mask() -> None:
    data = BiasDataset.from_arrays(np.zeros((9, 4, 4, 3), np.uint8), np.arange(9) % 3)
    assert data.mask(None, "train", np.array([0])) is None


# --- which images


def card_of(classes: int = 3) -> Card:
    (dataset,) = parse_datasets("cmnist")
    names = tuple("abcdefgh"[:classes])
    changes = {"classes": names, "biases": names, "aligned": tuple((k,) for k in range(classes))}
    return dataset.card.model_copy(update=changes)


def test_conflicting_images_take_turns_by_class() -> None:
    random = np.random.default_rng(0)
    labels, biases = random.integers(0, 3, 200), random.integers(0, 3, 200)
    split = Split(np.zeros((200, 2, 2, 3), np.uint8), labels, biases)
    rows = conflicting(split, card_of(), "x", 12)
    assert labels[rows].tolist() == [0, 1, 2] * 4
    assert (labels[rows] != biases[rows]).all()
    assert len(set(rows.tolist())) == 12
    assert conflicting(split, card_of(), "x", 5).tolist() == rows[:5].tolist()
    assert conflicting(split, card_of(), "y", 12).tolist() != rows.tolist()
    everything = conflicting(split, card_of(), "x", 1000)
    assert sorted(everything.tolist()) == np.flatnonzero(labels != biases).tolist()


def test_without_bias_labels_any_image_may_be_looked_at() -> None:
    split = Split(np.zeros((6, 2, 2, 3), np.uint8), np.array([0, 1, 2, 0, 0, 0]))
    assert sorted(conflicting(split, card_of(), "x", 9).tolist()) == [0, 1, 2, 3, 4, 5]


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
    assert "the weights of gray on cmnist, seed 1 do not fit" in result.stderr
    assert "hex on cmnist, seed 2 has no trained network" in result.stderr
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
