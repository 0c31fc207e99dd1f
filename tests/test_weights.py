"""Initial weights: which tensors of a file go where, and what is said of files that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from short_trials import trials

from debias_zoo import weights
from debias_zoo.backbones import Backbone, BackboneFactory
from debias_zoo.errors import ZooError
from debias_zoo.grid import Request, build_grid
from debias_zoo.runner import run_trial
from debias_zoo.timm_models import create

SHAPE = (3, 32, 32)
NAME = "resnet18"


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    weights._fitted.cache_clear()


@pytest.fixture
def donor() -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return {
        k: torch.randn_like(v) if v.is_floating_point() else v
        for k, v in create(NAME, 7, SHAPE, {}).state_dict().items()
    }


def loaded(path: Path, classes: int = 3) -> Backbone:
    return BackboneFactory(NAME, classes, SHAPE, "none", 0, weights=str(path))()


def save(found: Any, path: Path) -> Path:
    torch.save(found, path)
    return path


def body(net: Backbone) -> dict[str, torch.Tensor]:
    return {k: v for k, v in net.model.state_dict().items() if not k.startswith("fc.")}


@pytest.mark.parametrize(
    "wrap", [lambda d: d, lambda d: {"state_dict": d, "epoch": 3}, lambda d: {f"module.{k}": v for k, v in d.items()}]
)
def test_all_but_the_classifier_is_loaded(wrap: Any, donor: dict[str, torch.Tensor], tmp_path: Path) -> None:
    net = loaded(save(wrap(donor), tmp_path / "net.pth"))
    assert all(torch.equal(value, donor[name]) for name, value in body(net).items())
    own = BackboneFactory(NAME, 3, SHAPE, "none", 0)()
    assert torch.equal(net.model.fc.weight, own.model.fc.weight), "the classifier is the one without weights"


def test_a_finished_trials_file_gives_the_network_that_predicts(tmp_path: Path) -> None:
    (trial,) = trials("lff")
    run_trial(trial.model_copy(update={"backbone": NAME, "backbone_options": {}}), tmp_path)
    (file,) = tmp_path.rglob("model.safetensors")
    there = load_file(file)
    assert {key.partition(".")[0] for key in there} > {"net"}, "more than that network"
    fitted = weights.initial_weights(str(file), NAME, (3, 28, 28), {})
    assert all(torch.equal(value, there[f"net.model.{name}"]) for name, value in fitted.items())


def test_safetensors_without_a_classifier(donor: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file({k: v.contiguous() for k, v in donor.items() if not k.startswith("fc.")}, tmp_path / "net.safetensors")
    net = loaded(tmp_path / "net.safetensors")
    assert all(torch.equal(value, donor[name]) for name, value in body(net).items())


def test_another_naming_in_the_same_order(donor: dict[str, torch.Tensor], tmp_path: Path) -> None:
    renamed = {f"layer_{k}.{name.rpartition('.')[2]}": value for k, (name, value) in enumerate(donor.items())}
    net = loaded(save(renamed, tmp_path / "net.pth"))
    assert all(torch.equal(value, donor[name]) for name, value in body(net).items())


def test_a_networks_of_its_own_kind_keeps_its_random_weights(donor: dict[str, torch.Tensor], tmp_path: Path) -> None:
    factory = BackboneFactory(NAME, 3, SHAPE, "none", 0, weights=str(save(donor, tmp_path / "net.pth")))
    other = factory("resnet10t", role="biased")
    assert other.name == "resnet10t"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda d: {k: v for k, v in d.items() if k != "layer1.0.conv1.weight"},
            r"1 of 120 tensors are missing, such as layer1\.0",
        ),
        (lambda d: {**d, "extra.weight": torch.zeros(1)}, "1 tensors have no place in it, such as extra.weight"),
        (
            lambda d: {**d, "conv1.weight": torch.zeros(64, 3, 3, 3)},
            r"conv1\.weight is \(64, 3, 3, 3\), not \(64, 3, 7, 7\)",
        ),
        (lambda d: {"a": 1}, "holds no state dict"),
        (lambda d: {1: torch.zeros(1)}, "holds no state dict"),
        (lambda d: {**d, "conv1.weight": d["conv1.weight"] * float("nan")}, r"conv1\.weight is not finite"),
        (lambda d: [1, 2], "holds no state dict"),
        (lambda d: Path("/"), "cannot|safely"),
    ],
)
def test_what_does_not_fit_is_named(change: Any, words: str, donor: dict[str, torch.Tensor], tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=words):
        loaded(save(change(donor), tmp_path / "net.pth"))


def test_a_missing_and_a_damaged_file(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="no such file"):
        loaded(tmp_path / "gone.pth")
    (tmp_path / "bad.pth").write_bytes(b"no checkpoint")
    with pytest.raises(ZooError, match="no state dict that can be read safely"):
        loaded(tmp_path / "bad.pth")


def test_the_weights_and_not_their_place_are_in_the_identity(donor: dict[str, torch.Tensor], tmp_path: Path) -> None:
    def identity(weights: str) -> str:
        request = Request(["erm"], ["cmnist"], protocol="quick", backbone=NAME, weights=weights)
        (found,) = build_grid(request).asked
        return found

    here, there = save(donor, tmp_path / "a.pth"), save({"model": donor}, tmp_path / "b.pth")
    assert identity(str(here)) == identity(str(there)) != identity("")
    other = save({**donor, "conv1.weight": donor["conv1.weight"] + 1}, tmp_path / "c.pth")
    assert identity(str(other)) != identity(str(here))


def test_without_a_network_pretrained_weights_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*given: Any) -> Any:
        raise OSError("We couldn't connect to 'https://huggingface.co'")

    monkeypatch.setattr(weights, "create", fetch)
    with pytest.raises(ZooError, match=r"resnet18.*couldn't connect.*--weights FILE"):
        Backbone(NAME, 3, SHAPE, weights=weights.PRETRAINED)


def test_a_net_without_pretrained_weights() -> None:
    with pytest.raises(ZooError, match="no pretrained weights of backbone 'lnl_convnet'"):
        Backbone("lnl_convnet", 3, SHAPE, weights=weights.PRETRAINED)
